"""Reward and metric `diff_similarity`: how near a patch is to the developer's, in [0, 1] (`similarity.py`).

Not applicable (None) where the task has no known solution. Gamed by: `changed_lines` pays nothing for what does not
repeat the fix's own lines, so it pays nothing for another repair that is as good, either: use it beside tests. With
`swe_rl` and `predecessor` a comment in the right file is paid half of the real repair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crrl.errors import UsageError, nearest
from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.similarity import DEFINITIONS, LONGEST
from crrl.task import Task


@dataclass(frozen=True)
class DiffSimilarity:
    """`definition`: `changed_lines`, `changed_tokens`, `swe_rl` or `predecessor`."""

    definition: str = "changed_lines"

    def __post_init__(self) -> None:
        if self.definition not in DEFINITIONS:
            raise UsageError(
                f"rewards.options.diff_similarity.definition={self.definition} does not exist.",
                nearest(self.definition, DEFINITIONS),
            )

    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        if task.solution is None:
            return None
        return DEFINITIONS[self.definition](patch, task.solution) if len(patch) <= LONGEST else 0.0
