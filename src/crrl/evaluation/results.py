"""Results to compare, from wherever they were made: a run of ours, or the report of SWE-bench's harness.

A reader is one function here, and one line in `READERS`. Invariant 2 holds for others' results, too: what the
infrastructure lost is no failure, and is told apart from what was judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from crrl.errors import CrrlError, UsageError
from crrl.rollout.journal import FILE, Journal

PHASES = ("after", "eval", "before")  # of a run, the first that it has
# Settings under which two runs measure the same thing; others do not change what is measured.
MEASURES = (
    "agent",
    "renderer",
    "corpus",
    "sandbox.memory_mb",
    "sandbox.processes",
    "sandbox.disk_mb",
    "engine.context",
)


@dataclass
class Cell:
    """One benchmark under one decoding. `scores`: task -> 1.0 or 0.0 for each judged sample; `lost`: task -> samples
    that were not judged."""

    scores: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """`cells`: by name ("" where there is one). `measured`: what must agree for a comparison to mean something."""

    name: str
    cells: dict[str, Cell]
    measured: Mapping[str, Any] = field(default_factory=dict)


def read(word: str) -> Results:
    """A run's name or folder (its last evaluation; `RUN:before` for another), or a SWE-bench report.

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
                return Results(word, found.cells, found.measured)
    raise UsageError(
        f"{where} is neither a run (a folder with {FILE}) nor a report of SWE-bench's harness (JSON, resolved_ids).",
        "Predictions must be graded first: swebench's own harness writes the report.",
    )


def _of_run(folder: Path, phase: str) -> Results:
    cells: dict[str, Cell] = {}
    harness: set[str] = set()
    with Journal.open(folder, read_only=True) as journal:
        known = journal.phases()
        chosen = phase or next((p for p in PHASES if known.get(p)), "")
        if not known.get(chosen):
            raise CrrlError(f"Run {folder} has no evaluation{f' {phase}' if phase else ''}.", "Finish it first.")
        for episode in journal.episodes(chosen):
            _, _, split, decoding, _ = episode.id.split("/", 4)
            cell = cells.setdefault(f"{split}, {decoding}", Cell())
            if episode.outcome == "lost" or episode.verdict is None:
                cell.lost[episode.task] = cell.lost.get(episode.task, 0) + 1
            else:
                cell.scores.setdefault(episode.task, []).append(float(episode.verdict.solved))
                harness.add(episode.verdict.harness_version)
    settings = _flat(yaml.safe_load((folder / "config.yaml").read_text()) or {})
    measured = {k: v for k, v in settings.items() if any(k == m or k.startswith(f"{m}.") for m in MEASURES)}
    return Results("", cells, {**measured, "judge's version": ", ".join(sorted(harness))})


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
        cell.scores[task] = [float(task in resolved)]
    return Results("", {"": cell}, {"schema": report.get("schema_version", "")})


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
)
