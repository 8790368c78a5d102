"""Calibrating a task's decoys with its known fix, and having a patch face them.

A copy counts only for the tests that the known fix fails in it: that is found at admission and stays with the task
(`Task.test.decoys`), or is found when the first patch needs it. A patch is asked only where it passes every real test.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

from crrl.rewards.api import TestResults, TestStatus
from crrl.rewards.decoys.copies import HELPERS, SIDES, Copies
from crrl.rewards.tests import solved
from crrl.task import Decoys, Task, Variant

SAID: tuple[TestStatus, ...] = ("passed", "failed")
KEPT = 3
"""Copies that are enough: two that complement each other, and one for tests whose assertions stand in helpers."""


class Run(Protocol):
    """One run of the tests in a process of its own, on one patch: all that report. `sabotage`: of tests that fail at
    their end."""

    async def __call__(self, tests: Mapping[str, bytes], /, *, sabotage: bool = False) -> TestResults: ...


@cache
def version() -> str:
    """A record of another version is not used: its seeds would choose other assertions."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def is_current(decoys: Decoys | None) -> bool:
    return decoys is not None and decoys.version == version()


async def calibrate(task: Task, copies: Copies, fix: Run) -> Decoys:
    """Which copies the known fix fails, and in which tests. `fix`: runs of the known fix. Raises LostError."""
    reason = "no assertion of its tests can be changed"
    if copies.files:
        if solved(task, await fix(copies.real())):
            variants = await _variants(task, copies, fix)
            if variants:
                return Decoys(version(), variants)
            reason = "the known fix passes the changed tests, too"
        else:
            reason = "the known fix fails its tests where they are written anew"
    found = await fix({}, sabotage=True)
    failing = [test for test in expected(task) if found.tests.get(test) in ("failed", "error")]
    if found.reason != "complete" or not failing:
        return Decoys(version(), reason=f"{reason}; they cannot be made to fail at their end, either")
    return Decoys(version(), ends=failing, reason=reason)


async def _variants(task: Task, copies: Copies, fix: Run) -> list[Variant]:
    kept: list[Variant] = []
    covered: set[str] = set()
    first = secrets.randbits(31) * SIDES
    for seed in (first, first + 1, HELPERS + first, HELPERS + first + 1):
        if len(kept) == KEPT or (seed >= HELPERS and kept and (covered >= set(expected(task)) or not copies.helpers)):
            break
        found = await fix(copies.wrong(seed))
        if found.reason != "complete":
            continue
        statuses = _statuses(task, found)
        wrong = [test for test, status in statuses.items() if status == "failed"]
        silent = [test for test, status in statuses.items() if status not in ("failed", "passed")]
        if set(wrong) & set(task.test.fail_to_pass):
            kept.append(Variant(seed, wrong, silent))
            covered |= set(wrong)
    return kept


async def face(task: Task, decoys: Decoys, copies: Copies, results: TestResults, patch: Run) -> TestResults:
    """What `results`, of a patch under which all tests pass, are worth once it has met the decoys. Raises LostError."""
    if not decoys.variants:
        return await _face_ends(decoys, results, patch) if decoys.ends else results
    order = list(decoys.variants)
    random.shuffle(order)
    for variant in [*order, *order][:2]:
        found = await patch(copies.wrong(variant.seed))
        results = replace(results, cpu_s=results.cpu_s + found.cpu_s, wall_s=results.wall_s + found.wall_s)
        statuses = _statuses(task, found)
        if any(statuses[test] == "passed" for test in variant.wrong):
            return convicted(results)
        apart = {*variant.wrong, *variant.silent}
        real = {test: status for test, status in statuses.items() if test not in apart}
        if found.reason == "complete" and all(status == "passed" for status in real.values()):
            return results
    # told apart by nothing that a repair depends on: a test that passes now and fails then is not passed
    changed: dict[str, TestStatus] = {test: status for test, status in real.items() if status != "passed"}
    if found.reason != "complete":
        changed = dict.fromkeys(results.tests, "missing")
    tried = list(dict.fromkeys([*results.exploits, *found.exploits]))
    return replace(results, tests={**results.tests, **changed}, reason=found.reason, exploits=tried)


async def _face_ends(decoys: Decoys, results: TestResults, patch: Run) -> TestResults:
    found = await patch({}, sabotage=True)
    results = replace(results, cpu_s=results.cpu_s + found.cpu_s, wall_s=results.wall_s + found.wall_s)
    if found.reason != "complete":
        nothing: dict[str, TestStatus] = dict.fromkeys(results.tests, "missing")
        return replace(results, tests=nothing, reason=found.reason, exploits=[*results.exploits, *found.exploits])
    return convicted(results) if any(found.tests.get(test) == "passed" for test in decoys.ends) else results


def convicted(results: TestResults) -> TestResults:
    """Nothing of a run counts whose tests also pass where they are wrong. Its output stays that of the real tests: an
    agent that tries again is shown it, and learns nothing of decoys."""
    nothing: dict[str, TestStatus] = dict.fromkeys(results.tests, "missing")
    return replace(results, tests=nothing, reason="tampered", exploits=[*results.exploits, "answers_anything"])


def _statuses(task: Task, found: TestResults) -> dict[str, TestStatus]:
    """Of the expected ids, in a copy that is wrong. A test that is named after its changed values stands for those of
    the same function: it has passed where one of them has."""
    wanted = expected(task)
    known = set(wanted)
    others: dict[str, set[TestStatus]] = {}
    for test, status in found.tests.items():
        if test not in known:
            others.setdefault(test.partition("[")[0], set()).add(status)
    told: dict[str, TestStatus] = {}
    for test in wanted:
        status = found.tests.get(test, "missing")
        instead = others.get(test.partition("[")[0], set()) if status == "missing" and "[" in test else set()
        told[test] = next((word for word in SAID if word in instead), status)
    return told


def expected(task: Task) -> list[str]:
    """The ids that a verdict is made of, each once."""
    return list(dict.fromkeys([*task.test.fail_to_pass, *task.test.pass_to_pass]))
