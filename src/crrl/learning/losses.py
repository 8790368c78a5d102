"""Losses: what a step minimises, token by token, and what the sum over its tokens is divided by.

A loss is an object made with the recipe's `objective` that says its `mean`: over `rows` (episodes), over trained
`tokens` of a micro-batch, or over trained tokens of the whole `step`. That is all that micro-batches have to know
(`batches.py`). TRL's own are computed in TRL, by their name; one of your own is called (`Loss`), and the trainer adds
the KL to it and takes the mean.
"""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from crrl.conf.schema import Objective

Mean = Literal["rows", "tokens", "step"]


class Loss(Protocol):
    """Made as `cls(objective)`."""

    mean: Mean

    def __call__(self, logps_BT: Tensor, old_logps_BT: Tensor, advantages_B1: Tensor, trained_BT: Tensor) -> Tensor:
        """The loss of each token, (B, T); what it is where `trained_BT` is 0 does not matter.

        `logps_BT`: log-probs under the policy that is trained, with gradient. `old_logps_BT`: the sampler's.
        """
        ...


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
