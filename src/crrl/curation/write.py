"""The data set: a folder with `train.parquet`, `chats.jsonl` and a card, whole or not there at all.

The parquet file has everything; `messages` and `tools` are JSON text in it, as published sets have them, and `ids` with
`trained` are the tokens as they were sampled. `chats.jsonl` has the same conversations for other programs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crrl.curation.api import Trajectory
from crrl.curation.near import WORDS
from crrl.curation.select import Rules, Selection
from crrl.report.summary import versions

DATA, CHATS, CARD = "train.parquet", "chats.jsonl", "README.md"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write(out: Path, selection: Selection, rules: Rules, sources: Sequence[str], against: Sequence[str]) -> None:
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_parquet(partial / DATA, selection.kept)
    with (partial / CHATS).open("w") as file:
        for trajectory in selection.kept:
            if trajectory.messages:
                file.write(json.dumps(_chat(trajectory), ensure_ascii=False) + "\n")
    (partial / CARD).write_text(card(out.name, selection, rules, sources, against))
    os.rename(partial, out)


def _chat(trajectory: Trajectory) -> dict[str, Any]:
    told = {"id": trajectory.id, "task": trajectory.task, "solved": trajectory.solved, "patch": trajectory.patch}
    return {"messages": trajectory.messages, "tools": trajectory.tools or None, **told}


def _write_parquet(file: Path, trajectories: Sequence[Trajectory]) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    texts = ("id", "task", "corpus", "language", "repository", "model", "patch", "messages", "tools", "scores")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("solved", pa.bool_()),
            ("reward", pa.float64()),
            ("ids", pa.list_(pa.int32())),
            ("trained", pa.list_(pa.int8())),
            ("tokenizer", pa.string()),
            ("where", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist([_row(t) for t in trajectories], schema), file)


def _row(t: Trajectory) -> dict[str, Any]:
    tokens = t.tokens
    return {
        **{"id": t.id, "task": t.task, "patch": t.patch, "solved": t.solved, "reward": t.reward, "where": t.where},
        **{key: t.about.get(key) for key in ("corpus", "language", "repository", "model")},
        "messages": json.dumps(t.messages, ensure_ascii=False) if t.messages else None,
        "tools": json.dumps(t.tools, ensure_ascii=False) if t.tools else None,
        "scores": json.dumps(t.scores) if t.scores else None,
        "ids": tokens.ids if tokens else None,
        "trained": tokens.trained if tokens else None,
        "tokenizer": tokens.tokenizer if tokens else None,
    }


def counts(selection: Selection) -> dict[str, Any]:
    """What is in it, and what is not: JSON values."""
    kept = selection.kept
    tokens = [t.tokens for t in kept if t.tokens is not None]
    return {
        "trajectories": len(kept),
        "tasks": len({t.task for t in kept}),
        "with_chat": sum(bool(t.messages) for t in kept),
        "with_tokens": len(tokens),
        "tokens": sum(len(t.ids) for t in tokens),
        "trained_tokens": sum(sum(t.trained) for t in tokens),
        "turns": sum(m["role"] == "assistant" for t in kept for m in t.messages),
        **{key: _by(kept, key) for key in ("language", "corpus", "repository", "model")},
        "left_out": dict(selection.left_out.most_common()),
        "leaks": {task: list(of) for task, of in selection.leaks.items()},
    }


def _by(trajectories: Sequence[Trajectory], key: str) -> dict[str, int]:
    return dict(Counter(t.about.get(key, "not known") for t in trajectories).most_common())


def card(name: str, selection: Selection, rules: Rules, sources: Sequence[str], against: Sequence[str]) -> str:
    """In the form of the hub's dataset cards. Names come from data: code marks keep them plain text."""
    told = counts(selection)
    size = next((text for most, text in SIZES if told["trajectories"] < most), "n>1M")
    left_out = told["left_out"] or {"nothing": 0}
    made = ", ".join(f"{part} {version}" for part, version in sorted(versions().items()))
    checked = ", ".join(map(_code, against)) if against else "no evaluation was named (`against=`): **not checked**"
    leaks = [f"{_code(task)} is {_code(twin)} (by {how})" for task, (twin, how) in sorted(selection.leaks.items())]
    lines = [
        *("---", "task_categories:", "- text-generation", "tags:", "- code", "- agent", "- program-repair"),
        *("size_categories:", f"- {size}", "configs:", "- config_name: default", f"  data_files: {DATA}", "---", ""),
        *(f"# {name}", ""),
        f"{told['trajectories']} trajectories at {told['tasks']} tasks: agents that repair code, for supervised "
        "fine-tuning. Made by `crrl curate`.",
        *("", "## What is in it", ""),
        f"- From: {', '.join(map(_code, sources))}.",
        f"- {told['turns']} assistant turns; {told['with_tokens']} trajectories with their tokens as sampled "
        f"({told['tokens']:,} tokens, {told['trained_tokens']:,} of them sampled); {told['with_chat']} as chats.",
        *(f"- By {key}: {_listed(told[key])}." for key in ("model", "corpus", "language", "repository")),
        f"- `{DATA}`: `messages` and `tools` are JSON text in the form of chat completions; `ids` and `trained` are "
        f"the tokens under the tokenizer `tokenizer` (a hash), 1 where the model sampled. `{CHATS}`: the chats alone.",
        *("", "## How it was chosen", ""),
        f"- Verdict: {_VERDICT[rules.keep]} Trajectories with an attempted exploit are left out.",
        f"- Near-duplicates: of trajectories whose runs of {WORDS} words have a Jaccard index of {rules.similar:g} or "
        "more, one is kept: solved, with the fewest failed calls, the shortest.",
        f"- Of each task, {f'at most {rules.per_task}: ' if rules.per_task else 'all: '}the first by that order, then "
        "those that are least like the ones chosen.",
        f"- Tasks of evaluations, by id, commit and patch: {checked}.{' ' + '; '.join(leaks) + '.' if leaks else ''}",
        *("", "| left out | trajectories |", "|---|---|"),
        *(f"| {reason} | {count} |" for reason, count in left_out.items()),
        *("", "## What to know", ""),
        "- Text of tasks and repositories keeps its own licence. Models' terms may restrict training on their output.",
        "- Tests judged; code that passes them may still be wrong.",
        f"- Made with {made}.",
    ]
    return "\n".join(lines) + "\n"


_VERDICT = {
    "solved": "only trajectories whose patch passes the task's tests, and that ended by themselves.",
    "judged": "every trajectory that was judged; `solved` says how.",
    "all": "every trajectory, those that nobody judged included (`solved` is null).",
}


def _listed(by: Mapping[str, int]) -> str:
    shown = [f"{_code(name)} {count}" for name, count in list(by.items())[:12]]
    return ", ".join(shown) + (f" and {len(by) - 12} more" if len(by) > 12 else "")


def _code(text: str) -> str:
    return "`" + " ".join(text.replace("`", "'").split()) + "`"
