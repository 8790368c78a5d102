"""Metric `diff_similarity`: how near a patch is to the developer's, in [0, 1].

For every file of either patch, its changed lines in order (`-` and `+` lines, their sign kept, trailing white
space dropped, blank ones left out), files in name order under their names; then

    similarity = difflib.SequenceMatcher(None, patch_lines, solution_lines, autojunk=False).ratio()
               = 2 * matching lines / (lines of the patch + lines of the solution)

The measure of SWE-RL (Wei et al. 2025, arXiv:2502.18449: `difflib.SequenceMatcher` ratio between predicted
and oracle patch), over normalised changed lines rather than characters, so that hunk headers, index lines and
context count for nothing. Two empty patches are equal (1.0); an empty and a non-empty one share
nothing (0.0). Not applicable (None) where the task has no known solution.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.patching import PatchError, parse
from crrl.task import Task

LINES = 5_000  # SequenceMatcher is quadratic; what lies beyond is cut from both


def changed_lines(patch: str) -> list[str]:
    """Raises PatchError."""
    lines: list[str] = []
    for part in sorted(parse(patch), key=lambda part: part.path):
        lines.append(f"file {part.path}")
        if part.readable:
            lines += [line.rstrip() for line in part.lines if line[0] in "+-" and line[1:].strip()]
    return lines[:LINES]


def similarity(patch: str, solution: str) -> float:
    try:
        mine, theirs = changed_lines(patch), changed_lines(solution)
    except PatchError:
        return 0.0
    if not mine or not theirs:
        return float(mine == theirs)
    return difflib.SequenceMatcher(None, mine, theirs, autojunk=False).ratio()


class DiffSimilarity:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        return None if task.solution is None else similarity(patch, task.solution)
