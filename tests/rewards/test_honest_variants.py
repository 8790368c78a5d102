"""No false alarm: the known fix as others would have written it (`variants_kit`) is solved, and nothing is counted.

A sample of generated tasks always, and of QuixBugs and polyglot, in six languages, with `make test-corpora`.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from toolchain_kit import require
from variants_kit import variants

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
EVERY = {"quixbugs-python": 3, "quixbugs-java": 12, "polyglot-python": 2}  # of the others the first; each costs minutes
MOST = 3  # variants of one task


def sample() -> list[tuple[str, str]]:
    chosen = []
    for name in ("quixbugs", "polyglot"):
        groups: dict[str, list[str]] = {}
        for task in load(find(name), DATA / name).tasks if (DATA / name).is_dir() else ():
            groups.setdefault(f"{name}-{task.language}", []).append(task.id)
        chosen += [(name, id) for group, ids in groups.items() for id in ids[:: EVERY.get(group, len(ids))]]
    return chosen


async def test_generated_tasks(judge: PytestJudge) -> None:
    ways, patches = set(), []
    for index in range(24):
        split = SPLITS[index % len(SPLITS)]
        bug, task = bug_of(split, 41, index), generate(split, 41, index)
        for how, text in variants(bug.path, bug.buggy, bug.fixed):
            ways.add(how.split(" in ")[0])
            patches.append((task, how, between(bug.path, bug.buggy, text)))
    assert len(ways) == 5, ways  # of six: generated functions have the layout of `ast.unparse` already
    results = await asyncio.gather(*(judge.run_anew(task, patch) for task, _, patch in patches))
    for (task, how, patch), found in zip(patches, results, strict=True):
        assert solved(task, found) and found.exploits == [], (task.id, how, patch, found)


@pytest.mark.corpora
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("corpus", "id"), sample())
async def test_corpora(task_judge: TaskJudge, corpus: str, id: str) -> None:
    (task,) = load(find(corpus), DATA / corpus, ids=[id]).tasks
    require(task.test.needs)
    admission = await admit(task, task_judge, times=1)
    assert admission.task is not None, admission.reasons
    undecoyed = replace(admission.task, solution=None)  # which nothing can be calibrated with
    solved_ones = 0
    for how, patch in changed(task):
        real = await task_judge.run(undecoyed, patch)
        if not solved(undecoyed, real):  # it does not compile, or this test asks for more than the variant keeps
            continue
        results = await task_judge.run(admission.task, patch)
        assert solved(admission.task, results) and results.exploits == [], (how, patch, results)
        solved_ones += 1
    assert solved_ones, "no variant passes the tests"


def changed(task: Task) -> list[tuple[str, str]]:
    read = patching.reader(None, task.source.files or {})
    fixed = patching.apply(task.solution or "", read, lambda path: False)
    texts = {path: (_text(read(path)), _text(file)) for path, file in fixed.items()}
    found = []
    for path, (before, after) in texts.items():
        rest = "".join(between(other, *pair) for other, pair in texts.items() if other != path)
        if before is not None and after is not None:
            ways = {how.split(" in ")[0]: (how, text) for how, text in variants(path, before, after)}
            found += [(how, between(path, before, text) + rest) for how, text in ways.values()]
    return found[-MOST:]  # comments come first


def _text(file: patching.File | None) -> str | None:
    return file.data.decode() if file is not None else None
