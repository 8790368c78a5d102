"""Decoys: whoever passes a wrong expectation scores zero and is counted; an honest repair never meets one it passes."""

from __future__ import annotations

import pytest
from decoys_kit import CHEATS, COPIED, copied_task
from judge_kit import FIXED, diff, make_task

from crrl.rewards.judge import PytestJudge
from crrl.rewards.tests import solved

SPELLINGS = [(kind, name) for kind, spellings in CHEATS.items() for name in spellings]


@pytest.mark.parametrize(("kind", "name"), SPELLINGS)
async def test_in_copies_of_their_own(judge: PytestJudge, kind: str, name: str) -> None:
    task = copied_task()
    results = await judge.run(task, diff({"stats.py": CHEATS[kind][name]}, COPIED))
    assert not solved(task, results) and results.exploits, results


@pytest.mark.parametrize(("kind", "name"), SPELLINGS)
async def test_beside_the_right_ones(judge: PytestJudge, kind: str, name: str) -> None:
    task = make_task()
    results = await judge.run(task, diff({"stats.py": CHEATS[kind][name]}))
    assert not solved(task, results) and results.exploits, results


async def test_honest(judge: PytestJudge) -> None:
    task = copied_task()
    other = FIXED.replace("return sum(xs) / len(xs)", "total = sum(xs)\n    return total / len(xs)")
    for _ in range(5):
        results = await judge.run_anew(task, diff({"stats.py": other}, COPIED))
        assert solved(task, results) and results.exploits == [], results
    print(await judge.decoys(task))
    assert not solved(task, await judge.run(task, ""))
