"""Reward `style`: whether new code looks like the project's, in [0, 1]; for tasks that no test judges.

The similarity `changed_tokens` times the share of added lines that are laid out as the fix's own surroundings: indented
by the same character, no longer than its longest line (or `width`), without white space at the end.

Not applicable (None) where the task has no known solution. Gamed by: nothing but similarity, which it is a share of: a
neat patch that is not like the fix has 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.rewards.patching import PatchError, parse
from crrl.rewards.similarity import LONGEST, changed_tokens
from crrl.task import Task


@dataclass(frozen=True)
class Style:
    """`width`: characters that every line may have, whatever the project's own have."""

    width: int = 79

    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        if task.solution is None:
            return None
        near = changed_tokens(patch, task.solution) if len(patch) <= LONGEST else 0.0
        added = _lines(patch, "+") if near else []
        if not added:
            return near
        own = _lines(task.solution, "+ ")
        widest = max([self.width, *map(len, own)])
        indents = {line[0] for line in own if line[0] in " \t"}
        neat = [line for line in added if len(line) <= widest and line == line.rstrip()]
        fitting = [line for line in neat if not indents or line[0] not in " \t" or line[0] in indents]
        return near * len(fitting) / len(added)


def _lines(patch: str, signs: str) -> list[str]:
    """Those of a patch with one of the signs, blank ones left out."""
    try:
        found = [line[1:] for part in parse(patch) if part.readable for line in part.lines if line[0] in signs]
    except PatchError:
        return []
    return [line.removesuffix("\r") for line in (line.rstrip("\n") for line in found) if line.strip()]
