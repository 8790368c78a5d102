"""The random floor: the solve rate of a policy that edits at random. Tables show it next to every rate.

The edits come from the operators that made the bugs (`mutation.py`), so the floor is that of somebody who knows the
kinds of bugs, but does not look at the code. A repair counts under the judge's own rule: all tests pass.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from crrl.tasks.generator.cases import failing
from crrl.tasks.generator.generate import VERSION, among_others, bug_of, random_edit


@dataclass(frozen=True)
class Floor:
    solved: int
    total: int


def random_floor(split: str, seed: int, count: int, draws: int = 3, functions: int = 1) -> Floor:
    """`draws` random edits to each of the first `count` tasks of a split, whose files have `functions`. A program
    without an edit counts as unsolved."""
    solved = 0
    for index in range(count):
        bug = among_others(bug_of(split, seed, index), split, seed, index, functions)
        rng = random.Random(f"floor/{VERSION}/{split}/{seed}/{index}")
        for _ in range(draws):
            edit = random_edit(rng, bug)
            solved += edit is not None and not failing(edit.source, bug.function, bug.cases)
    return Floor(solved, count * draws)
