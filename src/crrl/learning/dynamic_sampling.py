"""Dynamic sampling (DAPO, arXiv:2503.14476, section 3.2): groups without spread are replaced by groups of new tasks.

When a step's groups are complete, those that give no gradient are counted, and as many groups are appended to the
step's plan, at most `objective.dynamic_sampling` in all; the new ones are looked at in the same way. The n-th appended
group takes the place of the n-th that gave no gradient: a group that was replaced counts in no mean of the loss, its
episodes do in every other number.

Which groups there are is a function of the seed and of outcomes, and recorded in the journal's plan, in order: a
resumed run appends the same ones. An appended group's task is the function of seed, step and number alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from crrl.conf.schema import Config
from crrl.rollout.api import Group
from crrl.task import Task
from crrl.tasks.generator.generate import generate

BEYOND = 10**9
"""Numbers of generated tasks that no step's own groups reach."""


def complete(
    groups: list[Group],
    spread: Callable[[Group], bool],
    most: int,
    more: Callable[[int, int], list[Group]],
) -> tuple[list[Group], set[str]]:
    """The step's groups with those appended, in order, and the ids of the groups that were replaced.

    Args:
        spread: whether a group gives a gradient.
        more: called with (number of the first, how many): runs groups that are appended.
    """
    planned = len(groups)
    while True:
        lacking = [group.id for group in groups if not spread(group)]
        appended = len(groups) - planned
        wanted = min(len(lacking), most) - appended
        if wanted <= 0:
            return groups, set(lacking[:appended])
        groups = [*groups, *more(len(groups), wanted)]


def tasks_beyond(config: Config, training: Sequence[Task], step: int, first: int, count: int) -> list[Task]:
    """Tasks of the groups number `first` and on of a step. `training`: those of a task file; empty: generated ones."""
    numbers = range(first, first + count)
    if not training:
        begin = BEYOND + step * 10**4
        corpus = config.corpus
        own = corpus.rl_share, corpus.ask, corpus.functions
        return [generate("train", config.seed, begin + n, *own) for n in numbers]
    order = random.Random(f"beyond/{config.seed}/{step}").sample(training, len(training))
    return [order[number % len(order)] for number in numbers]
