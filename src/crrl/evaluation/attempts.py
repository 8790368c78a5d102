"""Judged attempts with their rewards, to calibrate: of runs and evaluations of ours, and of published predictions with
their published verdicts.

Invariant 2: what was lost is counted and enters nothing; what was truncated was judged on what it left, and is counted,
too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crrl.errors import CrrlError
from crrl.evaluation import swebench_reports
from crrl.rewards.file_match import FileMatch
from crrl.rewards.similarity import DEFINITIONS
from crrl.rollout.journal import Journal
from crrl.task import Task

LABEL = "tests"  # what rewards are held against, and no reward of the table
KEYS = ("language", "repository", "corpus", "source", "phase", "patch")
GENERATED = re.compile(r"generated-\w+-\d+-\d+")


@dataclass(frozen=True)
class Attempt:
    """`group`: those at one task that compete with each other. `scores`: reward -> value, of those that apply.
    `about`: of `KEYS`, what is known."""

    group: str
    task: str
    solved: bool
    scores: Mapping[str, float]
    about: Mapping[str, str]
    truncated: bool = False


@dataclass
class Attempts:
    judged: list[Attempt] = field(default_factory=list)
    lost: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Attempts) -> None:
        self.judged += other.judged
        self.lost += other.lost
        self.notes += other.notes


def of_run(folder: Path, phase: str, tasks: Mapping[str, Task]) -> Attempts:
    """All phases of a run or evaluation ("" for `phase`), or one. `tasks`: those of its tasks that are known: other
    definitions of similarity are computed for them.

    Raises:
        CrrlError: there is no journal, it is damaged, or has no episode of that phase.
    """
    found = Attempts()
    with Journal.open(folder, read_only=True) as journal:
        known = journal.phases()
        phases = [phase] if phase else sorted(known)
        if not any(known.get(name) for name in phases):
            has = f"It has: {', '.join(sorted(known))}." if known else "Start it first."
            raise CrrlError(f"{folder} has no episodes{f' of phase {phase}' if phase else ''}.", has)
        for name in phases:
            for episode in journal.episodes(name):
                verdict = episode.verdict
                if episode.outcome == "lost" or verdict is None:
                    found.lost += 1
                    continue
                task = tasks.get(episode.task)
                scores = {k: v for k, v in verdict.components.items() if k != LABEL}
                scores |= {k: v for k, v in of_patch(task, episode.patch).items() if k not in scores}
                told = {"source": folder.name, "phase": name, "patch": _emptiness(episode.patch)}
                told |= about(episode.task, task)
                group = f"{folder}/{name}/{episode.group}"
                truncated = episode.outcome == "truncated"
                found.judged.append(Attempt(group, episode.task, verdict.solved, scores, told, truncated))
    return found


def of_patch(task: Task | None, patch: str) -> dict[str, float]:
    """Rewards that need no run: each definition of similarity, and `file_match`."""
    if task is None or task.solution is None:
        return {}
    scores = {f"similarity:{name}": similar(patch, task.solution) for name, similar in DEFINITIONS.items()}
    match = FileMatch()(task, patch, None, [])
    return scores if match is None else {**scores, "file_match": match}


def of_predictions(name: str, patches: Mapping[str, str], report: Path, tasks: Mapping[str, Task]) -> Attempts:
    """Predictions, with the verdicts of SWE-bench's harness: its report (`resolved_ids`), or `results.json` of a
    submission and reports before version 2 (`resolved`, `generated`). A prediction that the report does not know was
    not judged.

    Raises:
        CrrlError: the report cannot be read, or none of the predictions is both judged and of a known task.
    """
    verdicts = read_report(report)
    found, unknown = Attempts(), 0
    for id, patch in patches.items():
        task, solved = tasks.get(id), verdicts.get(id)
        if task is None:
            unknown += 1
        elif solved is None:
            found.lost += 1
        else:
            told = {"source": name, "patch": _emptiness(patch), **about(id, task)}
            found.judged.append(Attempt(id, id, solved, of_patch(task, patch), told))
    if unknown:
        found.notes.append(f"{name}: {unknown} predictions are of tasks that are not at hand, and are left out")
    if not found.judged:
        raise CrrlError(
            f"None of the {len(patches)} predictions of {name} has a verdict in {report} and a task.",
            "The ids of predictions, report and tasks= must be the same.",
        )
    return found


def read_report(file: Path) -> dict[str, bool]:
    """Task -> resolved, for those that were judged. Raises CrrlError."""
    if file.is_file() and not swebench_reports.is_report(file):
        raise CrrlError(
            f"{file} is no report of SWE-bench's harness: it lists neither resolved_ids nor resolved.",
            "Write the report's file behind the predictions: PREDICTIONS:REPORT.",
        )
    return swebench_reports.read(file).resolved


def repository(task: Task) -> str:
    """owner/name, where it is known."""
    return re.sub(r"^.*[:/]([^/:]+/[^/]+?)(\.git)?/*$", r"\1", task.source.repo or "")


def about(id: str, task: Task | None) -> dict[str, str]:
    """Language, corpus and repository of a task, where they are known."""
    if task is None:
        return {"language": "python", "corpus": "generated"} if GENERATED.fullmatch(id) else {}
    told = {"language": task.language, "corpus": task.corpus, "repository": repository(task)}
    return {key: text for key, text in told.items() if text}


def _emptiness(patch: str) -> str:
    return "not empty" if patch.strip() else "empty"
