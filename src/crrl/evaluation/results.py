"""Reads results to compare, from wherever they were made: runs and evaluations of ours, reports of SWE-bench's harness,
logs of Inspect, jobs of Harbor.

A reader is one function, and one line in `READERS`. Invariant 2 holds for others' results, too: what the infrastructure
lost is no failure, and is told apart from what was judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from crrl.errors import CrrlError, UsageError
from crrl.evaluation import harbor, inspect_logs
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.sets import TASK_SETS
from crrl.rollout.journal import FILE, Journal

PHASES = ("after", "eval", "before")  # of a run, the first that it has
# Settings under which two runs measure the same thing; others do not change what is measured.
MEASURES = (
    "agent",
    "renderer",
    "corpus",
    "sandbox.name",
    "sandbox.memory_mb",
    "sandbox.processes",
    "sandbox.disk_mb",
    "engine.context",
    "engine.dtype",
    "evaluation.temperature",
)
HOW_FAST = ("agent.install", "corpus.rl_share")  # below one of these, but nothing that is measured depends on it


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
    harness: set[str] = set()
    with Journal.open(folder, read_only=True) as journal:
        meta = journal.meta
        known = journal.phases()
        chosen = phase or next((p for p in PHASES if known.get(p)), "")
        if not known.get(chosen):
            raise CrrlError(f"Run {folder} has no evaluation{f' {phase}' if phase else ''}.", "Finish it first.")
        for episode in journal.episodes(chosen):
            _, _, split, decoding, _ = episode.id.split("/", 4)
            judged = episode.verdict if episode.outcome != "lost" else None
            cells.setdefault(f"{split}, {decoding}", Cell()).add(
                episode.task, float(judged.solved) if judged is not None else None
            )
            if judged is not None:
                harness.add(judged.harness_version)
    settings = _flat(yaml.safe_load((folder / "config.yaml").read_text()) or {})
    tasks = {task: digest for of in meta.get(TASK_SETS, {}).values() for task, digest in of.items()}
    measured = {
        key: value
        for key, value in settings.items()
        if any(key == m or key.startswith(f"{m}.") for m in MEASURES)
        and key not in HOW_FAST
        and not (tasks and key.startswith("corpus."))  # what is asked says more than where it was read
        and not (key == "evaluation.temperature" and all(cell.endswith(", greedy") for cell in cells))
    }
    told = meta.get("evaluation", {})
    policy = {key: told[key] for key in ("policy", "checkpoint", "rule", "weights", "benchmark") if key in told}
    policy |= {"seed": settings.get("seed"), "phase": chosen, "folder": str(folder)}
    if "checkpoint_rule" in meta:
        policy["checkpoint_rule"] = meta["checkpoint_rule"]
    return Results("", cells, {"judge's version": ", ".join(sorted(harness))}, measured, tasks, policy)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _of_report(file: Path, phase: str) -> Results:
    """An instance that the harness could not run (`infra_failure_ids`, since SWE-bench 5) is lost; a patch that was
    empty, did not apply or broke the run is not resolved, as on the leaderboard."""
    report = _json(file)
    cell = Cell(lost=dict.fromkeys(report.get("infra_failure_ids", []), 1))
    resolved = set(report["resolved_ids"])
    judged = ("resolved_ids", "unresolved_ids", "empty_patch_ids", "error_ids")
    for task in sorted({task for key in judged for task in report.get(key, [])} - set(cell.lost)):
        cell.add(task, float(task in resolved))
    return Results("", {"": cell}, {"schema of SWE-bench's report": report.get("schema_version", "")})


def _is_report(path: Path) -> bool:
    return path.is_file() and path.suffix == ".json" and "resolved_ids" in _json(path)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CrrlError(f"{file} cannot be read: {error}", "Write the path of a JSON report.") from error
    return found if isinstance(found, dict) else {}


Reader = Callable[[Path, str], Results]
READERS: tuple[tuple[Callable[[Path], bool], Reader], ...] = (
    (lambda path: (path / FILE).is_file() and (path / "config.yaml").is_file(), _of_run),
    (_is_report, _of_report),
    (inspect_logs.is_log, lambda path, phase: inspect_logs.read(path)),
    (harbor.is_job, lambda path, phase: harbor.read(path)),
)
