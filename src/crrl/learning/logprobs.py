"""Log-probs of trained tokens only: the vocabulary projection runs for no other.

Most of an agent's episode is context (here about nine tokens in ten), so a hook between the model's layers and TRL's
fused head hands on the hidden states of trained places alone. Everything happens in the forward pass of the model as it
is wrapped, so what wraps it (autocast, DDP, ZeRO, adapters) works as it does for TRL.

The values are TRL's; `tests/learning/test_logprobs.py` compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from crrl.engines.heap import give_back
from crrl.learning.tree import Forest


def unwrapped(model: Any) -> Any:
    """The causal model itself, adapters injected, without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class Picked:
    """The hook of one model, which has TRL's fused head. Outside `only`, nothing is left out."""

    def __init__(self, model: nn.Module) -> None:
        self._places_M: Tensor | None = None
        body = unwrapped(model).base_model
        body.register_forward_hook(self._hook)
        for module in body.modules():
            if isinstance(module, GradientCheckpointingLayer) and _large(module):
                module.register_forward_pre_hook(_give_back)

    @contextmanager
    def only(self, places_M: Tensor) -> Iterator[None]:
        """Forward passes give the head the hidden states at `places_M` of the flattened batch, as one row."""
        self._places_M = places_M
        try:
            yield
        finally:
            self._places_M = None

    def _hook(self, module: nn.Module, _args: Any, output: Any) -> Any:
        if self._places_M is not None:
            output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[self._places_M][None]
            _give_back(module)  # the head's tiles would stand beside what the layers have freed
        return output


def _large(layer: nn.Module) -> bool:
    """A smaller one makes too little to pay for the walk through the heap, which cost a tiny policy 18% more CPU."""
    return sum(weight.numel() for weight in layer.parameters()) >= 2**20


def _give_back(module: nn.Module, _args: Any = None) -> None:
    """Before each layer of a training pass on a CPU, one that is computed again included: else the heap grows with
    every layer, by most of what the layer makes."""
    if module.training and next(module.parameters()).device.type == "cpu":
        give_back()


def trained_logprobs(
    model: nn.Module,
    picked: Picked,
    ids_BT: Tensor,
    mask_BT: Tensor,
    trained_BT: Tensor,
    packed: Forest | None,
    *,
    router: bool = False,
) -> tuple[Tensor, Tensor | None, Any]:
    """log p(ids[t] | ids[:t]) and the entropy of that distribution (nats), both (B, T), 0 where not trained, and the
    model's whole output. Column 0 is always 0: the first token has no distribution.

    Args:
        packed: the same rows as a forest; None: they pass as they are, padded on the right.
        router: the output has the experts' auxiliary loss.
    """
    place_BT = trained_BT.bool().clone()
    place_BT[:, 0] = False
    if packed is None:
        places_M, labels_M = place_BT.roll(-1, 1).flatten().nonzero()[:, 0], ids_BT[place_BT]
        inputs: dict[str, Any] = {"input_ids": ids_BT, "attention_mask": mask_BT}
    else:
        places_M, labels_M = packed.picked_M, packed.labels_M
        inputs = {"input_ids": packed.ids_N[None], "position_ids": packed.positions_N[None], "forest": packed}
    if router:
        inputs["output_router_logits"] = True
    with picked.only(places_M):
        output = model(**inputs, shift_labels=labels_M[None], fused_lm_head=True)

    def of_rows(values_1M: Tensor | None) -> Tensor | None:
        if values_1M is None:
            return None
        values_K = values_1M[0] if packed is None else values_1M[0][packed.of_K]
        return torch.zeros_like(place_BT, dtype=values_K.dtype).masked_scatter(place_BT, values_K)

    logps_BT = of_rows(output.log_probs)
    assert logps_BT is not None, "every head gives log-probs"
    return logps_BT, of_rows(output.entropy), output


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
