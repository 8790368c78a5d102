"""The forward pass of Llama-shaped models (Llama, Mistral, Qwen2, Qwen3) written out, for fewer and larger operations.

A decode step of a small model is mostly call overhead and small matrix products. Here q, k and v are one product, gate
and up another; every product keeps its matrix in the layout that is fastest for few tokens; and nothing stands between
the operations but this file. These matrices are the only copy: the module's own are views of them, or empty where the
layout is opaque, so that its own `forward` no longer works. Only a head that is tied to the embedding is held twice, on
a CPU. New weights go in one tensor at a time (`take`, then `settle`); a push then scores the probe, which proves them
(invariant 7).

Any other model runs through its own `forward` (`runner`), and so does one of these if its logits here differ from those
of its plain forward pass at start: `unpack` gives the module its weights back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from crrl.engines.heap import give_back
from crrl.engines.local.attention import Pass, attend_packed

_FAMILY = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}
"""Rotary angles of these kinds depend on the position alone, not on how long the longest sequence is."""


_PACK_FROM = 2**17
"""Elements of a matrix from which oneDNN's packed product beats MKL's on a CPU, its higher cost per call included."""


_GIVE_BACK_FROM = 2**20
"""Elements from which freed memory is worth a walk through the heap."""


def _freed(elements: int) -> None:
    if elements >= _GIVE_BACK_FROM:
        give_back()


class _Product:
    """x [N, in] -> [N, out] for one linear, or for several of the same input side by side.

    Takes the linears' weights over: theirs become views of ours, or, where ours are packed, tensors on `meta` that keep
    name, shape and type. `tied`: the weight is the embedding's, too, so the linear keeps it and we have a copy.
    """

    def __init__(self, *linears: nn.Linear, tied: bool = False) -> None:
        self.linears = linears
        self._tied = tied
        self._rows = [linear.out_features for linear in linears]
        self._new: dict[nn.Linear, Tensor] = {}
        biased = [linear for linear in linears if linear.bias is not None]
        self._bias = torch.cat([linear.bias.detach() for linear in biased]) if biased else None
        if self._bias is not None:
            for linear, bias in zip(biased, self._bias.split([len(linear.bias) for linear in biased]), strict=True):
                linear.bias.data = bias
        like = linears[0].weight
        self._on_cpu = like.device.type == "cpu" and like.dtype == torch.float32
        size = sum(linear.weight.numel() for linear in linears)
        self._packed = self._on_cpu and size >= _PACK_FROM and torch.backends.mkldnn.is_available()
        self._lay([linear.weight.detach() for linear in linears])

    def _lay(self, parts: list[Tensor]) -> None:
        weight = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self._packed:  # 64: the number of tokens it is laid out for; good for fewer and for many more
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, 64)
            if not self._tied:
                for linear in self.linears:
                    empty = torch.empty_like(linear.weight, device="meta")
                    linear.weight = nn.Parameter(empty, requires_grad=False)
            return
        self._weight = weight.t().contiguous().t() if self._on_cpu else weight  # on a CPU [in, out] in memory
        if not self._tied:
            for linear, view in zip(self.linears, self._weight.split(self._rows), strict=True):
                linear.weight.data = view

    @property
    def opaque(self) -> bool:
        """Whether the linears' own weights are empty."""
        return self._packed and not self._tied

    def take(self, linear: nn.Linear, weight: Tensor) -> None:
        """New values of a packed linear; laid out when all of its neighbours' have come."""
        # The source may take its tensor back with the next one.
        self._new[linear] = weight.detach().to("cpu", torch.float32, copy=len(self.linears) > 1)
        if len(self._new) == len(self.linears):
            self._lay([self._new.pop(each) for each in self.linears])

    def settle(self) -> None:
        """The embedding that this head is tied to has changed."""
        if self._tied and self._on_cpu:
            del self._weight  # first: it is the largest matrix of most small models
            self._lay([self.linears[0].weight.detach()])

    def unpack(self) -> None:
        """Gives the linears their weights back."""
        if self.opaque:
            for linear, weight in zip(self.linears, self._weight.to_dense().split(self._rows), strict=True):
                linear.weight = nn.Parameter(weight.clone(), requires_grad=False)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
            return y
        return F.linear(x, self._weight, self._bias)


@dataclass(frozen=True)
class _Layer:
    """One decoder layer. `q_norm` and `k_norm` are None but for Qwen3; the norms are the module's own parameters."""

    attention_norm: Tensor
    qkv: _Product
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: _Product
    mlp_norm: Tensor
    gate_up: _Product
    down: _Product
    window: int | None


class FusedModel:
    """`forward` of a served module, with its attention through our cache. Made by `FusedModel.of`."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self._embed: nn.Module = model.model.embed_tokens
        self._head = _Product(model.lm_head, tied=model.lm_head.weight is self._embed.weight)
        self._norm: Tensor = model.model.norm.weight
        self._eps: float = config.rms_norm_eps
        self._rotary: nn.Module = model.model.rotary_emb
        self._rotary_PD: tuple[Tensor, Tensor] | None = None
        first = model.model.layers[0].self_attn
        self._dim: int = first.head_dim
        self._scale: float = first.scaling
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._layers = []
        for layer in model.model.layers:
            self._layers.append(self._layer(layer, config))
            _freed(sum(parameter.numel() for parameter in layer.parameters()))
        products = [p for layer in self._layers for p in (layer.qkv, layer.o, layer.gate_up, layer.down)]
        self._products = [*products, self._head]
        owner = {linear: product for product in self._products for linear in product.linears if product.opaque}
        self._packed = {f"{name}.weight": (owner[m], m) for name, m in model.named_modules() if m in owner}

    @staticmethod
    def of(model: PreTrainedModel) -> FusedModel | None:
        """None: not a model of this shape."""
        config = model.config
        rope = getattr(config, "rope_parameters", None) or {}
        fits = (
            type(model) in _FAMILY
            and config.hidden_act == "silu"
            and rope.get("rope_type") in _FIXED_ROPE
            and rope.get("partial_rotary_factor", 1.0) == 1.0
        )
        return FusedModel(model) if fits else None

    @staticmethod
    def _layer(layer: Any, config: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        # Mistral reads its window from the config, for all layers; Qwen keeps it in the layers that slide.
        everywhere = config.sliding_window if config.model_type == "mistral" else None
        return _Layer(
            attention_norm=layer.input_layernorm.weight,
            qkv=_Product(attention.q_proj, attention.k_proj, attention.v_proj),
            q_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
            k_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
            o=_Product(attention.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight,
            gate_up=_Product(mlp.gate_proj, mlp.up_proj),
            down=_Product(mlp.down_proj),
            window=getattr(attention, "sliding_window", everywhere),
        )

    def take(self, name: str, tensor: Tensor) -> bool:
        """New values of a tensor of the state dict. False: it is an ordinary one of the module, to be copied there."""
        if name not in self._packed:
            return False
        product, linear = self._packed[name]
        product.take(linear, tensor)
        _freed(tensor.numel())
        return True

    def settle(self) -> None:
        """All new values have come."""
        self._head.settle()

    def unpack(self) -> None:
        """Gives the module its weights back; this object is of no use any more."""
        for product in self._products:
            product.unpack()

    def forward(self, p: Pass, ids_N: Tensor, positions: int, keep_M: Tensor | None) -> Tensor:
        """Logits [M, vocab] of the packed tokens `keep_M` (None: of all).

        Args:
            positions: more than the largest position of the pass.
        """
        cos_N1D, sin_N1D = self._angles(p.positions_N, positions)
        heads, kv_heads, dim = self._heads, self._kv_heads, self._dim
        x_NE = self._embed(ids_N)
        for index, layer in enumerate(self._layers):
            h_NE = _rms_norm(x_NE, layer.attention_norm, self._eps)
            qkv_NHD = layer.qkv(h_NE).view(-1, heads + 2 * kv_heads, dim)
            qk_NHD, v_NHD = qkv_NHD.split([heads + kv_heads, kv_heads], 1)
            if layer.q_norm is not None and layer.k_norm is not None:
                q_NHD = _rms_norm(qk_NHD[:, :heads], layer.q_norm, self._eps)
                k_NHD = _rms_norm(qk_NHD[:, heads:], layer.k_norm, self._eps)
                qk_NHD = torch.cat((q_NHD, k_NHD), 1)
            qk_NHD = torch.addcmul(qk_NHD * cos_N1D, qk_NHD.roll(dim // 2, -1), sin_N1D)
            q_HND, k_HND = qk_NHD.transpose(0, 1).split([heads, kv_heads])
            o_NHD = attend_packed(p, index, q_HND, k_HND, v_NHD.transpose(0, 1), self._scale, layer.window, None)
            x_NE = x_NE + layer.o(o_NHD.reshape(len(x_NE), -1))
            h_NE = _rms_norm(x_NE, layer.mlp_norm, self._eps)
            gate_NF, up_NF = layer.gate_up(h_NE).chunk(2, -1)
            x_NE = x_NE + layer.down(F.silu(gate_NF).mul_(up_NF))
        kept_ME = x_NE if keep_M is None else x_NE[keep_M]
        return self._head(_rms_norm(kept_ME, self._norm, self._eps))

    def _angles(self, positions_N: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """cos and sin [N, 1, dim]; sin with the sign of `rotate_half` in it: [-sin, sin] times x rolled by half."""
        if self._rotary_PD is None or len(self._rotary_PD[0]) < positions:
            every_P = torch.arange(max(256, 2 * positions), device=positions_N.device)
            cos_1PD, sin_1PD = self._rotary(self._norm, every_P[None])
            sign_D = torch.ones(self._dim, device=positions_N.device, dtype=sin_1PD.dtype)
            sign_D[: self._dim // 2] = -1
            self._rotary_PD = (cos_1PD[0], sin_1PD[0] * sign_D)
        cos_PD, sin_PD = self._rotary_PD
        return cos_PD[positions_N, None], sin_PD[positions_N, None]


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)
