"""Rows: the trainer's input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One token sequence of one episode. All lists are as long as `ids`.

    Args:
        ids: exactly the tokens that the engine saw and sampled along one branch.
        loss_mask: 1 where the policy sampled the token in a sample that was used; 0 is context.
        logprobs: the sampler's log-probs (0.0 where loss_mask is 0).
        versions: policy version per token (-1 where loss_mask is 0).
        advantage: of the episode within its group.
        weight: 1 / number of rows of the episode, so that every episode weighs the same.
    """

    ids: list[int]
    loss_mask: list[int]
    logprobs: list[float]
    versions: list[int]
    advantage: float
    weight: float
    episode: str
    group: str
