"""Reward `length`: what a solved task leaves of a budget of sampled tokens, in [0, 1].

    1 up to `budget` tokens, then falling on a line to 0 at twice as many

Paid only where every test passes: else the shortest answer, none at all, would be paid most. Counts all tokens of the
episode, of every kind of model call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crrl.errors import UsageError
from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.tests import solved
from crrl.task import Task


@dataclass(frozen=True)
class Length:
    """`budget`: tokens of an episode."""

    budget: int = 2000

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise UsageError(f"rewards.options.length.budget={self.budget} is no number of tokens.", "Write 2000.")

    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        if results is None or not samples:
            return None
        tokens = sum(len(sample.ids) for sample in samples)
        return max(0.0, min(1.0, 2 - tokens / self.budget)) if solved(task, results) else 0.0
