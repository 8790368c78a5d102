"""Reward `process`: how a repair was made, in [0, 1]: a shaping reward, for agents that make tool calls.

    (share of calls that were not wasted + looked before the first edit + ran tests after the last one) / 3

Wasted: a call that failed, or repeats an earlier one with no edit in between (`signals.py`). It is multiplied by
`tests_fraction`: the whole ritual without a repair is paid nothing. Gamed by `|| true` behind what may fail, and by
tests that test nothing. What it pays for is a means: weigh it low, to begin with, and watch `tests` (where one rises
and the other falls, the alarm `shaping_traded` says so). None: no calls, or no tests.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.tests import flipped, stayed
from crrl.task import Task


class Process:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        turns = results.trace.turns if results is not None else []
        calls = sum(turn.calls for turn in turns)
        if results is None or not calls:
            return None
        edits = [i for i, turn in enumerate(turns) if turn.edits]
        if not patch.strip() or not edits:
            return 0.0
        careful = 1 - min(calls, sum(turn.failed + turn.repeated for turn in turns)) / calls
        looked = any(turn.reads for turn in turns[: edits[0]])
        checked = any(turn.tests for turn in turns[edits[-1] :])
        return flipped(task, results) * stayed(task, results) * (careful + looked + checked) / 3
