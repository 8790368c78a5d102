"""Reward `blocks`: of an answer in search/replace blocks, the share that could be read and applied, in [0, 1].

The answering agent counts them (docs/objectives.md); None for other agents. Gamed by small blocks that say little: a
patch that leaves every file as it was has 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.task import Task


class Blocks:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        counts = results.trace.counts if results is not None else {}
        if "edits" not in counts or "tool_calls" in counts:
            return None
        right, wrong = counts["edits"], counts.get("malformed", 0)
        return right / (right + wrong) if patch.strip() and right else 0.0
