"""Rewards: how a patch is judged, and the number the policy is trained on.

`judge.PytestJudge` runs a task's tests on a patch (`TestResults`); rewards turn that into numbers; `combine`
weighs them into a `Verdict`. A reward is `Reward` (`rewards/api.py`): a class whose objects are called with

    (task, patch, results, samples) -> float | None        # None: not applicable

To add one, write one file::

    @dataclass(frozen=True)
    class ShortPatch:
        budget: int = 10

        def __call__(self, task, patch, results, samples):
            return float(patch.count("\\n+") <= self.budget)

and one line: here in `REWARDS`, or in a distribution of your own (docs/plugins.md). It is trained on where a recipe
gives it a weight (`rewards.weights.short_patch=0.1`); its fields are settings (`rewards.options.short_patch.budget=5`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crrl import registry

if TYPE_CHECKING:
    from crrl.gateway.api import Sample
    from crrl.rewards.api import Reward, TestResults
    from crrl.rewards.verdict import Combine
    from crrl.task import Task

REWARDS = {
    "tests": "crrl.rewards.tests:TestsPassed",
    "tests_fraction": "crrl.rewards.tests:TestsFraction",
    "must_flip": "crrl.rewards.tests:MustFlip",
    "must_stay": "crrl.rewards.tests:MustStay",
    "diff_similarity": "crrl.rewards.diff_similarity:DiffSimilarity",
    "style": "crrl.rewards.style:Style",
    "file_match": "crrl.rewards.file_match:FileMatch",
    "format": "crrl.rewards.format:Format",
    "blocks": "crrl.rewards.blocks:Blocks",
    "reasoning": "crrl.rewards.reasoning:Reasoning",
    "length": "crrl.rewards.length:Length",
    "habits": "crrl.rewards.habits:Habits",
    "process": "crrl.rewards.process:Process",
    "label": "crrl.rewards.label:LabelScore",
    "cwe": "crrl.rewards.cwe:NamedWeakness",
    "cited_lines": "crrl.rewards.cited_lines:CitedLines",
    "visible_only": "crrl.rewards.visible_only:VisibleOnly",
}
# Computed and reported in every run; the others where they have a weight, 0 included.
REPORTED = ("tests", "diff_similarity", "format", "visible_only")


def make(name: str, options: Mapping[str, Any]) -> Reward:
    """A reward with its options. Raises UsageError: there is none of that name, or it refuses them; CrrlError."""
    from crrl.rewards.api import Reward

    part = registry.find("crrl.rewards", name)
    reward: Reward = part.require(part.make(**part.options(options, f"rewards.options.{name}")), Reward)
    return reward if part.ours else _PluggedIn(part, reward)


@dataclass(frozen=True)
class _PluggedIn:
    """A reward of another distribution. What it raises, or a value that is no number, stops the run and is told with
    its name: scored as anything else, the policy would be trained on somebody's bug."""

    part: registry.Part
    reward: Reward

    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        try:
            value = self.reward(task, patch, results, samples)
            number = None if value is None else float(value)
        except Exception as error:
            raise self.part.broken(f"failed at task {task.id}: {type(error).__name__}: {error}") from error
        if number is not None and not math.isfinite(number):
            raise self.part.broken(f"gave {number} at task {task.id}.")
        return number


def combine(
    weights: Mapping[str, float], options: Mapping[str, Mapping[str, Any]] | None = None, harness_version: str = ""
) -> Combine:
    """The combination for `weights` (reward name -> weight), each made with its `options`. Raises as `make` does."""
    from crrl.rewards.verdict import Combine

    rewards = {name: make(name, (options or {}).get(name, {})) for name in {**dict.fromkeys(REPORTED), **weights}}
    return Combine(rewards, weights, harness_version)


__all__ = ["REPORTED", "REWARDS", "combine", "make"]
