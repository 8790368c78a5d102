"""Reward `cwe`: whether a vulnerable function's weakness is named, in [-1, 1].

    vulnerable, and said to be: 1 / (number of weaknesses named) if a true one is among them, else 0
    not vulnerable, but said to be, with a weakness: -1

None where the corpus does not tell the weakness. Gamed by naming the most frequent one on every function, but for the
second line, which takes that back: an answer that is the same for both versions of a pair has at most 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.label_judge import answer_in
from crrl.task import Task


class NamedWeakness:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        truth = task.test.label
        if truth is None or not truth.cwe:
            return None
        answer = answer_in(patch)
        if answer is None or answer.label != "vulnerable" or not answer.cwe:
            return 0.0
        if not truth.vulnerable:
            return -1.0
        return 1 / len(answer.cwe) if set(answer.cwe) & set(truth.cwe) else 0.0
