"""From groups of episodes to the rows of one step: who is compared, who is trained, who is counted and why.

Lost episodes enter nothing (invariant 2). Groups with fewer than two scored members, or whose rewards are
all equal, give no rows; their scored episodes still count in the mean that the loss takes, so a step's gradient
does not grow as more groups agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crrl.learning.advantages import Advantage
from crrl.learning.api import Row
from crrl.learning.replay import TrainedRow
from crrl.learning.rows import RowCounts, row_hash, rows_of
from crrl.rollout.api import Episode, Group


@dataclass(frozen=True)
class StepBatch:
    """What one step trains on.

    Args:
        rows: in the order that is recorded; none: the step changes nothing (see `RepairTrainer`).
        episodes: how many episodes the loss is a mean over.
        metrics: numbers about the step (`reward`, `solved`, `groups_no_spread`...), logged with it.
        trained: of each row, what the journal keeps.
    """

    rows: list[Row]
    episodes: int
    metrics: dict[str, float] = field(default_factory=dict)
    trained: list[TrainedRow] = field(default_factory=list)


class StepSource(Protocol):
    """Where the trainer's rows come from, and who hears that a step was taken."""

    def next_rows(self, step: int) -> StepBatch:
        """The rows of step `step` (the number of updates before it); may wait for rollouts."""
        ...

    def step_taken(self, step: int, metrics: dict[str, float]) -> None:
        """The weights have just become version `step + 1`; called before any checkpoint of it. Push here."""
        ...


def step_batch(groups: Sequence[Group], advantage: Advantage) -> StepBatch:
    """The rows of a step, in the order of `groups`.

    Metrics: `reward` and `solved` are means over scored and truncated episodes; `episodes_*` by outcome;
    `groups_*` add up to the number of groups; `tokens_*` of what was sampled.
    """
    rows: list[Row] = []
    trained: list[TrainedRow] = []
    counts = RowCounts()
    kinds = {"groups_trained": 0, "groups_no_spread": 0, "groups_too_few": 0}
    for group in groups:
        scored = scored_members(group)
        rewards = [reward for _, reward in scored]
        if len(scored) < 2:
            kinds["groups_too_few"] += 1
            continue
        if max(rewards) == min(rewards):
            kinds["groups_no_spread"] += 1
            continue
        kinds["groups_trained"] += 1
        for (episode, _), value in zip(scored, advantage(rewards), strict=True):
            if value == 0.0:
                continue  # exactly the baseline: no gradient from it
            of_episode, tokens = rows_of(episode, value)
            counts.add(tokens)
            rows += of_episode
            trained += [TrainedRow(episode.id, i, row_hash(row), value) for i, row in enumerate(of_episode)]
    everyone = [episode for group in groups for episode in group.episodes]
    rewards = [reward for group in groups for _, reward in scored_members(group)]
    solved = [bool(e.verdict and e.verdict.solved) for e in everyone if e.outcome != "lost"]
    metrics = {
        "reward": sum(rewards) / len(rewards) if rewards else 0.0,
        "solved": sum(solved) / len(solved) if solved else 0.0,
        **{f"episodes_{o}": sum(e.outcome == o for e in everyone) for o in ("scored", "truncated", "lost")},
        **kinds,
        "tokens_left_out": sum(counts.left_out.values()),
    }
    return StepBatch(rows, len(rewards), {k: float(v) for k, v in metrics.items()}, trained)


def scored_members(group: Group) -> list[tuple[Episode, float]]:
    """The episodes that have a reward, with it: scored and truncated ones, never lost ones."""
    return [(e, e.verdict.reward) for e in group.episodes if e.outcome != "lost" and e.verdict is not None]
