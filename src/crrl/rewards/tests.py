"""Rewards of a task's tests; missing is failed.

- `tests`: 1.0 iff every FAIL_TO_PASS and PASS_TO_PASS test passed, else 0.0.
- `must_flip`: the share of FAIL_TO_PASS tests that passed. Gamed by repairing what is easy, and breaking the rest.
- `must_stay`: the share of PASS_TO_PASS tests that passed, where one FAIL_TO_PASS test did at least. (Else a patch that
  changes nothing would have it all.)
- `tests_fraction`: their product: partial credit that breaking other things takes away.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.task import Task


def solved(task: Task, results: TestResults) -> bool:
    expected = [*task.test.fail_to_pass, *task.test.pass_to_pass]
    return bool(expected) and results.applied and all(results.tests.get(name) == "passed" for name in expected)


def flipped(task: Task, results: TestResults) -> float:
    return _share(task.test.fail_to_pass, results)


def stayed(task: Task, results: TestResults) -> float:
    return _share(task.test.pass_to_pass, results) if flipped(task, results) else 0.0


def _share(tests: Sequence[str], results: TestResults) -> float:
    """1.0 of no tests."""
    if not results.applied:
        return 0.0
    return sum(results.tests.get(name) == "passed" for name in tests) / len(tests) if tests else 1.0


class TestsPassed:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        return None if results is None else float(solved(task, results))


class TestsFraction:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        return None if results is None else flipped(task, results) * stayed(task, results)


class MustFlip:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        return None if results is None else flipped(task, results)


class MustStay:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        return None if results is None else stayed(task, results)
