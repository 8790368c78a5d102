"""Losses: the loss of each token of a step, and the divisor of their sum.

A loss is an object made with the recipe's `objective` that says its `mean`: over `rows` (episodes), over trained
`tokens` of a micro-batch, or over trained tokens of the whole `step`. Micro-batches (`batches.py`) need no more than
that. TRL computes its own losses, by name; a loss of your own (`Loss`) is called for its values per token, and the
trainer adds the KL and takes the mean.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from torch import Tensor

from crrl import registry
from crrl.conf.schema import Objective

Mean = Literal["rows", "tokens", "step"]


class Loss(Protocol):
    """Made as `cls(objective)`."""

    mean: Mean

    def __call__(self, logps_BT: Tensor, old_logps_BT: Tensor, advantages_B1: Tensor, trained_BT: Tensor) -> Tensor:
        """The loss of each token, (B, T); values where `trained_BT` is 0 are ignored.

        `logps_BT`: log-probs under the policy being trained, with gradient. `old_logps_BT`: as
        `objective.old` says; with the trainer's the result is weighted for the difference to the sampler's.
        """
        ...


def make(objective: Objective) -> Loss | TrlLoss:
    """The loss of a recipe. Raises UsageError, CrrlError."""
    part = registry.find("crrl.losses", objective.loss)
    loss: Loss | TrlLoss = part.make(objective)
    if not isinstance(loss, TrlLoss) and part.require(loss, Loss).mean not in get_args(Mean):
        raise part.broken(f"has mean = {loss.mean!r}, which is none of {', '.join(get_args(Mean))}.")
    return loss


class TrlLoss:
    """One of TRL's: `GRPOTrainer._compute_loss` computes it by its name, and divides it as `mean` says (trl 1.16.0,
    checked by tests/learning/test_losses.py)."""

    mean: Mean

    def __init__(self, objective: Objective) -> None:
        self.loss_type = objective.loss


class RowMean(TrlLoss):
    """Divided by the rows of the micro-batch."""

    mean: Mean = "rows"


class TokenMean(TrlLoss):
    """Divided by the trained tokens of the micro-batch."""

    mean: Mean = "tokens"


class StepMean(TrlLoss):
    """Divided by `num_items_in_batch`."""

    mean: Mean = "step"
