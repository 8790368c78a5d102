"""Several tries at one task (`Task.tries`), as in Aider's polyglot benchmark.

Each time the agent stops, the judge runs the tests on its patch. If they fail and a try is left, the agent is shown
what they printed and continues in the same session, in a new box that holds its work so far (taking a patch ends a
box).

Hidden tests stay hidden: their output is shown, their files are in none of the agent's boxes. Durations and addresses
are cut from the output, so that it is the same in every run (invariant 10). The agent's wall budget does not run while
the judge does.
"""

from __future__ import annotations

import asyncio
import re
import time

from crrl.agents.api import Again
from crrl.errors import LostError
from crrl.rewards.api import TestResults, Verdict
from crrl.rewards.judge import PytestJudge
from crrl.rewards.tests import solved
from crrl.rewards.verdict import Combine
from crrl.sandbox.api import Box, Sandbox, Spec
from crrl.task import Task

LINES = 50  # of the tests' output are shown, as in the benchmark
LINE_CHARS = 400
CHANGING = re.compile(  # durations, as the runners of all languages print them, and addresses
    r" \(\d+(\.\d+)? ?m?s\)|;? (finished )?in \d+\.\d+ ?s\b( \(\d+:\d\d:\d\d\))?|\t\d+\.\d+s$| after \d+ ms\b"
    r"|\bTime( elapsed)?: +\d+(\.\d+)? m?s\b| at 0x[0-9a-f]+",
    re.MULTILINE,
)
HOW_IT_ENDED = {
    "timeout": "The tests did not finish in time.",
    "memory": "The tests were killed: out of memory.",
    "disk": "The tests were killed: the disk is full.",
    "output": "The tests were killed: too much output.",
    "build_failed": "The build failed.",
}
MESSAGE = """\
{output}

These are the errors of the tests that were run on your work. The tests are right and cannot be changed: repair the
code.
"""
PATCH = ".crrl-earlier.patch"


class Tries:
    """The boxes and verdicts of one episode.

    Args:
        spec: of every box of the episode.
        weigh: turns test results into a verdict.

    Attributes: `earlier`: the verdicts of all tries but the last, in order. Reward components that need the samples
    are in the last verdict only.
    """

    def __init__(self, task: Task, sandbox: Sandbox, spec: Spec, judge: PytestJudge, weigh: Combine) -> None:
        self.spec = spec
        self.earlier: list[Verdict] = []
        self._task, self._sandbox, self._judge, self._weigh = task, sandbox, judge, weigh
        self._box: Box | None = None
        self._patch: str | None = None  # of the current box
        self._results: tuple[TestResults, bool] | None = None  # of that patch
        self._judged_s, self._since = 0.0, 0.0

    @property
    def judging_s(self) -> float:
        """Wall seconds spent between tries so far, a judging in progress included."""
        return self._judged_s + (time.monotonic() - self._since if self._since else 0.0)

    async def new_box(self) -> Box:
        """A box that holds the task's repository, untouched."""
        self._box, self._patch, self._results = await self._sandbox.start(self.spec), None, None
        return self._box

    async def again(self) -> Again | None:
        """`agents.api.WhatNow`: None if this try succeeded or was the last. Raises LostError or CrrlError."""
        if len(self.earlier) + 1 >= self._task.tries:
            return None
        self._since = time.monotonic()
        try:
            patch = await self.patch()
            await self.close()
            results, cached = self._results = await self._judge.run_cached(self._task, patch)
            if solved(self._task, results):
                return None
            self.earlier.append(await asyncio.to_thread(self._weigh, self._task, patch, results, cached=cached))
            return Again(await self._restored(patch), told(results))
        finally:
            self._judged_s, self._since = self.judging_s, 0.0

    async def patch(self) -> str:
        """The patch of the current try. Taking it ends the box."""
        if self._patch is None:
            assert self._box is not None
            self._patch = await self._box.patch()
        return self._patch

    async def results(self) -> tuple[TestResults, bool]:
        """The results of the current try, as `judge.run_cached` returns them; judged once."""
        if self._results is None:
            self._results = await self._judge.run_cached(self._task, await self.patch())
        return self._results

    async def close(self) -> None:
        if self._box is not None:
            await self._box.close()

    async def _restored(self, patch: str) -> Box:
        box = await self.new_box()
        if patch:
            await box.write(PATCH, patch.encode())
            line = f"git apply --whitespace=nowarn {PATCH} && rm {PATCH}"
            result = await box.exec(["sh", "-c", line])
            if result.code != 0:
                raise LostError(
                    "sandbox_start", f"the earlier patch does not apply to a new box: {result.output[-500:]}"
                )
        return box


def told(results: TestResults) -> str:
    """The user message after a failed try."""
    lines = CHANGING.sub("", results.output).strip("\n").splitlines()
    said = [HOW_IT_ENDED[results.reason]] if results.reason in HOW_IT_ENDED else []
    shown = [*said, *(line[:LINE_CHARS] for line in lines[:LINES])]
    return MESSAGE.format(output="\n".join(shown) or "The tests did not pass.")
