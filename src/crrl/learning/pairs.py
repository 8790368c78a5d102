"""The pair reward: both versions of a function stand in one group, and are rewarded as a pair (`objective.pair`).

A group at a pair has as many attempts at the vulnerable version as at the fixed one. An attempt whose label is right
gets, on top of its own reward, the share of the attempts at the *other* version whose labels are right:

    r = own + pair * right * (share of the other version's attempts that are right)

This is the mean, over all ways to couple the attempts, of "both are right" (P-C): its expectation is the policy's
chance to get both right, whose gradient the sum of both versions' policy gradients is. The means of the bonus over
either version are equal, so the group's common mean is a baseline for both. A policy that gives both the same label
gets none of it. Lost episodes are in no share (invariant 2); where one version has lost all, the group has no bonus.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from crrl.rollout.api import Episode, Group

COMPONENT = "pair"


def paired(group: Group, weight: float) -> Group:
    """The group with the bonus in its rewards, and as a component. A group at one task is left as it is."""
    right: dict[str, list[float]] = {}
    for episode in group.episodes:
        if (solved := _solved(episode)) is not None:
            right.setdefault(episode.task, []).append(solved)
    if len(right) != 2:
        return group
    return replace(group, episodes=[_with_bonus(episode, right, weight) for episode in group.episodes])


def _with_bonus(episode: Episode, right: dict[str, list[float]], weight: float) -> Episode:
    if (solved := _solved(episode)) is None or episode.verdict is None:
        return episode
    (others,) = (values for task, values in right.items() if task != episode.task)
    bonus = solved * fmean(others)
    verdict = episode.verdict
    components = verdict.components | {COMPONENT: bonus}
    return replace(episode, verdict=replace(verdict, reward=verdict.reward + weight * bonus, components=components))


def _solved(episode: Episode) -> float | None:
    """None: lost."""
    lost = episode.outcome == "lost" or episode.verdict is None
    return None if lost else float(episode.verdict.solved)  # type: ignore[union-attr]
