"""top_p and top_k: as transformers truncates; log-probs stay those of the whole distribution; evaluations alone."""

from __future__ import annotations

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from crrl.cli.main import main
from crrl.engines.api import Request
from crrl.engines.sampling import most_probable, sample, truncation_of


def kept_by_transformers(logits_BV: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    none = torch.zeros(len(logits_BV), 0, dtype=torch.long)
    if top_k:
        logits_BV = TopKLogitsWarper(top_k)(none, logits_BV)
    return TopPLogitsWarper(top_p)(none, logits_BV).isfinite()


@pytest.mark.parametrize("top_k", [0, 1, 5, 40])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.8, 0.95, 1.0])
def test_what_is_kept_is_what_transformers_keeps(top_k: int, top_p: float) -> None:
    logits_BV = torch.randn(64, 50, generator=torch.Generator().manual_seed(top_k)) * 3
    of_B = torch.full((64,), top_k), torch.full((64,), top_p, dtype=torch.float64)
    kept_BV = most_probable(logits_BV.log_softmax(-1), *of_B)
    assert torch.equal(kept_BV, kept_by_transformers(logits_BV, top_k, top_p))


def test_of_equals_the_first_are_kept_and_never_none() -> None:
    even_BV = torch.zeros(1, 4).log_softmax(-1)
    assert most_probable(even_BV, torch.tensor([2]), torch.tensor([1.0])).tolist() == [[True, True, False, False]]
    assert most_probable(even_BV, torch.tensor([0]), torch.tensor([1e-9])).tolist() == [[True, False, False, False]]
    assert most_probable(even_BV, torch.tensor([9]), torch.tensor([0.5])).sum() == 2


def test_log_probs_stay_those_of_all_and_other_rows_are_untouched() -> None:
    logits_BV = (torch.randn(1, 20, generator=torch.Generator().manual_seed(1)) * 2).repeat(400, 1)
    u_B = torch.linspace(0, 1 - 2**-52, 400, dtype=torch.float64)
    requests = [Request(str(i), [1], 1, top_p=0.6 if i % 2 else 1.0, top_k=3 if i % 4 == 2 else 0) for i in range(400)]
    truncation = truncation_of(requests, torch.device("cpu"))
    tokens_B, logprobs_B = sample(logits_BV, torch.full((400,), 1.3), u_B, None, truncation)
    plain_B, _ = sample(logits_BV, torch.full((400,), 1.3), u_B)
    assert torch.equal(tokens_B[::4], plain_B[::4])
    assert set(tokens_B[2::4].tolist()) == set(logits_BV[0].topk(3).indices.tolist())
    assert set(tokens_B[1::2].tolist()) < set(plain_B[1::2].tolist())
    assert torch.equal(logprobs_B, (logits_BV / 1.3).log_softmax(-1).gather(1, tokens_B[:, None]).squeeze(1))
    assert truncation_of([Request("a", [1], 1)], torch.device("cpu")) is None


def test_only_evaluations_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["train", "quickstart", "rollout.top_p=0.9"], "evaluation.top_p"),
        (["eval", "tiny", "top_p=0.9"], "evaluation.top_p"),
        (["eval", "tiny", "evaluation.top_p=0"], "above 0 and at most 1"),
        (["eval", "tiny", "evaluation.top_k=-1"], "evaluation.top_k=0 or more"),
        (["eval", "tiny", "evaluation.top_p=0.9", "evaluation.decodings=[greedy]"], "nothing is sampled"),
    ):
        assert main([*words, "--dry-run"]) == 2
        assert said in capsys.readouterr().err, words
    assert main(["eval", "tiny", "evaluation.top_p=0.8", "evaluation.top_k=20", "--dry-run"]) == 0
    assert "top_p: 0.8" in capsys.readouterr().out
