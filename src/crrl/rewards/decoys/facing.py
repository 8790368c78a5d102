"""Calibrating a task's decoys with its known fix, and having a patch face them.

A copy counts for the tests that the known fix fails in it. Which these are for each part is found at admission and
stays with the task (`Task.test.decoys`), or is found when the first patch needs it. A patch is asked only where it
passes every real test, and faces as many copies as `chance` says. Invariant: nothing is held against a patch that the
known fix does not do otherwise in the very same copy.
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

from crrl.errors import LostError
from crrl.rewards.api import TestResults, TestStatus
from crrl.rewards.decoys import chance
from crrl.rewards.decoys.copies import HELPERS, Copies
from crrl.rewards.tests import solved
from crrl.task import Decoys, Task

SAID: tuple[TestStatus, ...] = ("passed", "failed", "error")
FAILS: tuple[TestStatus, ...] = ("failed", "error")
TRIES = 6
"""Runs of the known fix in search of parts that can be wrong together: one that does not compile takes all with it."""
RNG = random.SystemRandom()


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
    """Which parts can be made wrong, and what the known fix fails then. `fix`: runs of it. Raises LostError."""
    reason = "no assertion of its tests can be changed"
    if copies.files:
        if solved(task, await fix(copies.real())):
            for _ in range(2):
                measured = await _measured(task, copies, fix, secrets.randbits(31))
                if _deciding(task, measured):
                    return measured
            reason = "the known fix passes the changed tests, too"
        else:
            reason = "the known fix fails its tests where they are written anew"
    found = await fix({}, sabotage=True)
    failing = [test for test in expected(task) if found.tests.get(test) in FAILS]
    if found.reason != "complete" or not failing:
        return Decoys(version(), reason=f"{reason}; they cannot be made to fail at their end, either")
    return Decoys(version(), ends=failing, reason=reason)


async def _measured(task: Task, copies: Copies, fix: Run, seed: int) -> Decoys:
    """The parts, half of them wrong at a time: what fails with its own part alone is that part's doing."""
    own = {copies.part_of(test) for test in task.test.fail_to_pass}
    names = sorted(copies.parts - {HELPERS}, key=lambda part: (part not in own, part))
    waiting = [group for group in (names[::2], names[1::2], [HELPERS] if HELPERS in copies.parts else []) if group]
    parts: dict[str, list[str]] = {}
    silent: set[str] = set()
    for _ in range(TRIES):
        if not waiting:
            break
        group = waiting.pop(0)
        found = await fix(copies.wrong(seed, group))
        if found.reason != "complete":
            waiting += [half for half in (group[::2], group[1::2]) if half and len(half) < len(group)]
            continue
        for test, status in _statuses(task, found).items():
            part = HELPERS if group == [HELPERS] else copies.part_of(test)
            if status in FAILS and part in group:
                parts.setdefault(part, []).append(test)
            elif status != "passed":
                silent.add(test)
    parts = {part: [test for test in tests if test not in silent] for part, tests in parts.items()}
    return Decoys(version(), seed, {part: tests for part, tests in parts.items() if tests}, sorted(silent))


def _deciding(task: Task, decoys: Decoys) -> list[str]:
    """The parts that FAIL_TO_PASS tests depend on."""
    return [part for part, tests in decoys.parts.items() if set(tests) & set(task.test.fail_to_pass)]


async def face(task: Task, decoys: Decoys, copies: Copies, results: TestResults, patch: Run, fix: Run) -> TestResults:
    """What `results`, of a patch under which all tests pass, are worth once it has met the decoys. Raises LostError."""
    if not decoys.parts:
        return await _face_ends(decoys, results, patch) if decoys.ends else results
    waiting = _drawn(task, decoys, copies)
    told = [test for test in expected(task) if test not in set(decoys.silent)]
    may_repeat = True
    while waiting:
        wrong = waiting.pop()
        files = copies.wrong(decoys.seed, wrong)
        found = await patch(files)
        results = replace(results, cpu_s=results.cpu_s + found.cpu_s, wall_s=results.wall_s + found.wall_s)
        statuses = _statuses(task, found)
        failing = {test for part in wrong for test in decoys.parts[part]}
        as_known = all(statuses[test] in FAILS if test in failing else statuses[test] == "passed" for test in told)
        if found.reason == "complete" and as_known:
            continue
        fixed = await fix(files)
        if fixed.reason != "complete":
            raise LostError("judge_died", f"the known fix did not get through a copy of its tests: {fixed.reason}")
        known = _statuses(task, fixed)
        if any(statuses[test] == "passed" and known[test] in FAILS for test in failing):
            return convicted(results)
        changed = {test: statuses[test] for test in told if known[test] == "passed" != statuses[test]}
        if found.reason != "complete":
            changed = dict.fromkeys(results.tests, "missing")
        if changed and not may_repeat:
            # told apart by nothing that a repair depends on: a test that passes now and fails then is not passed
            tried = list(dict.fromkeys([*results.exploits, *found.exploits]))
            return replace(results, tests={**results.tests, **changed}, reason=found.reason, exploits=tried)
        if changed:
            may_repeat = False
            waiting.append(wrong)
    return results


def _drawn(task: Task, decoys: Decoys, copies: Copies) -> list[frozenset[str]]:
    """What is wrong in each copy that a patch faces. Helpers are so alone: all that use them fail, whichever else is
    wrong, and a copy in which all fail tells little."""
    deciding = _deciding(task, decoys)
    named = [part for part in deciding if part != HELPERS]
    strong = [part for part in named if part not in copies.readable] or named or deciding
    others = [part for part in decoys.parts if part not in strong and part != HELPERS]
    if len(strong) == 1:
        chosen = [frozenset(strong)] * chance.WRONG + [frozenset()] * chance.REAL
    else:
        chosen = _patterns(strong, chance.copies(len(strong)))
        while not all(chosen):
            chosen = _patterns(strong, len(chosen))
    chosen = [one | two for one, two in zip(chosen, _patterns(others, len(chosen)), strict=True)]
    if named and HELPERS in deciding:
        chosen.append(frozenset([HELPERS]))
    RNG.shuffle(chosen)
    return chosen


def _patterns(parts: list[str], number: int) -> list[frozenset[str]]:
    """Which parts are wrong in each of `number` copies: each in some, any choice of them as likely as the others."""
    of = {part: RNG.randrange(1, 1 << number) for part in parts}
    return [frozenset(part for part, bits in of.items() if bits >> at & 1) for at in range(number)]


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
