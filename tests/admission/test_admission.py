"""Admission by the real judge: what it admits, what it finds flaky or broken, and the records that are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crrl.admission.admission import admit
from crrl.rewards.api import TestResults
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Command, Decoys, Source, Task, TestPlan
from crrl.tasks.generator.generate import SPLITS, generate
from crrl.tasks.generator.records import fingerprint, recorded

RECORDED_SEEDS = (0,)


async def test_generated_tasks_are_admitted(task_judge: TaskJudge) -> None:
    for split in SPLITS:
        admission = await admit(generate(split, 9, 1), task_judge)
        assert (admission.status, admission.empty, admission.fixed) == ("admitted", 3, 3), admission.reasons


async def test_a_task_that_is_not_broken_or_not_repaired_is_refused(task_judge: TaskJudge) -> None:
    task = generate("train", 0, 0)
    fixed_already = replace(task, test=replace(task.test, fail_to_pass=task.test.pass_to_pass[:1] or ["x"]))
    assert (await admit(fixed_already, task_judge)).status == "broken"
    no_repair = await admit(replace(task, solution=""), task_judge)
    assert no_repair.status == "broken" and "FAIL_TO_PASS" not in no_repair.reasons[0]
    assert (await admit(replace(task, solution=None), task_judge)).status == "unavailable"
    foreign = replace(task, solution=task.solution.replace("return", "yield") if task.solution else None)
    assert (await admit(foreign, task_judge)).status == "broken"


async def test_a_task_that_no_agent_could_work_on_is_not_admitted(task_judge: TaskJudge) -> None:
    """Its tests run: the warm judge makes a file into a folder where it must. But no agent's box can be made."""
    task = generate("train", 0, 0)
    files = {**(task.source.files or {}), "notes": "a file", "notes/a.txt": "and a folder"}
    admission = await admit(replace(task, source=replace(task.source, files=files)), task_judge)
    assert admission.status == "unavailable" and "notes" in admission.reasons[0], admission


class EverySecondTime:
    """A judge for whom every second repair did not happen."""

    def __init__(self, task_judge: TaskJudge) -> None:
        self.judge, self.calls = task_judge, 0

    async def run_anew(self, task: Task, patch: str) -> TestResults:
        self.calls += bool(patch)
        return await self.judge.run_anew(task, patch if self.calls % 2 else "")

    async def try_box(self, task: Task) -> None:
        await self.judge.try_box(task)

    async def test_ids(self, task: Task) -> list[str]:
        return await self.judge.test_ids(task)

    async def decoys(self, task: Task) -> Decoys:
        return await self.judge.decoys(task)


async def test_what_passes_sometimes_is_flaky(task_judge: TaskJudge) -> None:
    admission = await admit(generate("train", 0, 0), EverySecondTime(task_judge))
    assert (admission.status, admission.empty, admission.fixed) == ("flaky", 3, 2)
    assert "fixed: " in admission.reasons[0]


MEASURED = """import m


def test_flips():
    assert m.f() == 1


def test_stays():
    assert m.f() > 0


def test_fails_with_the_fix_too():
    assert m.f() == 3
"""


def unmeasured() -> Task:
    """A task whose corpus lists no tests."""
    plan = TestPlan(Command(["test_m.py"]), "pytest", [], [], restore={"test_m.py": MEASURED}, baseline=True)
    fixed = "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 2\n+    return 1\n"
    source = Source(files={"m.py": "def f():\n    return 2\n"})
    return Task("m", "c", "s", "python", "f", source, "", plan, solution=fixed)


async def test_lists_are_measured_and_what_fails_anyway_is_excluded_by_name(task_judge: TaskJudge) -> None:
    admission = await admit(unmeasured(), task_judge, times=2)
    assert (admission.status, admission.empty, admission.fixed) == ("admitted", 2, 2), admission.reasons
    assert admission.excluded == ["test_m.py::test_fails_with_the_fix_too"] and admission.task is not None
    measured = admission.task.test
    assert (measured.fail_to_pass, measured.pass_to_pass) == (["test_m.py::test_flips"], ["test_m.py::test_stays"])
    assert not measured.baseline
    again = await admit(admission.task, task_judge, times=1)
    assert again.status == "admitted" and again.task == admission.task and again.excluded == []


async def test_listed_tests_that_fail_anyway_are_excluded_but_never_those_that_must_flip(task_judge: TaskJudge) -> None:
    task = unmeasured()
    names = [f"test_m.py::test_{name}" for name in ("flips", "stays", "fails_with_the_fix_too")]
    listed = replace(task, test=replace(task.test, fail_to_pass=names[:1], pass_to_pass=names[1:], baseline=False))
    admission = await admit(listed, task_judge, times=1)
    assert admission.status == "admitted" and admission.excluded == names[2:]
    wrong = replace(listed, test=replace(listed.test, fail_to_pass=names[2:], pass_to_pass=names[1:2]))
    assert (await admit(wrong, task_judge, times=1)).status == "broken"


async def test_doctests_judge_nothing_and_the_file_they_stand_in_can_be_repaired(task_judge: TaskJudge) -> None:
    """A suite with --doctest-modules names the module itself as a test's file."""
    task = unmeasured()
    shape = 'def {}():\n    """\n    >>> {}()\n    {}\n    """\n    return {}\n\n\n'
    examples = shape.format("f", "f", 1, 2) + shape.format("g", "g", 3, 3)
    fix = '--- a/m.py\n+++ b/m.py\n@@ -4,3 +4,3 @@\n     1\n     """\n-    return 2\n+    return 1\n'
    plan = replace(task.test, command=Command(["--doctest-modules", "m.py", "test_m.py"]))
    task = replace(task, source=Source(files={"m.py": examples}), test=plan, solution=fix)
    admission = await admit(task, task_judge, times=1)
    assert admission.task is not None, admission.reasons
    assert admission.excluded == ["m.py::m.f", "m.py::m.g", "test_m.py::test_fails_with_the_fix_too"]
    assert admission.task.test.fail_to_pass == ["test_m.py::test_flips"]
    named = replace(
        plan, fail_to_pass=["m.py::m.f", "test_m.py::test_flips"], pass_to_pass=["m.py::m.g"], baseline=False
    )
    listed = await admit(replace(task, test=named), task_judge, times=1)
    assert listed.task is not None and listed.task.test.fail_to_pass == ["test_m.py::test_flips"]
    alone = replace(named, fail_to_pass=["m.py::m.f"])
    refused = await admit(replace(task, test=alone), task_judge, times=1)
    assert refused.status == "broken" and "only doctests have to flip" in refused.reasons[0]


PARAMETERS = """import pytest
import m


@pytest.mark.parametrize("least", [0, 1, 3])
def test_several(least):
    assert m.f() >= least and (least == 0 or m.f() != 2)
"""


async def test_a_test_named_without_its_parameters_stands_for_those_that_flip(task_judge: TaskJudge) -> None:
    task = unmeasured()
    plan = replace(task.test, fail_to_pass=["test_m.py::test_several"], restore={"test_m.py": PARAMETERS})
    admission = await admit(replace(task, test=plan), task_judge, times=1)
    assert admission.task is not None, admission.reasons
    measured = admission.task.test
    assert measured.fail_to_pass == ["test_m.py::test_several[1]"]
    assert measured.pass_to_pass == ["test_m.py::test_several[0]"]
    assert admission.excluded == ["test_m.py::test_several[3]"]


async def test_without_a_test_that_flips_or_reports_a_task_is_broken(task_judge: TaskJudge) -> None:
    task = unmeasured()
    steady = {"test_m.py": "def test_a():\n    pass\n"}
    raising = {"test_m.py": "raise ValueError"}
    for restore, says in ((steady, "no test fails that passes"), (raising, "no test reports")):
        admission = await admit(replace(task, test=replace(task.test, restore=restore)), task_judge, times=1)
        assert admission.status == "broken" and says in admission.reasons[0]


@pytest.mark.parametrize("seed", RECORDED_SEEDS)
async def test_the_records_are_what_the_judge_says(task_judge: TaskJudge, seed: int) -> None:
    """All fingerprints are compared, a sample is judged anew."""
    records = recorded(seed)
    assert set(records) == set(SPLITS)
    for split, fingerprints in records.items():
        assert len(fingerprints) >= 100
        assert [fingerprint(generate(split, seed, i)) for i in range(len(fingerprints))] == fingerprints
        for index in (3, 57):
            assert (await admit(generate(split, seed, index), task_judge)).status == "admitted"


def test_seeds_without_records_have_none() -> None:
    assert recorded(987654) == {}
