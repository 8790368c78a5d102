"""Reward `label`: the stated probability under a proper scoring rule, against the toss of a coin.

    weight * (1 - (1 - p)^2 / 0.25)    p: the probability that the answer gives to what is true

This is the Brier skill score (Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2) against "one half": 1
for certain and right, 0 for one half, -3 for certain and wrong. No answer has -3, too; "cannot tell" has 0, which is
what it says. The rule is proper: stating what one believes is paid best. Gamed by what tells a corpus's classes apart
besides the weakness (length, names); not by a constant answer: where both classes weigh the same, it has at most 0.

`prior`: the share of vulnerable functions in the data; both classes get the weight that makes them equal (1 at 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crrl.errors import UsageError
from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.label_judge import answer_in
from crrl.task import Task


@dataclass(frozen=True)
class LabelScore:
    """`prior`: see above."""

    prior: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise UsageError(f"rewards.options.label.prior={self.prior} is no share of the functions.", "Write 0.5.")

    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        truth = task.test.label
        if truth is None:
            return None
        answer = answer_in(patch)
        believed = 0.0
        if answer is not None:
            believed = answer.vulnerable if truth.vulnerable else 1 - answer.vulnerable
        weight = 0.5 / (self.prior if truth.vulnerable else 1 - self.prior)
        return weight * (1 - (1 - believed) ** 2 / 0.25)
