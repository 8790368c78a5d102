"""No false alarm: known fixes and honest variants of them are solved, and nothing is counted.

A sample always; hundreds of generated tasks and every bug of QuixBugs at hand with `make test-corpora`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from toolchain_kit import require

from crrl import sandbox
from crrl.admission.admission import admit
from crrl.rewards import patching
from crrl.rewards.judge import PytestJudge
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Task
from crrl.tasks.corpora import find, load
from crrl.tasks.diffs import between
from crrl.tasks.generator.generate import SPLITS, bug_of, generate

DATA = Path(os.environ.get("CRRL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
COMMENT = {".py": "# ", ".java": "// "}


def ids(corpus: str) -> list[str]:
    return [task.id for task in load(find(corpus), DATA / corpus).tasks] if (DATA / corpus).is_dir() else []


def generated(seed: int, index: int) -> Iterator[tuple[Task, str]]:
    """The known fix of a task, and the same function with a name for what it returns."""
    split = SPLITS[index % len(SPLITS)]
    bug, task = bug_of(split, seed, index), generate(split, seed, index)
    renamed = (
        f"{bug.fixed}\n\n_repaired = {bug.function}\n\n\ndef {bug.function}(*args):\n    answer = _repaired(*args)\n"
    )
    yield task, task.solution or ""
    yield task, between(bug.path, bug.buggy, f"{renamed}    return answer\n")


async def no_false_alarm(judge: PytestJudge, seeds: range, indices: range) -> int:
    patches = [pair for seed in seeds for index in indices for pair in generated(seed, index)]
    results = await asyncio.gather(*(judge.run_anew(task, patch) for task, patch in patches))
    for (task, patch), found in zip(patches, results, strict=True):
        assert solved(task, found) and found.exploits == [], (task.id, patch, found)
    return len(patches)


async def test_generated_tasks(judge: PytestJudge) -> None:
    assert await no_false_alarm(judge, range(31, 33), range(8)) == 32


@pytest.mark.corpora
@pytest.mark.timeout(900)
async def test_hundreds_of_generated_tasks(judge: PytestJudge) -> None:
    assert await no_false_alarm(judge, range(101, 109), range(25)) == 400


@pytest.fixture
async def judging(state_dir: Path) -> AsyncIterator[tuple[TaskJudge, sandbox.Sandbox]]:
    boxes = sandbox.make(state_dir=state_dir)
    judge = TaskJudge(state_dir, boxes)
    yield judge, boxes
    await judge.close()
    await boxes.close()


@pytest.mark.corpora
@pytest.mark.timeout(900)
@pytest.mark.parametrize("id", ids("quixbugs"))
async def test_every_program_of_quixbugs(judging: tuple[TaskJudge, sandbox.Sandbox], id: str) -> None:
    judge, boxes = judging
    (task,) = load(find("quixbugs"), DATA / "quixbugs", ids=[id]).tasks
    require(task.test.needs)
    admission = await admit(task, judge, times=1)
    assert admission.task is not None, admission.reasons
    read = patching.reader((await boxes.prepare(task.source)).lower, {})
    (path,) = fixed = patching.apply(task.solution or "", read, lambda path: False)
    before, after = read(path), fixed[path]
    assert before is not None and after is not None
    text = after.data.decode().rstrip("\n") + f"\n{COMMENT[Path(path).suffix]}repaired\n"
    results = await judge.run(admission.task, between(path, before.data.decode(), text))
    assert solved(admission.task, results) and results.exploits == [], results
