"""Attention over a forest of rows (`tree.py`), for models that go through transformers' attention interface.

`sharing(model)` switches a model to it, or says why it cannot be: then its rows are padded. With a `forest` among the
keyword arguments of a forward pass, segments attend to their paths and to themselves; without one it is plain `sdpa`.
Nothing is kept between layers but masks, so the pass may be checkpointed, adapted, or split over ranks.

Invariant: no model is trained through this whose hidden states it changes. What is known not to fit is refused by
name; of what is left, a few small trees are compared with the same rows passed one by one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from crrl.learning.tree import Forest, forest

IMPLEMENTATION = "crrl_forest"
QUERIES = 512
"""Most queries with one mask, so that the mask of a long segment stays small."""
_MOVING_ROPE = {"dynamic", "longrope"}
"""Rotary angles of these kinds depend on how long the longest row of a pass is."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    forest: Forest | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: q [B, heads, N, dim] -> [B, N, heads, dim]; B is 1 with a forest."""
    if forest is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    for name in ("s_aux", "position_bias", "softcap", "sliding_window"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(name)
    lengths = [segment.length for segment in forest.segments]
    keys, values = key.split(lengths, 2), value.split(lengths, 2)
    outs: list[Tensor] = []
    paths: dict[tuple[tuple[int, int], ...], tuple[Tensor, Tensor]] = {}
    for i, (segment, q) in enumerate(zip(forest.segments, query.split(lengths, 2), strict=True)):
        if not segment.path:
            outs.append(_sdpa(q, keys[i], values[i], None, scaling))
            continue
        if segment.path not in paths:
            beginnings = [(keys[s][:, :, :n], values[s][:, :, :n]) for s, n in segment.path]
            paths[segment.path] = (torch.cat([k for k, _ in beginnings], 2), torch.cat([v for _, v in beginnings], 2))
        k, v = (torch.cat(parts, 2) for parts in zip(paths[segment.path], (keys[i], values[i]), strict=True))
        before = k.shape[2] - segment.length
        for start in range(0, segment.length, QUERIES):
            end = min(start + QUERIES, segment.length)
            mask = _mask(forest, before + start, end - start, q)
            outs.append(_sdpa(q[:, :, start:end], k[:, :, : before + end], v[:, :, : before + end], mask, scaling))
    return torch.cat(outs, 2).transpose(1, 2).contiguous(), None


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is not None and q.device.type != "cpu":  # with both, CUDA has only its slowest kernel
        repeat = q.shape[1] // k.shape[1]
        k, v, grouped = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1), False
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped)


def _mask(forest: Forest, before: int, new: int, like: Tensor) -> Tensor:
    """[new, before + new], additive: queries see all that is before them, and each other causally."""
    key = (before, new, like.dtype)
    if key not in forest.made:
        hidden = torch.ones(new, new, dtype=torch.bool, device=like.device).triu(1)
        mask = torch.zeros(new, before + new, dtype=like.dtype, device=like.device)
        mask[:, before:].masked_fill_(hidden, float("-inf"))
        forest.made[key] = mask
    return forest.made[key]


def _plain_mask(
    batch_size: int, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **kwargs: Any
) -> Tensor | None:
    """None for rows without padding: `attend` is causal, or follows its forest. transformers would take the positions
    of a forest for several packed rows."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(batch_size, q_length, kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, _plain_mask)


def sharing(model: PreTrainedModel) -> str:
    """Makes the model attend over forests; "" if it does now, or else why not, and nothing has changed."""
    reason = _named(model)
    if reason:
        return reason
    former = model.config._attn_implementation
    model.set_attn_implementation(IMPLEMENTATION)
    reason = _difference(model, former)
    if reason:
        model.set_attn_implementation(former)
    return reason


def _named(model: PreTrainedModel) -> str:
    """Why a model is known not to fit."""
    config = model.config.get_text_config()
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    rope = getattr(config, "rope_parameters", None) or {}
    if getattr(model, "_is_stateful", False):
        return "it has state-space or linear-attention layers"
    if kinds:
        return f"it has layers of kind {', '.join(kinds)}"
    if not getattr(config, "layer_types", None) and getattr(config, "sliding_window", None):
        return "its attention has a sliding window"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention scores have a soft cap"
    if getattr(config, "attention_chunk_size", None):
        return "its attention is chunked"
    if rope.get("rope_type") in _MOVING_ROPE:
        return f"its rotary angles ({rope['rope_type']}) depend on the longest row"
    if getattr(config, "output_router_logits", False):
        return "its router's auxiliary loss counts every row's own tokens"
    if not model._can_set_attn_implementation():
        return "it does not use transformers' attention interface"
    return ""


@torch.no_grad()
def _difference(model: PreTrainedModel, former: str) -> str:
    """Compares hidden states of a small forest, and of its rows one by one, with those of the former attention."""
    body: Any = model.base_model
    device = next(model.parameters()).device
    vocabulary = int(model.config.get_text_config().vocab_size)
    row = [(31 * i + 7) % vocabulary for i in range(24)]
    rows = [row, [*row[:16], *reversed(row[:7])], [*row[:16], row[0], *row[3:9]], [*row[:5], *row[11:20]], row[8:]]
    packed = forest(rows, [[1] * len(row) for row in rows], device)
    training = model.training
    model.eval()
    try:
        states = []
        for attention in (former, IMPLEMENTATION):
            model.set_attn_implementation(attention)
            alone = [body(torch.tensor([row[:-1]], device=device), use_cache=False).last_hidden_state for row in rows]
            states.append(torch.cat(alone, 1)[0])
        hidden = body(
            input_ids=packed.ids_N[None], position_ids=packed.positions_N[None], use_cache=False, forest=packed
        ).last_hidden_state[0]
    except (RuntimeError, NotImplementedError, TypeError, AttributeError, ValueError) as e:
        return f"its attention does not fit ({type(e).__name__}: {str(e).splitlines()[0][:80]})"
    finally:
        model.train(training)
    wanted = states[0]
    found = (states[1], hidden[packed.picked_M][packed.of_K])
    scale = wanted.abs().max().item()
    gap = max((each - wanted).abs().max().item() for each in found)
    bound = 1e-3 if wanted.dtype == torch.float32 else 0.1  # rounding differs; a wrong tree differs by the states' size
    return "" if gap <= bound * max(1.0, scale) else f"its hidden states differ by {gap:.2g} in a tree"
