"""Reward `tests`: 1.0 iff every FAIL_TO_PASS and PASS_TO_PASS test passed, else 0.0 (missing is failed)."""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.task import Task


def solved(task: Task, results: TestResults) -> bool:
    expected = [*task.test.fail_to_pass, *task.test.pass_to_pass]
    return bool(expected) and results.applied and all(results.tests.get(name) == "passed" for name in expected)


class TestsPassed:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        return None if results is None else float(solved(task, results))
