"""Importance weights from the policy that sampled to the trainer's before the update (`objective.correction`).

Where old log-probs are the trainer's (`objective.old=trainer`, mode b of the design), what the sampler did differently
(another program, another number format, older weights) is corrected once, by a weight that carries no gradient:

    w = exp(log p_trainer - log p_sampler)        of a token, or of a row: the product over its trained tokens

A weight above the bound becomes the bound (`truncate`: truncated importance sampling, Ionides 2008; for language models
Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"), or 0 (`mask`).
"""

from __future__ import annotations

import torch
from torch import Tensor


def weights(
    logps_BT: Tensor, sampled_BT: Tensor, trained_BT: Tensor, correction: str, bound: float
) -> tuple[Tensor, Tensor]:
    """The weights, (B, T), or (B, 1) of a `sequence_`; and which trained tokens have one that was truncated or masked,
    (B, T).

    Args:
        correction: a value of `objective.correction` but `none`.
    """
    level, _, how = correction.partition("_")
    kept_BT = trained_BT.bool()
    log_BT = torch.where(kept_BT, logps_BT - sampled_BT, 0.0)
    if level == "sequence":
        log_BT = log_BT.sum(1, keepdim=True)
    weight_BT = log_BT.exp()  # may be infinite: then it is beyond
    beyond_BT = weight_BT > bound
    weight_BT = torch.where(beyond_BT, bound if how == "truncate" else 0.0, weight_BT)
    return weight_BT, beyond_BT & kept_BT


def quantiles(log_ratios: Tensor) -> dict[str, float]:
    """Of log p_trainer - log p_sampler over the trained tokens of a step, before the update. Nearest of the values
    there are (torch's own `quantile` takes no more than 16 million)."""
    ordered = log_ratios.float().sort().values
    last = len(ordered) - 1
    return {f"log_ratio_p{q:02}": ordered[round(last * q / 100)].item() for q in (1, 50, 99)}
