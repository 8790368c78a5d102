"""The counter noise is uniform, uncorrelated, and the tokens it draws follow the softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from crrl.engines.sampling import sample, uniform

N = 200_000


@pytest.mark.parametrize("along", ["seed", "position"])
def test_uniform_is_uniform_and_uncorrelated(along: str) -> None:
    counter, fixed = np.arange(N, dtype=np.uint64), np.full(N, 12345, np.uint64)
    u = uniform(counter, fixed) if along == "seed" else uniform(fixed, counter)
    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    counts, _, _ = np.histogram2d(u[:-1], u[1:], bins=16)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_seed_and_position_do_not_trade_places() -> None:
    seeds, positions = np.meshgrid(np.arange(300, dtype=np.uint64), np.arange(300, dtype=np.uint64))
    assert len(np.unique(uniform(seeds.ravel(), positions.ravel()))) == 300 * 300


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_tokens_follow_the_softmax(temperature: float) -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, -float("inf"), 1.0, 0.0, -3.0])
    u = torch.from_numpy(uniform(np.arange(N, dtype=np.uint64), np.zeros(N, np.uint64)))
    tokens, logprobs = sample(logits.expand(N, -1), torch.full((N,), temperature), u)
    p = torch.softmax(logits / temperature, -1)
    counts = torch.bincount(tokens, minlength=7)
    assert counts[3] == 0
    keep = [0, 1, 2, 4, 5, 6]
    expected = p[keep].double().numpy()
    assert stats.chisquare(counts[keep].numpy(), expected / expected.sum() * N).pvalue > 1e-3
    assert torch.allclose(logprobs.exp(), p[tokens])


def test_the_edges_of_u_never_draw_an_impossible_token() -> None:
    logits = torch.tensor([[-float("inf"), 0.0, 0.0, -float("inf")]] * 2)
    tokens, _ = sample(logits, torch.ones(2), torch.tensor([0.0, 1.0 - 2.0**-52], dtype=torch.float64))
    assert tokens.tolist() == [1, 2]


def test_nan_shows_in_the_logprob_of_that_row_only() -> None:
    logits = torch.tensor([[0.0, torch.nan], [0.0, 1.0]])
    for temperature in (0.0, 1.0):
        _, logprobs = sample(logits, torch.full((2,), temperature), torch.full((2,), 0.5, dtype=torch.float64))
        assert logprobs.isnan().tolist() == [True, False]


def test_what_is_not_allowed_is_never_drawn_and_log_probs_stay_those_of_all() -> None:
    """Also where all that is allowed is improbable beyond float32, and beside a row without a mask."""
    logits = torch.tensor([[0.0, -1.0, -400.0, -401.0]] * 512)
    allowed = torch.tensor([[False, False, True, True], [True] * 4]).repeat(256, 1)
    u = torch.linspace(0, 1 - 2**-52, 512, dtype=torch.float64)
    tokens, logprobs = sample(logits, torch.ones(512), u, allowed)
    assert set(tokens[::2].tolist()) == {2, 3}
    free, of_free = sample(logits, torch.ones(512), u)
    assert torch.equal(tokens[1::2], free[1::2]) and torch.equal(logprobs[1::2], of_free[1::2])
    assert torch.equal(logprobs, logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1))
    greedy, _ = sample(logits[:1], torch.zeros(1), u[:1], allowed[:1])
    assert greedy.tolist() == [2]
