"""`crrl bench judge`: CPU-seconds of one judged patch on a warm judge, beside plain `python -m pytest` of the same."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from crrl import sandbox
from crrl.console.time_breakdown import tree_cpu_s
from crrl.rewards.judge import PytestJudge
from crrl.task import Task
from crrl.tasks.generator.generate import generate

RUNS = 60
PLAIN_RUNS = 8
TARGET_S = 0.1


@dataclass(frozen=True)
class JudgeBench:
    """CPU-seconds of one run, medians; `judged` has everything in it: host side, zygote, sandbox, tests."""

    judged: float
    plain: float
    first: float

    def lines(self) -> list[str]:
        return [
            f"CPU-seconds of one judged patch, median of {RUNS} (target: under {TARGET_S}):",
            f"  crrl judge, warm       {self.judged:8.3f}",
            f"  python -m pytest       {self.plain:8.3f}   ratio {self.plain / self.judged:.1f}",
            f"  the first one, warming up included {self.first:.2f}",
        ]


def bench() -> JudgeBench:
    tasks = [generate("train", seed=0, index=i) for i in range(RUNS)]
    first, *rest = asyncio.run(_judged(tasks))
    plain = [_plain(task) for task in tasks[:PLAIN_RUNS]]
    return JudgeBench(statistics.median(rest), statistics.median(plain), first)


async def _judged(tasks: list[Task]) -> list[float]:
    state_dir = sandbox.default_state_dir()
    boxes = sandbox.make(state_dir=state_dir)
    judge = PytestJudge(state_dir, prepare=boxes.prepare)
    spent = []
    try:
        for task in [tasks[0], *tasks]:
            start = tree_cpu_s()
            await judge.run_anew(task, task.solution or "")
            spent.append(tree_cpu_s() - start)
    finally:
        await judge.close()
        await boxes.close()
    return spent


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
