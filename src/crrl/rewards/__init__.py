"""Rewards: how a patch is judged, and the number the policy is trained on.

`judge.PytestJudge` runs a task's tests on a patch (`TestResults`); rewards turn that into numbers; `combine`
weighs them into a `Verdict`. A reward is `Reward` (`rewards/api.py`): a name and

    __call__(task, patch, results, samples) -> float | None        # None: not applicable

To add one, write `rewards/mine.py`::

    class ShortPatch:
        name = "short_patch"

        def __call__(self, task, patch, results, samples):
            return 1.0 / (1 + patch.count("\\n+"))

and add it to `REWARDS` below: one line. It is then reported beside every verdict, and trained on where the
configuration gives it a weight.
"""

from __future__ import annotations

from collections.abc import Mapping

from crrl.rewards.api import Reward
from crrl.rewards.diff_similarity import DiffSimilarity
from crrl.rewards.format import Format
from crrl.rewards.tests import TestsPassed
from crrl.rewards.verdict import Combine
from crrl.rewards.visible_only import VisibleOnly

REWARDS: dict[str, Reward] = {r.name: r for r in (TestsPassed(), DiffSimilarity(), Format(), VisibleOnly())}


def combine(weights: Mapping[str, float], harness_version: str = "") -> Combine:
    """The combination for `weights` (reward name -> weight). Raises UsageError on an unknown name."""
    return Combine(REWARDS, weights, harness_version)


__all__ = ["REWARDS", "combine"]
