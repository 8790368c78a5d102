"""What `crrl eval` leaves: report.html, card.md to publish, and its predictions as SWE-bench's harness takes them.

Everything comes from the journal and the summary. Text by a model or a task is escaped, as in `html.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crrl.report import classification
from crrl.report.curve import STYLE
from crrl.report.from_journal import transcript
from crrl.report.html import MAX_TRANSCRIPTS, environment
from crrl.report.summary import Summary, interval, percent, write_atomically
from crrl.rollout.journal import EpisodeRow, Journal

PHASE = "eval"


@dataclass(frozen=True)
class Line:
    """One task in one cell: `samples` has one character each, 1 solved, 0 not, x lost."""

    task: str
    samples: str
    notes: str


def write_evaluation(folder: Path, summary: Summary, journal: Journal, tokenizer: Any) -> None:
    tables = per_task(journal)
    write_predictions(folder / "predictions", journal, summary.run)
    write_atomically(folder / "card.md", card(summary, tables))
    write_atomically(folder / "report.html", page(folder, summary, journal, tokenizer, tables))


def per_task(journal: Journal) -> dict[tuple[str, str], list[Line]]:
    """(split, decoding) -> its tasks, by id."""
    cells: dict[tuple[str, str], dict[str, list[EpisodeRow]]] = {}
    for row in journal.outline(PHASE):
        cells.setdefault(cell_of(row.id), {}).setdefault(row.task, []).append(row)
    return {cell: [_line(task, tasks[task]) for task in sorted(tasks)] for cell, tasks in sorted(cells.items())}


def cell_of(episode: str) -> tuple[str, str]:
    _, _, split, decoding, _ = episode.split("/", 4)
    return split, decoding


def _line(task: str, rows: list[EpisodeRow]) -> Line:
    rows.sort(key=lambda row: row.attempt)
    notes = [f"{sum(of)} {name}" for name, of in _noted(rows) if any(of)]
    return Line(task, "".join("x" if r.outcome == "lost" else str(int(r.solved)) for r in rows), ", ".join(notes))


def _noted(rows: Sequence[EpisodeRow]) -> Iterator[tuple[str, list[bool]]]:
    yield "truncated", [r.outcome == "truncated" for r in rows]
    yield "lost", [r.outcome == "lost" for r in rows]
    yield "attempted an exploit", [r.exploits > 0 for r in rows]


# Predictions ----------------------------------------------------------------------------------------------------------


def write_predictions(folder: Path, journal: Journal, model: str) -> None:
    """`SPLIT-DECODING-N.jsonl`, one file for sample N of every task: instance_id, model_name_or_path, model_patch. Lost
    episodes have no line: they are no empty patch."""
    folder.mkdir(exist_ok=True)
    lines: dict[str, list[str]] = {}
    for episode in journal.episodes(PHASE):
        split, decoding = cell_of(episode.id)
        if episode.outcome == "lost":
            continue
        prediction = {"instance_id": episode.task, "model_name_or_path": model, "model_patch": episode.patch}
        lines.setdefault(f"{split}-{decoding}-{episode.attempt + 1}", []).append(json.dumps(prediction))
    for name, of in lines.items():
        write_atomically(folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.jsonl", "\n".join(of) + "\n")


# The card -------------------------------------------------------------------------------------------------------------

SHOWN = (
    ("tasks", "tasks"),
    ("judged", "judged samples"),
    ("lost", "lost samples (in no rate)"),
    ("truncated", "of the judged, truncated"),
    ("first_try", "solved at the first try"),
    ("non_empty", "patch not empty"),
    ("applied", "patch applied"),
    ("similarity", "similarity to the developer's patch"),
    ("must_flip", "tests to flip that passed"),
    ("must_stay", "tests to keep that passed"),
    ("well_formed", "well-formed"),
    ("exploits", "samples with an attempted exploit"),
    ("visible_only", "samples that pass only visible tests"),
)
COSTS = (
    ("tool_calls", "tool calls"),
    ("tokens", "tokens sampled"),
    ("prompt_tokens", "prompt tokens"),
    ("seconds", "seconds"),
    ("usd", "USD"),
)


def numbers(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, number) of a cell, in words."""
    low, high = metrics["bounds"]
    rows = [("resolved", f"{metrics['rate']:.1%} [{interval(metrics['ci95'])}]")]
    if cheated := metrics.get("cheating"):
        parts = f"passed {cheated['passed'] or 0:.1%}, tried to {cheated['attempted'] or 0:.1%}"
        rows = [("cheated on tasks that honest work cannot pass", f"{cheated['rate']:.1%} ({parts})")]
    if metrics["lost"]:
        rows.append(("resolved, if all lost had not been solved, and had been", f"{low:.1%}, {high:.1%}"))
    for k, of in metrics["pass_at"].items():
        if k != "1":
            hat = metrics["pass_hat"][k]
            rows.append((f"pass@{k}, pass^{k}", f"{of['value']:.1%}, {hat['value']:.1%} (of {of['tasks']} tasks)"))
    for key, name in SHOWN:
        value = metrics[key]
        if value is not None:
            rows.append((name, f"{value:.1%}" if isinstance(value, float) else str(value)))
    for key, name in COSTS:
        if key in metrics["per_episode"]:
            solved = metrics["per_solved_task"][key]
            each = "none solved" if solved is None else f"{solved:,.{_digits(key)}f}"
            rows.append(
                (f"{name} per episode, per solved task", f"{metrics['per_episode'][key]:,.{_digits(key) + 1}f}, {each}")
            )
    rows.append(("how they ended", ", ".join(f"{n} {word}" for word, n in metrics["exits"].items())))
    return rows


def _digits(key: str) -> int:
    return 3 if key == "usd" else 0


def conditions(summary: Summary) -> list[tuple[str, str]]:
    told = summary.evaluation
    origin = ", ".join(f"{key} {value}" for key, value in told["origin"].items())
    found = [
        ("benchmark", f"{told['benchmark']}{f' ({origin})' if origin else ''}"),
        ("policy", f"{told['policy']}{', checkpoint chosen: ' + told['rule'] if told['rule'] else ''}"),
        ("weights", told["weights"]),
        ("seed", str(summary.seed)),
    ]
    if "seen" in told:
        found.append(("seen in training", told["seen"]["said"]))
    return [*found, ("made with", ", ".join(f"{n} {v}" for n, v in summary.versions.items())), ("on", summary.machine)]


def card(summary: Summary, tables: Mapping[tuple[str, str], Sequence[Line]]) -> str:
    """Markdown: conditions, numbers, and the outcome of every sample of every task."""
    lines = [f"# {summary.run}", ""]
    lines += [f"- {what}: {_escaped(said)}" for what, said in conditions(summary)]
    for (split, decoding), tasks in tables.items():
        lines += ["", f"## {split}, {decoding}", "", "| | |", "|---|---|"]
        rows = numbers(summary.evaluation["metrics"][split][decoding])
        rows += classification.of_cell(summary.classification, split, decoding)
        lines += [f"| {what} | {number} |" for what, number in rows]
        for key, parts in summary.evaluation["groups"][split][decoding].items():
            lines += ["", f"| {key} | tasks | lost | resolved [95%] |", "|---|---|---|---|"]
            lines += [
                f"| {_escaped(name)} | {p['tasks']} | {p['lost']} | {percent(p['rate'])} [{interval(p['ci95'])}] |"
                for name, p in parts.items()
            ]
        lines += ["", "| task | samples (1 solved, 0 not, x lost) | |", "|---|---|---|"]
        lines += [f"| {_escaped(line.task)} | {line.samples} | {line.notes} |" for line in tasks]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Ids and paths are data: no markup of theirs."""
    return re.sub(r"([|<>\[\]`*\\])", r"\\\1", " ".join(text.split()))


# The page -------------------------------------------------------------------------------------------------------------


def page(
    folder: Path,
    summary: Summary,
    journal: Journal,
    tokenizer: Any,
    tables: Mapping[tuple[str, str], Sequence[Line]],
) -> str:
    told = summary.evaluation
    config = folder / "config.yaml"
    cells = [
        {
            "title": f"{split}, {decoding}",
            "metrics": told["metrics"][split][decoding],
            "numbers": [
                *numbers(told["metrics"][split][decoding]),
                *classification.of_cell(summary.classification, split, decoding),
            ],
            "groups": told["groups"][split][decoding],
            "tasks": tasks,
        }
        for (split, decoding), tasks in tables.items()
    ]
    return (
        environment()
        .get_template("evaluation.html.jinja")
        .render(
            s=summary,
            cells=cells,
            conditions=conditions(summary),
            transcripts=list(_transcripts(journal, tokenizer)),
            config=config.read_text() if config.exists() else "",
            style=Markup(STYLE),
        )
    )


def _transcripts(journal: Journal, tokenizer: Any) -> Iterator[Any]:
    """Episodes to read: with attempted exploits, lost, not solved, solved; some of each."""
    rows = sorted(journal.outline(PHASE), key=lambda row: row.id)
    kinds = (
        [r for r in rows if r.exploits],
        [r for r in rows if r.outcome == "lost"],
        [r for r in rows if r.outcome != "lost" and not r.solved],
        [r for r in rows if r.solved],
    )
    shown: set[str] = set()
    for kind in kinds:
        for row in [r for r in kind if r.id not in shown][: MAX_TRANSCRIPTS // len(kinds)]:
            shown.add(row.id)
            yield transcript(journal.episode(row.id, PHASE), ", ".join(cell_of(row.id)), tokenizer)
