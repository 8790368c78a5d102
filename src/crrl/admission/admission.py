"""Admission: crrl uses a task only if its tests fail on the buggy tree and pass on the repaired one, three times each.

`admit` asks the real judge, and starts the box that an agent would work in. If a corpus does not list all tests, it
measures the lists: the tests that pass with the known fix are the baseline. Out of the verdict, by name, are tests
that fail even with the fix, and doctests, which stand in the code that is repaired. What is admitted gets its decoys:
the copies of its tests that the known fix fails (`rewards/decoys/`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

from crrl.admission.absent import absent, absent_in
from crrl.errors import CrrlError, LostError
from crrl.label import Label, right
from crrl.rewards import label_judge, likeness_judge, parsers
from crrl.rewards.api import TestResults
from crrl.rewards.exploits import is_doctest
from crrl.task import Decoys, Task
from crrl.tasks.diffs import touched
from crrl.tasks.files import LIKENESS

TIMES = 3
Status = Literal["admitted", "flaky", "broken", "unavailable"]


class Judge(Protocol):
    """Runs a task's tests on a patch, anew at each call; says which tests there are."""

    async def run_anew(self, task: Task, patch: str) -> TestResults: ...

    async def try_box(self, task: Task) -> None:
        """Raises CrrlError, LostError: no agent could work on it here."""
        ...

    async def test_ids(self, task: Task) -> list[str]:
        """Raises ValueError where none reports even with the known fix, CrrlError where they cannot be run here."""
        ...

    async def decoys(self, task: Task) -> Decoys:
        """Raises as `run_anew` does."""
        ...


@dataclass(frozen=True)
class Admission:
    """The outcome for one task.

    Args:
        status: `flaky`: some runs gave the right result and some did not; `broken`: none did; `unavailable`: this
            machine could not judge it.
        empty, fixed: number of runs in which the empty patch failed, and in which the solution passed, as they should.
        excluded: tests outside the verdict, because they fail even with the known fix, or their result varies.
        decoys: the share of its tests that have decoys; None unless admitted.
        no_decoys: why they have none ("" where they have).
        no_marker: why the end of their report cannot be told from a made-up one, but by decoys ("" where it can).
        task: the task with the lists and the decoys it is judged by; None unless admitted.
    """

    id: str
    status: Status
    empty: int = 0
    fixed: int = 0
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0
    excluded: list[str] = field(default_factory=list)
    decoys: float | None = None
    no_decoys: str = ""
    no_marker: str = ""
    task: Task | None = None

    def shown(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "task"}


async def admit(task: Task, judge: Judge, times: int = TIMES) -> Admission:
    """Judge the empty patch and the solution, `times` each."""
    started = time.monotonic()
    if task.test.label is not None:
        return await _admit_label(task, task.test.label, judge)
    if task.solution is None:
        return Admission(task.id, "unavailable", reasons=["the task has no solution to judge"])
    if task.test.parser == LIKENESS:
        return await _admit_likeness(task, judge, started)
    buggy: list[TestResults] = []
    fixed: list[TestResults] = []
    try:
        await judge.try_box(task)
        everything, doctests = _without_doctests(await _with_all_tests(task, judge) if task.test.baseline else task)
        for _ in range(times):
            buggy.append(await judge.run_anew(everything, ""))
            fixed.append(await judge.run_anew(everything, task.solution))
    except (CrrlError, LostError, ValueError) as error:
        status: Status = "broken" if isinstance(error, ValueError) else "unavailable"
        reason = " ".join(str(error).split())
        if status == "broken" and (lacking := absent_in(str(error), _own(task))):
            status, reason = "unavailable", f"needs {lacking}: {reason}"
        return Admission(task.id, status, reasons=[reason], seconds=time.monotonic() - started)
    judged, excluded = _lists(everything, buggy, fixed)
    wrong_buggy = [wrong_when_buggy(judged, results) for results in buggy]
    wrong_fixed = [wrong_when_fixed(judged, results) for results in fixed]
    empty, repaired = wrong_buggy.count(""), wrong_fixed.count("")
    reasons = [f"buggy: {why}" for why in wrong_buggy if why] + [f"fixed: {why}" for why in wrong_fixed if why]
    done = Admission(task.id, "admitted", empty, repaired, list(dict.fromkeys(reasons)), excluded=doctests + excluded)
    if empty < times or repaired < times:
        done = replace(done, status="broken" if 0 in (empty, repaired) else "flaky")
        if repaired == 0 and (lacking := absent(fixed, _own(task))):
            done = replace(done, status="unavailable", reasons=[f"needs {lacking}", *done.reasons])
    else:
        try:
            decoys = await judge.decoys(judged)
        except (CrrlError, LostError) as error:
            done = replace(done, status="unavailable", reasons=[f"decoys: {' '.join(str(error).split())}"])
        else:
            judged = replace(judged, test=replace(judged.test, decoys=decoys))
            done = replace(done, decoys=share(judged), no_decoys=decoys.reason, task=judged)
            done = replace(done, no_marker=parsers.unmarked(judged.test))
    return replace(done, seconds=time.monotonic() - started)


async def _admit_label(task: Task, truth: Label, judge: Judge) -> Admission:
    """A function to classify: the right answer passes, its opposite and none do not. Reading an answer is no matter of
    chance: once is enough."""
    answer, opposite = right(truth), right(replace(truth, vulnerable=not truth.vulnerable))
    patches = ("", label_judge.patch_of(opposite), label_judge.patch_of(answer))
    said = [(await judge.run_anew(task, patch)).tests[label_judge.TEST] for patch in patches]
    if said != ["missing", "failed", "passed"]:
        return Admission(task.id, "broken", reasons=[f"no answer, the wrong one and the right one are {said}"])
    return Admission(task.id, "admitted", 1, 1, no_decoys="an answer is compared, and no code runs", task=task)


async def _admit_likeness(task: Task, judge: Judge, started: float) -> Admission:
    """Code that is compared with the original: the original is like itself, and nothing is not."""
    try:
        await judge.try_box(task)
    except (CrrlError, LostError) as error:
        reason = " ".join(str(error).split())
        return Admission(task.id, "unavailable", reasons=[reason], seconds=time.monotonic() - started)
    said = [(await judge.run_anew(task, patch)).tests[likeness_judge.TEST] for patch in ("", task.solution or "")]
    if said != ["failed", "passed"]:
        reason = f"no patch and the original are {said}"
        return Admission(task.id, "broken", reasons=[reason], seconds=time.monotonic() - started)
    none = "code is compared, and none runs"
    return Admission(task.id, "admitted", 1, 1, no_decoys=none, task=task, seconds=time.monotonic() - started)


def _own(task: Task) -> list[str]:
    """Paths that belong to the repository: the repair's and the tests'."""
    return [*touched(task.solution or ""), *task.test.restore, *task.test.restore_from, *touched(task.test.test_patch)]


def share(task: Task) -> float:
    """The share of the task's tests that have decoys."""
    decoys, expected = task.test.decoys, {*task.test.fail_to_pass, *task.test.pass_to_pass}
    if decoys is None or decoys.beside:
        return float(decoys is not None)
    return len({test for tests in decoys.parts.values() for test in tests} & expected) / max(1, len(expected))


async def _with_all_tests(task: Task, judge: Judge) -> Task:
    """With PASS_TO_PASS all that report. A test that is named without its parameters stands for what flips of it."""
    ids = await judge.test_ids(task)
    whole = {id.partition("[")[0] for id in ids} - set(ids)
    named = [test for test in task.test.fail_to_pass if test not in whole]
    others = [id for id in ids if id not in named]
    return replace(task, test=replace(task.test, fail_to_pass=named, pass_to_pass=others))


def _without_doctests(task: Task) -> tuple[Task, list[str]]:
    """And their ids. Raises ValueError: nothing else has to flip."""
    plan = task.test
    flip, stay = ([id for id in ids if not is_doctest(id)] for ids in (plan.fail_to_pass, plan.pass_to_pass))
    if plan.fail_to_pass and not flip:
        raise ValueError(f"only doctests have to flip, and they stand in the code to repair: {plan.fail_to_pass[0]}")
    found = [id for id in (*plan.fail_to_pass, *plan.pass_to_pass) if is_doctest(id)]
    return replace(task, test=replace(plan, fail_to_pass=flip, pass_to_pass=stay)), found


def _lists(task: Task, buggy: list[TestResults], fixed: list[TestResults]) -> tuple[Task, list[str]]:
    """The task with the lists it can be judged by, and the tests left out. FAIL_TO_PASS tests that a corpus names stay:
    a task whose own do not flip is not admitted. Those of PASS_TO_PASS that flip must flip (an id that is
    cut short stands for several)."""
    complete = all(results.reason == "complete" for results in buggy)
    flip, stay, excluded = list(task.test.fail_to_pass), [], []
    for test in task.test.pass_to_pass:
        before = {results.tests[test] == "passed" for results in buggy}
        after = {results.tests[test] == "passed" for results in fixed}
        if after != {True}:
            excluded.append(test)
        elif before == {False} and (task.test.baseline or complete):
            flip.append(test)
        elif not task.test.baseline or before == {True}:
            stay.append(test)
        else:
            excluded.append(test)
    if not task.test.baseline and len(excluded) == len(task.test.pass_to_pass):
        return task, []  # nothing passes with the fix: blame the task, not its tests
    plan = replace(task.test, fail_to_pass=flip, pass_to_pass=stay, baseline=False)
    return replace(task, test=plan), excluded


def wrong_when_buggy(task: Task, results: TestResults) -> str:
    """Why the buggy tree does not behave as the task says ("" if it does). Where the bug hangs or kills the run, tests
    that it kept from running are no evidence against the task."""
    if not task.test.fail_to_pass:
        return "no test fails that passes with the fix"
    if passing := [id for id in task.test.fail_to_pass if results.tests[id] == "passed"]:
        return f"{passing[0]} passes ({len(passing)} of FAIL_TO_PASS)"
    excused = "missing" if results.reason != "complete" else ""
    if failing := [id for id in task.test.pass_to_pass if results.tests[id] not in ("passed", excused)]:
        return f"{failing[0]} is {results.tests[failing[0]]} ({len(failing)} of PASS_TO_PASS)"
    return ""


def wrong_when_fixed(task: Task, results: TestResults) -> str:
    """Why the solution does not repair the task ("" if it does)."""
    if not results.applied:
        return f"the solution does not apply ({results.reason})"
    everything = [*task.test.fail_to_pass, *task.test.pass_to_pass]
    if failing := [id for id in everything if results.tests[id] != "passed"]:
        return f"{failing[0]} is {results.tests[failing[0]]} ({len(failing)} tests)"
    return ""
