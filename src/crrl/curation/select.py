"""Which trajectories are kept, in this order: honest ones, solved ones, those of no evaluation's task, one of what is
nearly the same, and of each task a few that differ most.

Everything else is left out for one reason, the first that holds, and counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from crrl.curation import near
from crrl.curation.api import Trajectory
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.leakage import twins

KEEPS = ("solved", "judged", "all")


@dataclass(frozen=True)
class Rules:
    """`keep`: `solved`: those whose tests pass, and that ended by themselves; `judged`: unsolved and truncated ones,
    too; `all`: also those that nobody judged. `per_task`: at most so many of a task; 0: any number. `similar`: the
    Jaccard index from which on two are nearly the same (`near.py`)."""

    keep: Literal["solved", "judged", "all"] = "solved"
    per_task: int = 2
    similar: float = 0.8


@dataclass
class Selection:
    """`left_out`: by reason. `leaks`: task -> the evaluation's task, and how that is known."""

    kept: list[Trajectory]
    left_out: Counter[str] = field(default_factory=Counter)
    leaks: dict[str, tuple[str, str]] = field(default_factory=dict)


def select(
    trajectories: Iterable[Trajectory], rules: Rules, against: Sequence[Task], tasks: Mapping[str, Task]
) -> Selection:
    """`against`: the tasks of evaluations, none of which may be trained on. `tasks`: those of the trajectories that are
    known; of others, a patch that solves the task stands for its fix.

    The same trajectories in another order give the same selection.
    """
    found = Selection([])
    ranked = sorted(trajectories, key=lambda t: (t.task, not t.solved, t.faults, t.length, t.id, t.where))
    found.leaks = _leaks(ranked, against, tasks) if against else {}
    passed = []
    for trajectory in ranked:
        if reason := _refused(trajectory, rules, found.leaks):
            found.left_out[reason] += 1
        else:
            passed.append(trajectory)
    texts = [near.shingles(trajectory.text) for trajectory in passed]
    nearest = near.first_of_each(texts, rules.similar)
    by_task: dict[str, list[int]] = defaultdict(list)
    for number, other in enumerate(nearest):
        if other != number:
            found.left_out[_repeats(passed[number], passed[other])] += 1
        else:
            by_task[passed[number].task or passed[number].id].append(number)
    for numbers in by_task.values():
        chosen = _most_different(numbers, texts, rules.per_task or len(numbers))
        found.left_out["more than are kept of a task"] += len(numbers) - len(chosen)
        found.kept += [passed[number] for number in chosen]
    found.left_out = +found.left_out
    return found


def _refused(trajectory: Trajectory, rules: Rules, leaks: Mapping[str, object]) -> str:
    if trajectory.exploits:
        return "attempted an exploit"
    if rules.keep != "all" and trajectory.solved is None:
        return "not judged"
    if rules.keep == "solved" and not trajectory.solved:
        return "unsolved"
    if rules.keep == "solved" and trajectory.truncated:
        return "truncated"
    return "task of an evaluation" if trajectory.task in leaks else ""


def _leaks(
    trajectories: Sequence[Trajectory], against: Sequence[Task], tasks: Mapping[str, Task]
) -> dict[str, tuple[str, str]]:
    """By id, by repository and commit, by patch (`tasks/leakage.py`)."""
    known: dict[str, Task] = {}
    for trajectory in trajectories:
        if trajectory.task and trajectory.task not in known:
            known[trajectory.task] = tasks.get(trajectory.task) or _stand_in(trajectory.task, None)
        if trajectory.solved and trajectory.task and known[trajectory.task].solution is None:
            known[trajectory.task] = replace(known[trajectory.task], solution=trajectory.patch or None)
    return {twin.task: (twin.twin, twin.how) for twin in twins(list(known.values()), against)}


def _stand_in(id: str, solution: str | None) -> Task:
    """A task of which only the id is known."""
    return Task(id, "", "", "", "", Source(), "", TestPlan(Command([]), "", [], []), solution=solution)


def _repeats(one: Trajectory, other: Trajectory) -> str:
    return "duplicate" if one.text == other.text else "near-duplicate"


def _most_different(numbers: Sequence[int], texts: Sequence[frozenset[int]], count: int) -> list[int]:
    """The first (solved, fewest faults, shortest), then again and again the one that is least like those chosen."""
    chosen = list(numbers[:1])
    while len(chosen) < min(count, len(numbers)):
        rest = [number for number in numbers if number not in chosen]
        chosen.append(min(rest, key=lambda n: max(near.jaccard(texts[n], texts[c]) for c in chosen)))
    return chosen
