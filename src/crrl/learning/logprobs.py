"""Log-probs of chosen tokens only: the vocabulary projection runs for trained tokens alone.

Most of an agent's episode is context (here about nine tokens in ten), and on a CPU TRL's head projects every position.
The values are the same; `tests/learning/test_trainer.py` compares them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# Heads that do more than one matrix product; TRL's code handles them all.
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


SHARED_MIN = 16
"""A shorter common prefix is not worth its own forward pass."""


def is_plain(model: nn.Module) -> bool:
    """Whether the model's logits are `lm_head(hidden states)` and nothing more."""
    if not isinstance(model, PreTrainedModel):
        return False
    config = model.config.get_text_config()
    return all(getattr(config, name, None) is None for name in _SPECIAL)


def chosen_logprobs(
    model: PreTrainedModel, ids_BT: Tensor, chosen_BT: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log p(ids[t] | ids[:t]) and the entropy of that distribution (nats, no gradient), both (B, T), 0 where
    not chosen. Rows are padded on the right. Column 0 is always 0: the first token has no distribution."""
    head: Any = model.get_output_embeddings()
    chosen = chosen_BT[:, 1:].bool()
    hidden_ND = hidden_states(model, ids_BT)[:, :-1][chosen]
    logits_NV = head(hidden_ND).float() / temperature
    logps_NV = torch.log_softmax(logits_NV, -1)
    picked_N = logps_NV.gather(-1, ids_BT[:, 1:][chosen].unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy_N = -(logps_NV.exp() * logps_NV).sum(-1)
    out = torch.zeros_like(ids_BT, dtype=torch.float32)
    place = torch.zeros_like(ids_BT, dtype=torch.bool)
    place[:, 1:] = chosen
    return out.masked_scatter(place, picked_N), out.masked_scatter(place, entropy_N)


def hidden_states(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    """(B, T, D). The common prefix of all rows (of attempts at one task: the prompt, and often the first calls) passes
    through the model once; every row then attends to its keys and values, gradients included.

    Right padding needs no mask: in a causal model, real tokens never attend to later ones.
    """
    body: Any = model.base_model
    shared = shared_length(ids_BT)
    # Checkpointed layers keep no keys and values.
    if ids_BT.shape[0] == 1 or shared < SHARED_MIN or (model.training and model.is_activation_checkpointing):
        return body(input_ids=ids_BT, use_cache=False).last_hidden_state
    first = body(input_ids=ids_BT[:1, :shared], use_cache=True)
    cache = first.past_key_values
    cache.batch_repeat_interleave(ids_BT.shape[0])
    rest = body(input_ids=ids_BT[:, shared:], past_key_values=cache, use_cache=True).last_hidden_state
    return torch.cat([first.last_hidden_state.expand(ids_BT.shape[0], -1, -1), rest], 1)


def shared_length(ids_BT: Tensor) -> int:
    """Length of the common prefix of all rows; at least one token is left over in each."""
    same = (ids_BT == ids_BT[:1]).all(0)
    return min(int(same.long().cumprod(0).sum()), ids_BT.shape[1] - 1)


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
