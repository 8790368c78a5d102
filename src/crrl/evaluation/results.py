"""Reads results to compare, from wherever they were made: runs and evaluations of ours, reports of SWE-bench's harness,
logs of Inspect, jobs of Harbor.

A reader is one function, and one line in `READERS`. Invariant 2 holds for others' results, too: what the infrastructure
lost is no failure, and is told apart from what was judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from crrl.conf.schema import Config
from crrl.errors import CrrlError, UsageError
from crrl.evaluation import harbor, inspect_logs, swebench_reports
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.sets import PAIRS, PROMPTS, TASK_SETS
from crrl.rollout.journal import FILE, Journal

PHASES = ("after", "eval", "before")  # of a run, the first that it has
SAMPLING = ("evaluation.temperature", "evaluation.top_p", "evaluation.top_k")
# Settings under which two runs measure the same thing; others do not change what is measured.
MEASURES = (
    "agent",
    "renderer",
    "corpus",
    "sandbox.name",
    "sandbox.memory_mb",
    "sandbox.processes",
    "sandbox.disk_mb",
    "sandbox.cpus",
    "engine.name",
    "engine.context",
    "engine.dtype",
    *SAMPLING,
)
POLICY = ("policy", "checkpoint", "rule", "weights", "benchmark", "fingerprint", "first")
OF_TRAINING = ("rl_share", "shuffle_labels", "curriculum", "pass_rate_low", "pass_rate_high")
"""Settings of `corpus` on which nothing that is measured depends."""


def read(word: str) -> Results:
    """A run's or an evaluation's name or folder (of a run its last evaluation; `RUN:before` for another), a report of
    SWE-bench, a log of Inspect, a job of Harbor.

    Raises:
        UsageError: there is no such thing.
        CrrlError: it is damaged, or holds no results.
    """
    where, _, phase = word.rpartition(":") if word.rpartition(":")[2] in PHASES else (word, "", "")
    for path in (Path(where), Path("runs") / where):
        for fits, reader in READERS:
            if fits(path):
                found = reader(path, phase)
                if not any(cell.scores for cell in found.cells.values()):
                    raise CrrlError(f"{word} has no judged results.", "Finish its evaluation first.")
                return replace(found, name=word)
    if Path(where).suffix == ".jsonl" and Path(where).is_file():
        raise UsageError(
            f"{where} holds predictions, which nobody has graded.",
            f"Grade them: crrl eval BENCHMARK {where} path=TASKS.jsonl, or with swebench's own harness.",
        )
    raise UsageError(
        f"{where} holds no results: it is neither a run or evaluation (a folder with {FILE}), nor a report of "
        "SWE-bench's harness (JSON, resolved_ids), a log of Inspect (.eval or JSON) or a job of Harbor.",
        "See: crrl compare --help",
    )


def _of_run(folder: Path, phase: str) -> Results:
    cells: dict[str, Cell] = {}
    judges: dict[str, set[str]] = {}
    with Journal.open(folder, read_only=True) as journal:
        meta = journal.meta
        known = journal.phases()
        chosen = phase or next((p for p in PHASES if known.get(p)), "")
        if not known.get(chosen):
            raise CrrlError(f"Run {folder} has no evaluation{f' {phase}' if phase else ''}.", "Finish it first.")
        for episode in journal.episodes(chosen):
            _, _, split, decoding, _ = episode.id.split("/", 4)
            judged = episode.verdict if episode.outcome != "lost" else None
            cells.setdefault(f"{split}, {decoding}", Cell(pairs=meta.get(PAIRS, {}))).add(
                episode.task, float(judged.solved) if judged is not None else None
            )
            if judged is not None:
                judges.setdefault(episode.task, set()).add(judged.harness_version)
    # A key that a run is older than has its default: what the run did without it.
    settings = _flat(asdict(Config())) | _flat(yaml.safe_load((folder / "config.yaml").read_text()) or {})
    tasks = {task: digest for of in meta.get(TASK_SETS, {}).values() for task, digest in of.items()}
    measured = {
        key: value
        for key, value in settings.items()
        if any(key == m or key.startswith(f"{m}.") for m in MEASURES)
        and key not in {f"corpus.{word}" for word in OF_TRAINING}
        and not (tasks and key.startswith("corpus."))  # what is asked says more than where it was read
        and not (key in SAMPLING and all(cell.endswith(", greedy") for cell in cells))
    }
    if chosen in meta.get(PROMPTS, {}):
        measured["text of agent.prompts"] = meta[PROMPTS][chosen]
    told = meta.get("evaluation", {})
    policy = {key: told[key] for key in POLICY if key in told}
    if "policy" in meta:  # a training run: the fingerprint of its first policy
        policy["fingerprint" if chosen == "before" else "first"] = meta["policy"]
    policy |= {"seed": settings.get("seed"), "phase": chosen, "folder": str(folder)}
    if "checkpoint_rule" in meta:
        policy["checkpoint_rule"] = meta["checkpoint_rule"]
    versions = {task: ", ".join(sorted(those)) for task, those in judges.items()}
    return Results("", cells, judges=versions, measured=measured, tasks=tasks, policy=policy)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _of_report(file: Path, phase: str) -> Results:
    found = swebench_reports.read(file)
    cell = Cell({id: [float(resolved)] for id, resolved in found.resolved.items()}, dict.fromkeys(found.lost, 1))
    return Results("", {"": cell}, {"schema of SWE-bench's report": found.version})


Reader = Callable[[Path, str], Results]
READERS: tuple[tuple[Callable[[Path], bool], Reader], ...] = (
    (lambda path: (path / FILE).is_file() and (path / "config.yaml").is_file(), _of_run),
    (swebench_reports.is_report, _of_report),
    (inspect_logs.is_log, lambda path, phase: inspect_logs.read(path)),
    (harbor.is_job, lambda path, phase: harbor.read(path)),
)
