"""Ragged attention over our own KV cache, for any model that goes through transformers' attention interface.

A forward pass is one packed row of tokens [1, N]: first one token for each decoding row, then the new tokens of every
row that is being prefilled. Embeddings, projections and MLPs see N tokens and no padding. Only this function knows
which token belongs to which row: it writes keys and values into the rows' slots and attends.

Decoding rows whose ids share their first P tokens read those P keys and values once for all of them (cascade attention:
Ye et al. 2024, "Cascade inference"), merged with the rest by log-sum-exp, which is exact.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

IMPLEMENTATION = "crrl"
_ACTIVE = threading.local()


class KVCache:
    """Keys and values [slot, kv_head, position, dim] per layer; grows by half or more; made when a layer first writes.

    Memory beyond a row's length is zero or an old row's finite numbers, never uninitialised: masked positions have
    weight 0, and 0 * NaN would be NaN.
    """

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.slots = 0
        self.positions = 0

    def reserve(self, slots: int, positions: int) -> None:
        if slots <= self.slots and positions <= self.positions:
            return
        old_slots, old_positions = self.slots, self.positions
        if slots > self.slots:
            self.slots = max(8, slots, 2 * self.slots)
        if positions > self.positions:
            self.positions = max(256, -(-positions // 64) * 64, 3 * self.positions // 2)
        for store in (self.keys, self.values):
            for layer, old in store.items():
                store[layer] = self._zeros(old)
                store[layer][:old_slots, :, :old_positions] = old

    def _zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.slots, like.shape[-3], self.positions, like.shape[-1])

    def layer(self, index: int, k_HND: Tensor, v_HND: Tensor) -> tuple[Tensor, Tensor]:
        if index not in self.keys:
            self.keys[index], self.values[index] = self._zeros(k_HND), self._zeros(v_HND)
        return self.keys[index], self.values[index]

    def read(self, slot: int, length: int) -> list[Tensor]:
        """A copy of a slot's first positions: keys and values of each layer, [kv_head, position, dim]."""
        return [store[i][slot, :, :length].clone() for i in self.keys for store in (self.keys, self.values)]

    def write(self, slot: int, length: int, content: list[Tensor]) -> None:
        targets = (store[i] for i in self.keys for store in (self.keys, self.values))
        for target, source in zip(targets, content, strict=True):
            target[slot, :, :length] = source[:, :length]

    def copy(self, source: int, target: int, length: int) -> None:
        for i in self.keys:
            for store in (self.keys, self.values):
                store[i][target, :, :length] = store[i][source, :, :length]

    def clear(self, slot: int) -> None:
        for i in self.keys:
            self.keys[i][slot].zero_()
            self.values[i][slot].zero_()

    def drop(self) -> None:
        self.keys.clear()
        self.values.clear()
        self.slots = self.positions = 0


@dataclass(frozen=True)
class Segment:
    """Tokens [start, end) of the packed input are positions [cached, cached + end - start) of a slot."""

    start: int
    end: int
    slot: int
    cached: int


@dataclass
class Pass:
    """What the attention of one forward pass needs to know.

    Args:
        cache: None: nothing is read or written; segments attend to themselves only (scoring).
        lengths_B: for the decoding rows (slots 0..B-1), the position of their new token.
        longest: max(lengths_B) + 1.
        shared: P, how many first tokens all decoding rows have in common (0: no cascade).
        segments: the rows being prefilled.
        slots_N, positions_N: where each token of the pass is written.
    """

    cache: KVCache | None
    lengths_B: Tensor
    longest: int
    shared: int
    segments: list[Segment]
    slots_N: Tensor
    positions_N: Tensor
    _made: dict[tuple, Tensor] = field(default_factory=dict)

    def __enter__(self) -> Pass:
        _ACTIVE.current = self
        return self

    def __exit__(self, *_: object) -> None:
        _ACTIVE.current = None

    def places(self, store_SHPD: Tensor) -> Tensor:
        """[N * kv_heads]: where the pass's tokens go among the store's vectors, numbered slot, head, position."""
        _, heads, positions, _ = store_SHPD.shape
        key = ("places", heads)
        if key not in self._made:
            first_N = self.slots_N * (heads * positions) + self.positions_N
            step_H = torch.arange(heads, device=first_N.device) * positions
            self._made[key] = (first_N[:, None] + step_H).view(-1)
        return self._made[key]

    def decode_mask(self, first: int, window: int | None, like: Tensor) -> Tensor:
        """[B, 1, 1, longest - first], additive: a row sees positions up to its own, within the window."""
        key = ("decode", first, window)
        if key not in self._made:
            positions_T = torch.arange(first, self.longest, device=like.device)
            hidden_BT = positions_T > self.lengths_B[:, None]
            if window is not None:
                hidden_BT |= positions_T <= self.lengths_B[:, None] - window
            mask_BT = torch.zeros(hidden_BT.shape, dtype=like.dtype, device=like.device)
            self._made[key] = mask_BT.masked_fill_(hidden_BT, float("-inf"))[:, None, None]
        return self._made[key]

    def prefill_mask(self, cached: int, new: int, window: int | None, like: Tensor) -> Tensor:
        """[new, cached + new], additive, causal to the lower right."""
        key = ("prefill", cached, new, window)
        if key not in self._made:
            query = torch.arange(cached, cached + new, device=like.device)[:, None]
            position = torch.arange(cached + new, device=like.device)
            hidden = position > query
            if window is not None:
                hidden |= position <= query - window
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            self._made[key] = mask.masked_fill_(hidden, float("-inf"))
        return self._made[key]


def attend(
    q_BHND: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp [B, H, N] in float32. Heads of q and k are equal in number."""
    if q_BHND.device.type == "cpu" and softcap is None and q_BHND.shape[-1] == v_BHTD.shape[-1]:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BHND, k_BHTD, v_BHTD, attn_mask=mask, scale=scale
        )
    scores = torch.matmul(q_BHND, k_BHTD.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return torch.matmul((scores - lse[..., None]).exp().to(v_BHTD.dtype), v_BHTD), lse


def _decode(
    p: Pass,
    q_HBD: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """[B, query heads, dim] for one new token in each of the slots 0..B-1."""
    heads, rows, dim = q_HBD.shape
    kv_heads = keys.shape[1]
    repeat = heads // kv_heads
    shared = p.shared
    if window is not None and p.longest <= window:
        window = None
    if window is not None:
        shared = 0
    # The query heads of one kv head become its query positions: grouped-query attention without copying keys.
    q_BGRD = q_HBD.transpose(0, 1).reshape(rows, kv_heads, repeat, dim)
    own, lse = attend(
        q_BGRD,
        keys[:rows, :, shared : p.longest],
        values[:rows, :, shared : p.longest],
        p.decode_mask(shared, window, q_HBD),
        scale,
        softcap,
    )
    if not shared:
        return own.reshape(rows, heads, -1)
    # The rows become query positions too: the shared keys and values are read once.
    q_1GMD = q_HBD.reshape(1, kv_heads, repeat * rows, dim)
    common, lse_common = attend(q_1GMD, keys[:1, :, :shared], values[:1, :, :shared], None, scale, softcap)
    weight = torch.sigmoid(lse_common.view(kv_heads, repeat, rows).permute(2, 0, 1) - lse)[..., None]
    common = common.reshape(kv_heads, repeat, rows, -1).permute(2, 0, 1, 3)
    return torch.lerp(own, common, weight.to(own.dtype)).reshape(rows, heads, -1)


def _prefill(
    p: Pass,
    s: Segment,
    q_HND: Tensor,
    k_HTD: Tensor,
    v_HTD: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """[N, query heads, dim] for the N new tokens of one row, over its T = cached + N positions."""
    new, total = q_HND.shape[1], k_HTD.shape[1]
    if window is not None and total <= window:
        window = None
    grouped = q_HND.shape[0] != k_HTD.shape[0]
    if softcap is not None:
        repeat = q_HND.shape[0] // k_HTD.shape[0]
        k, v = k_HTD.repeat_interleave(repeat, 0), v_HTD.repeat_interleave(repeat, 0)
        mask = p.prefill_mask(s.cached, new, window, q_HND)
        return attend(q_HND[None], k[None], v[None], mask, scale, softcap)[0][0].transpose(0, 1)
    causal = s.cached == 0 and window is None
    unmasked = causal or (new == 1 and window is None)
    out = F.scaled_dot_product_attention(
        q_HND[None],
        k_HTD[None],
        v_HTD[None],
        attn_mask=None if unmasked else p.prefill_mask(s.cached, new, window, q_HND),
        is_causal=causal,
        scale=scale,
        enable_gqa=grouped,
    )
    return out[0].transpose(0, 1)


def attend_packed(
    p: Pass,
    layer: int,
    q_HND: Tensor,
    k_HND: Tensor,
    v_HND: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """[N, heads, dim] for the N tokens of a pass, in one layer; their keys and values go into the cache."""
    parts: list[Tensor] = []
    rows = p.lengths_B.shape[0]
    if p.cache is not None:
        keys, values = p.cache.layer(layer, k_HND, v_HND)
        _store(keys, p.places(keys), k_HND)
        _store(values, p.places(values), v_HND)
        if rows:
            parts.append(_decode(p, q_HND[:, :rows], keys, values, scale, window, softcap))
    for s in p.segments:
        if s.cached:
            total = s.cached + s.end - s.start
            k, v = keys[s.slot, :, :total], values[s.slot, :, :total]
        else:
            k, v = k_HND[:, s.start : s.end], v_HND[:, s.start : s.end]
        parts.append(_prefill(p, s, q_HND[:, s.start : s.end], k, v, scale, window, softcap))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _store(store_SHPD: Tensor, places_M: Tensor, new_HND: Tensor) -> None:
    dim = store_SHPD.shape[-1]
    store_SHPD.view(-1, dim).index_copy_(0, places_M, new_HND.transpose(0, 1).reshape(-1, dim))


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The function transformers calls in every layer: q [1, heads, N, dim] -> [1, N, heads, dim]."""
    p: Pass = _ACTIVE.current
    if s_aux is not None:
        raise NotImplementedError("attention sinks")
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend_packed(p, layer, query[0], key[0], value[0], scale, sliding_window, softcap)[None], None


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attention)
