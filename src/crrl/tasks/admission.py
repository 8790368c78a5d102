"""Admission: a task is used only if its tests fail on the buggy tree and pass on the repaired one, three times each.

`admit` asks the real judge. Generated tasks pass the same check on their cases while they are made (`make_bug`); for
the seeds in `records/` the judge's own verdicts are kept, by content, and a test re-derives a sample of them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from crrl.errors import LostError
from crrl.tasks.generated import VERSION
from crrl.tasks.task import Task

TIMES = 3
Status = Literal["admitted", "flaky", "broken", "unavailable"]


class Results(Protocol):
    """What admission reads of a judged run (`rewards.api.TestResults`)."""

    @property
    def tests(self) -> Mapping[str, str]: ...

    @property
    def applied(self) -> bool: ...

    @property
    def reason(self) -> str: ...


class Judge(Protocol):
    """Runs a task's tests on a patch, anew at each call."""

    async def run_anew(self, task: Task, patch: str) -> Results: ...


@dataclass(frozen=True)
class Admission:
    """`empty`: runs (of `TIMES`) in which the empty patch failed as it should; `fixed`: those in which the solution
    passed. `flaky`: some runs did and some did not; `broken`: none did; `unavailable`: it could not be judged."""

    id: str
    status: Status
    empty: int = 0
    fixed: int = 0
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0


async def admit(task: Task, judge: Judge) -> Admission:
    """Judge the empty patch and the solution, `TIMES` each."""
    started = time.monotonic()
    reasons: list[str] = []
    empty = fixed = 0
    if task.solution is None:
        return Admission(task.id, "unavailable", reasons=["the task has no solution to judge"])
    try:
        for _ in range(TIMES):
            why = wrong_when_buggy(task, await judge.run_anew(task, ""))
            empty += not why
            reasons += [f"buggy: {why}"] if why else []
            why = wrong_when_fixed(task, await judge.run_anew(task, task.solution))
            fixed += not why
            reasons += [f"fixed: {why}"] if why else []
    except LostError as error:
        return Admission(task.id, "unavailable", empty, fixed, [str(error)], time.monotonic() - started)
    status: Status = "admitted"
    if empty < TIMES or fixed < TIMES:
        status = "broken" if 0 in (empty, fixed) else "flaky"
    return Admission(task.id, status, empty, fixed, list(dict.fromkeys(reasons)), time.monotonic() - started)


def wrong_when_buggy(task: Task, results: Results) -> str:
    """Why the buggy tree does not behave as the task says ("" if it does). Where the bug hangs or kills the run, tests
    that it kept from running are no evidence against the task."""
    if passing := [id for id in task.test.fail_to_pass if results.tests[id] == "passed"]:
        return f"{passing[0]} passes ({len(passing)} of FAIL_TO_PASS)"
    excused = "missing" if results.reason != "complete" else ""
    if failing := [id for id in task.test.pass_to_pass if results.tests[id] not in ("passed", excused)]:
        return f"{failing[0]} is {results.tests[failing[0]]} ({len(failing)} of PASS_TO_PASS)"
    return ""


def wrong_when_fixed(task: Task, results: Results) -> str:
    """Why the solution does not repair the task ("" if it does)."""
    if not results.applied:
        return f"the solution does not apply ({results.reason})"
    everything = [*task.test.fail_to_pass, *task.test.pass_to_pass]
    if failing := [id for id in everything if results.tests[id] != "passed"]:
        return f"{failing[0]} is {results.tests[failing[0]]} ({len(failing)} tests)"
    return ""


# Records of generated tasks ------------------------------------------------------------------------------------------


def fingerprint(task: Task) -> str:
    """Of everything that decides what a judge says of it: 8 hex digits."""
    body = msgspec.json.encode([task.id, task.source, task.test, task.solution], order="sorted")
    return hashlib.blake2b(body, digest_size=4).hexdigest()


def recorded(seed: int) -> dict[str, list[str]]:
    """Split -> fingerprints of tasks 0, 1, 2... that the judge has admitted; empty for seeds without records."""
    path = _record_file(seed)
    if not path.is_file():
        return {}
    return {split: text.split() for split, text in json.loads(path.read_text())["admitted"].items()}


def record(seed: int, tasks: Iterable[Task]) -> None:
    """Keep the fingerprints of admitted tasks, given in the order of each split."""
    admitted: dict[str, list[str]] = {}
    for task in tasks:
        admitted.setdefault(task.split, []).append(fingerprint(task))
    path = _record_file(seed)
    path.parent.mkdir(exist_ok=True)
    texts = {split: " ".join(fingerprints) for split, fingerprints in admitted.items()}
    path.write_text(json.dumps({"generator": VERSION, "times": TIMES, "admitted": texts}, indent=1) + "\n")


def _record_file(seed: int) -> Path:
    return Path(str(files("crrl") / "tasks" / "records" / f"generated-seed{seed}.json"))
