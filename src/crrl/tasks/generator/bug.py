"""A generated program with its bug, alone in its file or among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from crrl.tasks.generator.cases import Case

BETWEEN = "\n\n"  # functions


@dataclass(frozen=True)
class Neighbour:
    """A correct function in the bug's file, with tests of its own."""

    function: str
    cases: list[Case]


@dataclass(frozen=True)
class GeneratedBug:
    """A program and its mutant. `old_line` (of `buggy`) -> `new_line` (of `fixed`), both stripped, repairs it.
    `neighbours`: the other functions of both versions of the file (`corpus.functions`)."""

    family: str
    path: str
    function: str
    buggy: str
    fixed: str
    old_line: str
    new_line: str
    issue: str
    kind: str
    cases: list[Case]
    failing: list[int]
    neighbours: tuple[Neighbour, ...] = ()

    def among(self, others: Sequence[GeneratedBug], place: int) -> GeneratedBug:
        """In one file with the correct versions of `others`, of which `place` stand above it."""
        above, below = [o.fixed for o in others[:place]], [o.fixed for o in others[place:]]
        return replace(
            self,
            buggy=BETWEEN.join([*above, self.buggy, *below]),
            fixed=BETWEEN.join([*above, self.fixed, *below]),
            neighbours=tuple(Neighbour(other.function, other.cases) for other in others),
        )
