"""The engine's own module, run through our attention; and the proof, at start, that this gives the model's logits.

Any causal model works whose layers each call transformers' attention interface once. Others (state-space and
linear-attention layers, layers that share or skip keys and values, chunked attention, sinks) are refused with the
reason: from the configuration if it says so, else by comparison with the model's own plain forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from crrl.engines.api import WeightSource
from crrl.engines.local.attention import IMPLEMENTATION, KVCache, Pass, Segment
from crrl.engines.local.fused import FusedModel
from crrl.errors import CrrlError

_SERVED_LAYERS = {"full_attention", "sliding_attention"}


class Runner:
    """Owns the module and the KV cache; used from one thread.

    Args:
        model: becomes the engine's own: it is put in eval mode, frozen, moved, and its attention replaced.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
        module: Any = model  # transformers wraps `to` in a way mypy cannot follow
        self.model: PreTrainedModel = module.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.device = device
        self.cache = KVCache()
        self.fused: FusedModel | None = None
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self._prove()

    def forward(
        self,
        tokens: Sequence[int],
        decode_lengths: Sequence[int],
        shared: int,
        segments: list[Segment],
        *,
        keep: Sequence[int],
        store: bool = True,
    ) -> Tensor:
        """Logits [len(keep), vocab] of the packed tokens at the indices `keep`.

        Tokens are one per decoding row (slots 0.., written at `decode_lengths`), then those of the segments.
        """
        rows = len(decode_lengths)
        slots = np.empty(len(tokens), np.int64)
        positions = np.empty(len(tokens), np.int64)
        slots[:rows] = np.arange(rows)
        positions[:rows] = decode_lengths
        for s in segments:
            slots[s.start : s.end] = s.slot
            positions[s.start : s.end] = np.arange(s.cached, s.cached + s.end - s.start)
        positions_N = self._tensor(positions)
        if store and len(tokens):
            self.cache.reserve(int(slots.max()) + 1, int(positions.max()) + 1)
        longest = int(positions[:rows].max()) + 1 if rows else 0
        with Pass(
            cache=self.cache if store else None,
            lengths_B=positions_N[:rows],
            longest=longest,
            shared=shared,
            segments=segments,
            slots_N=self._tensor(slots),
            positions_N=positions_N,
        ) as p:
            ids_N = self._tensor(np.asarray(tokens, np.int64))
            keep_M = None if len(keep) == len(tokens) else self._tensor(np.asarray(keep, np.int64))
            if self.fused is not None:
                return self.fused.forward(p, ids_N, int(positions.max()) + 1, keep_M)
            return self.model(
                input_ids=ids_N[None],
                position_ids=positions_N[None],
                use_cache=False,
                logits_to_keep=0 if keep_M is None else keep_M,
            ).logits[0]

    def load(self, source: WeightSource) -> None:
        """Put new weights where the old ones are, one tensor at a time. They have been checked (`push.check`)."""
        own = self.model.state_dict()
        with torch.no_grad():
            for name, tensor in source.tensors():
                if self.fused is None or not self.fused.take(name, tensor):
                    own[name].copy_(tensor)
            if self.fused is not None:
                self.fused.settle()

    def score(self, ids: Sequence[int]) -> list[float]:
        """log p(ids[i] | ids[:i]) at T = 1, i >= 1, without touching the cache."""
        if len(ids) < 2:
            return []
        segment = Segment(0, len(ids), 0, 0)
        logits_TV = self.forward(ids, [], 0, [segment], keep=range(len(ids) - 1), store=False)
        logprobs_TV = torch.log_softmax(logits_TV.float(), -1)
        return logprobs_TV.gather(1, self._tensor(np.asarray(ids[1:], np.int64))[:, None])[:, 0].tolist()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _prove(self) -> None:
        """Compare a prefill in two parts and a cascade decode of two rows with the model's plain forward."""
        name = type(self.model).__name__
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ()) - _SERVED_LAYERS
        reason = ""
        if kinds:
            names = ", ".join(sorted(kinds))
            reason = f"it has layers of kind {names}, which keep another state than keys and values"
        elif getattr(config, "attention_chunk_size", None):
            reason = "its attention is chunked"
        elif getattr(config, "num_kv_shared_layers", 0):
            reason = "its layers share keys and values"
        if not reason:
            plain_TV = self._plain()
            self.fused = FusedModel.of(self.model)
            reason = self._difference(plain_TV, config.num_hidden_layers)
            if reason and self.fused is not None:
                self.fused.unpack()
                self.fused = None
                reason = self._difference(plain_TV, config.num_hidden_layers)
        if reason:
            raise CrrlError(
                f"The local engine cannot serve {name}: {reason}.",
                "Serve this model with vLLM (engine=vllm), or choose a decoder with plain or sliding-window attention.",
            )

    def _ids(self) -> list[int]:
        return [(31 * i + 7) % self.vocab_size for i in range(24)]

    @torch.inference_mode()
    def _plain(self) -> Tensor:
        """Logits of the model's own forward pass, which the fused one leaves without weights."""
        self.model.set_attn_implementation("eager")
        logits_TV: Tensor = self.model(self._tensor(np.asarray(self._ids()))[None], use_cache=False).logits[0].float()
        self.model.set_attn_implementation(IMPLEMENTATION)
        return logits_TV

    @torch.inference_mode()
    def _difference(self, plain_TV: Tensor, layers: int) -> str:
        ids = self._ids()
        try:
            self.forward(ids[:10], [], 0, [Segment(0, 10, 0, 0)], keep=[9])
            second = self.forward(ids[10:23], [], 0, [Segment(0, 13, 0, 10)], keep=[12])
            if set(self.cache.keys) != set(range(layers)):
                used = len(self.cache.keys)
                return f"only {used} of its {layers} layers use transformers' attention interface"
            self.cache.copy(0, 1, 23)
            last = self.forward([ids[23]] * 2, [23, 23], 16, [], keep=[0, 1])
        except (RuntimeError, NotImplementedError, TypeError, AttributeError) as e:
            return f"its attention does not fit our cache ({type(e).__name__}: {e})"
        finally:
            self.cache.drop()
        ours = torch.cat([second.float(), last.float()])
        difference = (ours - plain_TV[[22, 23, 23]]).abs().max().item()
        # Half-precision models differ by rounding; a wrong cache differs by the size of the logits
        # themselves.
        scale = plain_TV.abs().max().item()
        bound = (1e-3 if plain_TV.dtype == self.model.dtype else 0.1) * max(1.0, scale)
        if not difference <= bound:
            return f"its logits through our cache differ from its own forward pass by {difference:.2g}"
        return ""
