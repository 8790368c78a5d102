"""Admission by the real judge: what it admits, what it finds flaky or broken, and the records that are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from crrl import sandbox
from crrl.rewards.api import TestResults
from crrl.rewards.judge import PytestJudge
from crrl.tasks.admission import admit, fingerprint, recorded
from crrl.tasks.generated import SPLITS, generate
from crrl.tasks.task import Task

RECORDED_SEEDS = (0,)


@pytest.fixture
async def judge() -> AsyncIterator[PytestJudge]:
    state_dir = sandbox.default_state_dir()
    boxes = sandbox.make(state_dir=state_dir)
    made = PytestJudge(state_dir, prepare=boxes.prepare)
    yield made
    await made.close()
    await boxes.close()


async def test_generated_tasks_are_admitted(judge: PytestJudge) -> None:
    for split in SPLITS:
        admission = await admit(generate(split, 9, 1), judge)
        assert (admission.status, admission.empty, admission.fixed) == ("admitted", 3, 3), admission.reasons


async def test_a_task_that_is_not_broken_or_not_repaired_is_refused(judge: PytestJudge) -> None:
    task = generate("train", 0, 0)
    fixed_already = replace(task, test=replace(task.test, fail_to_pass=task.test.pass_to_pass[:1] or ["x"]))
    assert (await admit(fixed_already, judge)).status == "broken"
    no_repair = await admit(replace(task, solution=""), judge)
    assert no_repair.status == "broken" and "FAIL_TO_PASS" not in no_repair.reasons[0]
    assert (await admit(replace(task, solution=None), judge)).status == "unavailable"
    foreign = replace(task, solution=task.solution.replace("return", "yield") if task.solution else None)
    assert (await admit(foreign, judge)).status == "broken"


class EverySecondTime:
    """A judge for whom every second repair did not happen."""

    def __init__(self, judge: PytestJudge) -> None:
        self.judge, self.calls = judge, 0

    async def run_anew(self, task: Task, patch: str) -> TestResults:
        self.calls += bool(patch)
        return await self.judge.run_anew(task, patch if self.calls % 2 else "")


async def test_what_passes_sometimes_is_flaky(judge: PytestJudge) -> None:
    admission = await admit(generate("train", 0, 0), EverySecondTime(judge))
    assert (admission.status, admission.empty, admission.fixed) == ("flaky", 3, 2)
    assert "fixed: " in admission.reasons[0]


@pytest.mark.parametrize("seed", RECORDED_SEEDS)
async def test_the_records_are_what_the_judge_says(judge: PytestJudge, seed: int) -> None:
    """All fingerprints are compared, a sample is judged anew."""
    records = recorded(seed)
    assert set(records) == set(SPLITS)
    for split, fingerprints in records.items():
        assert len(fingerprints) >= 100
        assert [fingerprint(generate(split, seed, i)) for i in range(len(fingerprints))] == fingerprints
        for index in (3, 57):
            assert (await admit(generate(split, seed, index), judge)).status == "admitted"


def test_seeds_without_records_have_none() -> None:
    assert recorded(987654) == {}
