"""More than one try at a task (`Task.tries`), as Aider's polyglot benchmark has it.

Each time the agent stops by itself its patch is judged; while that fails and a try is left, the agent is told what the
tests printed, and goes on: in the same session, and in a new box to which its patch is put back (taking a patch ends a
box). The output is all that it sees of hidden tests: their files are in no box of its own. What differs from run to run
is taken out of it (invariant 10). Judging is not charged to the agent's wall budget.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable

from crrl.agents.api import Again
from crrl.errors import LostError
from crrl.rewards.api import TestResults, Verdict
from crrl.rewards.judge import PytestJudge
from crrl.rewards.tests import solved
from crrl.rewards.verdict import Combine
from crrl.sandbox.api import Box
from crrl.task import Task

LINES = 50  # of the tests' output, as the benchmark cuts it
LINE_CHARS = 400
CHANGING = re.compile(
    r" \(\d+(\.\d+)? ?m?s\)|;? (finished )?in \d+\.\d+ ?s\b|\t\d+\.\d+s$| at 0x[0-9a-f]+", re.MULTILINE
)
ENDED = {
    "timeout": "The tests did not end in time.",
    "memory": "The tests were killed: out of memory.",
    "disk": "The tests were killed: the disk is full.",
    "output": "The tests were killed: too much output.",
    "build_failed": "It does not build.",
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
        start: makes a box over the task's repository, set up.
        earlier: verdicts of the tries after which the agent was told what failed, in their order. Components that need
            the samples are the last verdict's alone.
    """

    def __init__(self, task: Task, start: Callable[[], Awaitable[Box]], judge: PytestJudge, weigh: Combine) -> None:
        self.earlier: list[Verdict] = []
        self._task, self._start, self._judge, self._weigh = task, start, judge, weigh
        self._box: Box | None = None
        self._patch: str | None = None  # of the box there is
        self._results: tuple[TestResults, bool] | None = None  # of that patch
        self._judged_s, self._since = 0.0, 0.0

    @property
    def judging_s(self) -> float:
        """Wall seconds spent between tries, up to this moment."""
        return self._judged_s + (time.monotonic() - self._since if self._since else 0.0)

    async def first(self) -> Box:
        self._box, self._patch, self._results = await self._start(), None, None
        return self._box

    async def again(self) -> Again | None:
        """`agents.api.WhatNow`. None: that was the last try, or it succeeded. Raises LostError."""
        if len(self.earlier) + 1 >= self._task.tries:
            return None
        self._since = time.monotonic()
        try:
            patch = await self.patch()
            await self.close()
            results, cached = self._results = await self._judge.run_cached(self._task, patch)
            if solved(self._task, results):
                return None
            self.earlier.append(self._weigh(self._task, patch, results, cached=cached))
            return Again(await self._restored(patch), told(results))
        finally:
            self._judged_s, self._since = self.judging_s, 0.0

    async def patch(self) -> str:
        """Of the last try; ends its box."""
        if self._patch is None:
            assert self._box is not None
            self._patch = await self._box.patch()
        return self._patch

    async def results(self) -> tuple[TestResults, bool]:
        """Of the last try, as `judge.run_cached` gives them; what was judged when it ended is not judged again."""
        if self._results is None:
            self._results = await self._judge.run_cached(self._task, await self.patch())
        return self._results

    async def close(self) -> None:
        if self._box is not None:
            await self._box.close()

    async def _restored(self, patch: str) -> Box:
        box = await self.first()
        if patch:
            await box.write(PATCH, patch.encode())
            line = f"git apply --whitespace=nowarn {PATCH} && rm {PATCH}"
            result = await box.exec(["sh", "-c", line])
            if result.code != 0:
                raise LostError("sandbox_start", f"the earlier patch cannot be put back: {result.output[-500:]}")
        return box


def told(results: TestResults) -> str:
    """The user message after a failed try."""
    lines = CHANGING.sub("", results.output).strip("\n").splitlines()
    said = [ENDED[results.reason]] if results.reason in ENDED else []
    shown = [*said, *(line[:LINE_CHARS] for line in lines[:LINES])]
    return MESSAGE.format(output="\n".join(shown) or "The tests did not pass.")
