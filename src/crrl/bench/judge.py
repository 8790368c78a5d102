"""`crrl bench judge`: CPU-seconds of one judged patch on a warm judge, with decoys and without, beside plain pytest's.

`unsolved` is the patch that does nothing; `solved` another text than the known fix, which faces the decoys. In copies:
as tasks are judged whose tests are not plain; the generated corpus has its decoys in the same run.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from crrl import sandbox
from crrl.console.time_breakdown import tree_cpu_s
from crrl.rewards.judge import PytestJudge
from crrl.task import Task
from crrl.tasks.diffs import between
from crrl.tasks.generator.generate import bug_of, generate

RUNS = 40
PLAIN_RUNS = 8
TARGET_S = 0.1
KINDS = ("without decoys", "decoys in the same run", "decoys in a copy")


@dataclass(frozen=True)
class JudgeBench:
    """CPU-seconds of one verdict, means; everything is in them: host side, zygote, sandbox, tests.

    Args:
        verdicts: kind -> (unsolved, solved).
    """

    verdicts: dict[str, tuple[float, float]]
    plain: float
    first: float

    def lines(self) -> list[str]:
        judged = self.verdicts[KINDS[1]][1]
        rows = [f"  {kind:24}{unsolved:8.3f}{solved:8.3f}" for kind, (unsolved, solved) in self.verdicts.items()]
        return [
            f"CPU-seconds of one verdict, mean of {RUNS} (target: under {TARGET_S}):",
            f"  {'':24}{'unsolved':>8}{'solved':>8}",
            *rows,
            f"  python -m pytest        {self.plain:8.3f}   ratio {self.plain / judged:.1f}",
            f"  the first one, warming up included {self.first:.2f}",
        ]


def bench() -> JudgeBench:
    tasks = [generate("train", seed=0, index=i) for i in range(PLAIN_RUNS)]
    verdicts, first = asyncio.run(_judged())
    return JudgeBench(verdicts, statistics.median(_plain(task) for task in tasks), first)


async def _judged() -> tuple[dict[str, tuple[float, float]], float]:
    state_dir = sandbox.default_state_dir()
    boxes = sandbox.make(state_dir=state_dir)
    judge = PytestJudge(state_dir, prepare=boxes.prepare)
    spent: dict[tuple[str, bool], list[float]] = {}
    try:
        start = tree_cpu_s()
        await judge.run_anew(generate("train", seed=0, index=0), "")
        first = tree_cpu_s() - start
        for index in range(RUNS):
            for kind, task, repair in await _tasks(judge, index):
                for solved, patch in ((False, ""), (True, repair)):
                    start = tree_cpu_s()
                    await judge.run_anew(task, patch)
                    spent.setdefault((kind, solved), []).append(tree_cpu_s() - start)
    finally:
        await judge.close()
        await boxes.close()
    means = {key: statistics.mean(values) for key, values in spent.items()}
    return {kind: (means[kind, False], means[kind, True]) for kind in KINDS}, first


async def _tasks(judge: PytestJudge, index: int) -> Iterator[tuple[str, Task, str]]:
    """(kind, task, a repair that is not the known fix) of one generated task."""
    bug, task = bug_of("train", 0, index), generate("train", seed=0, index=index)
    repair = between(bug.path, bug.buggy, f"{bug.fixed}\n# repaired\n")
    texts = {path: f'"""Tests."""\n{text}' for path, text in task.test.restore.items()}  # no longer plain
    copied = replace(task, test=replace(task.test, restore=texts))
    copied = replace(copied, test=replace(copied.test, decoys=await judge.decoys(copied)))
    tasks = (replace(copied, solution=None), task, copied)
    return iter([(kind, of, repair) for kind, of in zip(KINDS, tasks, strict=True)])


def _plain(task: Task) -> float:
    with tempfile.TemporaryDirectory() as folder:
        for path, text in {**(task.source.files or {}), **task.test.restore}.items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # plugins would only slow it down
        start = tree_cpu_s()
        command = [sys.executable, "-m", "pytest", "-q", *task.test.command.argv]
        quiet = subprocess.DEVNULL
        subprocess.run(command, cwd=folder, env=environment, stdout=quiet, stderr=quiet, check=False)
        return tree_cpu_s() - start
