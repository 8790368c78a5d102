"""The check of a recipe's objective before a run starts.

A plug-in advantage or loss is first needed when the first step is trained, hours into a run that evaluates first. So it
is made, and tried on two episodes, before there is a run folder: what cannot work then would not work later.
"""

from __future__ import annotations

import math

import torch

from crrl import registry
from crrl.conf.schema import Objective
from crrl.learning import losses

REWARDS = (1.0, 0.0)


def require(objective: Objective) -> None:
    """Raises CrrlError (UsageError where it is a setting): the advantage or the loss cannot be made, or fails."""
    values = _require_advantage(objective)
    loss = losses.make(objective)
    if not isinstance(loss, losses.TrlLoss):
        _require_loss(registry.find("crrl.losses", objective.loss), loss, values)


def _require_advantage(objective: Objective) -> list[float]:
    part = registry.find("crrl.advantages", objective.advantage)
    try:
        values = [float(value) for value in part.load()(list(REWARDS))]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if part.ours:
            raise
        raise part.broken(f"fails on the rewards {REWARDS}: {type(error).__name__}: {error}") from error
    if len(values) != len(REWARDS) or not all(map(math.isfinite, values)):
        raise part.broken(f"gives {values} for the rewards {REWARDS}: not a finite number for each.")
    return values


def _require_loss(part: registry.Part, loss: losses.Loss, advantages: list[float]) -> None:
    """Two rows of three tokens, of which the last of the second is not trained."""
    logps_BT = torch.tensor([[-0.5, -1.0, -2.0], [-0.1, -3.0, -1.0]], requires_grad=True)
    trained_BT = torch.tensor([[1, 1, 1], [1, 1, 0]])
    try:
        loss_BT = loss(logps_BT, logps_BT.detach(), torch.tensor(advantages).unsqueeze(1), trained_BT)
        shape, wanted = tuple(loss_BT.shape), tuple(logps_BT.shape)
        if shape == wanted:
            torch.where(trained_BT.bool(), loss_BT, 0.0).sum().backward()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise part.broken(f"fails on a small example: {type(error).__name__}: {error}") from error
    if shape != wanted:
        raise part.broken(f"gives a tensor of shape {shape} for log-probs of shape {wanted}: not one value per token.")
    if logps_BT.grad is None or not torch.isfinite(logps_BT.grad).all():
        raise part.broken("has no finite gradient on a small example.")
