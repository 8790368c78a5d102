"""One token per row from logits, with noise that is a function of (request seed, position) and nothing else.

splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators") hashes the counter (seed,
position) to 64 bits, 52 of which make a uniform u in [0, 1). The token is the first whose cumulative probability,
summed in float64, exceeds u (inverse CDF). So a sample does not depend on the rest of the batch or on arrival order,
except where float rounding of the logits moves a boundary across u.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from crrl.engines.api import Request

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def _splitmix64(x: np.ndarray) -> np.ndarray:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def uniform(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """u in [0, 1), float64, for uint64 arrays of request seeds and positions (0-based within a generation)."""
    with np.errstate(over="ignore"):
        bits = _splitmix64(_splitmix64(seeds) ^ (positions * _GOLDEN))
    return (bits >> np.uint64(12)).astype(np.float64) * 2.0**-52


def sample(
    logits_BV: Tensor,
    temperature_B: Tensor,
    u_B: Tensor,
    allowed_BV: Tensor | None = None,
    truncation: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Token and its log-prob per row: log softmax(logits / T) [B]; T = 0 is greedy, log-probs those of T = 1.

    allowed_BV: tokens that may be drawn, at least one in each row; the log-probs stay those of all.
    truncation: top_k_B and top_p_B (`Request`), of which the same holds.
    A row with NaN or +inf among its logits has a NaN log-prob; the caller must look.
    """
    greedy_B = temperature_B == 0
    scaled_BV = logits_BV.float() / torch.where(greedy_B, 1.0, temperature_B)[:, None]
    logprobs_BV = torch.log_softmax(scaled_BV, dim=-1)
    drawn_BV = logprobs_BV
    if allowed_BV is not None:  # normalised again: all that is allowed may be improbable beyond float32
        drawn_BV = torch.log_softmax(scaled_BV.masked_fill(~allowed_BV, -torch.inf), dim=-1)
    if truncation is not None:
        drawn_BV = drawn_BV.masked_fill(~most_probable(drawn_BV, *truncation), -torch.inf)
    cdf_BV = drawn_BV.exp().cumsum(-1, dtype=torch.float64)
    target_B1 = (u_B * cdf_BV[:, -1])[:, None]
    token_B = torch.searchsorted(cdf_BV, target_B1, right=True).squeeze(1).clamp_(max=cdf_BV.shape[1] - 1)
    if greedy_B.any():
        token_B = torch.where(greedy_B, drawn_BV.argmax(-1), token_B)
    return token_B, logprobs_BV.gather(1, token_B[:, None]).squeeze(1)


def most_probable(logprobs_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor) -> Tensor:
    """Mask of each row's `top_k` most probable tokens (0: all), and of these the fewest, most probable first, that have
    `top_p` of their mass; at least one. Of equals the one with the smaller id comes first."""
    sorted_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(logprobs_BV.shape[1], device=logprobs_BV.device)
    k_B = torch.where(top_k_B > 0, top_k_B, logprobs_BV.shape[1])
    mass_BV = torch.where(rank_V < k_B[:, None], sorted_BV.exp().double(), 0.0)
    before_BV = mass_BV.cumsum(-1) - mass_BV
    kept_BV = (before_BV < top_p_B[:, None].double() * mass_BV.sum(-1, keepdim=True)) & (rank_V < k_B[:, None])
    kept_BV[:, 0] = True
    return torch.zeros_like(kept_BV).scatter_(1, order_BV, kept_BV)


def truncation_of(requests: Sequence[Request], device: torch.device) -> tuple[Tensor, Tensor] | None:
    """For `sample`; None where no request asks for one, as in training."""
    if all(request.top_p >= 1 and not request.top_k for request in requests):
        return None
    top_k_B = torch.tensor([request.top_k for request in requests], device=device)
    return top_k_B, torch.tensor([request.top_p for request in requests], dtype=torch.float64, device=device)
