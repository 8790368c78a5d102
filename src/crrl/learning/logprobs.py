"""Log-probs of chosen tokens only: the vocabulary projection runs where a token is trained, and nowhere else.

In an agent's episode most of a row is context (here some nine tokens in ten), and on a CPU TRL's own head
projects every position. The values are the same; `tests/learning/test_trainer.py` compares them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# Heads that do more than one matrix product; TRL's own code knows them all.
_SPECIAL = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)


def unwrapped(model: Any) -> Any:
    """The causal model itself, adapters injected, without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_plain(model: nn.Module) -> bool:
    """Whether the model's logits are `lm_head(hidden states)` and nothing more."""
    if not isinstance(model, PreTrainedModel):
        return False
    config = model.config.get_text_config()
    return all(getattr(config, name, None) is None for name in _SPECIAL)


def chosen_logprobs(
    model: PreTrainedModel, ids_BT: Tensor, attention_BT: Tensor, chosen_BT: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log p(ids[t] | ids[:t]) and the entropy of that distribution (nats), both (B, T), 0 where not chosen.

    Column 0 is always 0: the first token has no distribution. The entropy carries gradients, as TRL's does.
    """
    body: Any = model.base_model
    head: Any = model.get_output_embeddings()
    hidden_BTD = body(input_ids=ids_BT, attention_mask=attention_BT, use_cache=False).last_hidden_state
    chosen = chosen_BT[:, 1:].bool()
    logits_NV = head(hidden_BTD[:, :-1][chosen]).float() / temperature
    logps_NV = torch.log_softmax(logits_NV, -1)
    picked_N = logps_NV.gather(-1, ids_BT[:, 1:][chosen].unsqueeze(-1)).squeeze(-1)
    entropy_N = -(logps_NV.exp() * logps_NV).sum(-1)
    out = torch.zeros_like(ids_BT, dtype=torch.float32)
    place = torch.zeros_like(ids_BT, dtype=torch.bool)
    place[:, 1:] = chosen
    return out.masked_scatter(place, picked_N), out.masked_scatter(place, entropy_N)


@torch.no_grad()
def score(model: nn.Module, ids: list[int]) -> list[float]:
    """log p(ids[i] | ids[:i]) at T = 1 for i >= 1, by a plain forward pass of the trainer's model."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        tokens = torch.tensor([ids], device=device)
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    finally:
        model.train(training)
    logps = torch.log_softmax(logits, -1)
    return logps.gather(-1, tokens[0, 1:].unsqueeze(-1)).squeeze(-1).tolist()
