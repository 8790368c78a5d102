"""Reward `file_match`: files that the patch and the known fix both change / the larger number of files, in [0, 1].

Only files in which code changes: blank lines and comments do not count; as in the first CodeRepairRL otherwise. Gamed
by any change of code in the right file: a signal for finding it, never a reward on its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.patching import PatchError
from crrl.rewards.similarity import sides
from crrl.task import Task

COMMENTS = ("#", "//", "/*", "*", "--", ";", '"""', "'''")


class FileMatch:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        if task.solution is None:
            return None
        try:
            mine, theirs = _changed(patch), _changed(task.solution)
        except PatchError:
            return 0.0
        return len(mine & theirs) / max(len(mine), len(theirs), 1)


def _changed(patch: str) -> set[str]:
    return {path for path, (removed, added) in sides(patch).items() if any(map(_is_code, (*removed, *added)))}


def _is_code(line: str) -> bool:
    return not line.lstrip().startswith(COMMENTS)
