"""Reward `format`: 1.0 for an episode that ended by itself with a patch that applies, else 0.0.

From what a reward sees: every sample on the main line ended with `stop` (none was cut or cancelled), and the
patch is not empty and applied. Whether each tool call parsed is the agent's to say: `Episode.well_formed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.task import Task


class Format:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        if not samples:
            return None
        whole = all(s.finish == "stop" for s in samples if s.kind == "main" and s.delivery == "delivered")
        return float(whole and bool(patch.strip()) and (results is None or results.applied))
