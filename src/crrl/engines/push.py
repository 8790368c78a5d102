"""New weights for a module that is serving: checks all names, shapes and values before it changes anything.

`check` reads a source while decoding goes on, and keeps none of it. Then the engine reads it again, between two decode
steps, and puts each tensor where the old one is, so that a push takes no more memory than its largest tensor. The probe
sequence that proves a push (DESIGN, invariant 7) is `probe_ids`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crrl.engines.api import WeightSource
from crrl.errors import CrrlError

PROBE_LENGTH = 64


def probe_ids(vocab_size: int, length: int = PROBE_LENGTH) -> list[int]:
    """The fixed probe sequence of a vocabulary: the trainer scores the same one and compares."""
    return [(7919 * (i + 1) + 104729 * i * i) % vocab_size for i in range(length)]


def check(module: nn.Module, source: WeightSource) -> None:
    """Raises:
    CrrlError: a name is unknown or missing, a shape differs, or a value is not finite.
    """
    own = module.state_dict()
    seen: set[int | str] = set()
    wrong: list[str] = []
    for name, tensor in source.tensors():
        target = own.get(name)
        if target is None:
            wrong.append(f"{name}: the engine's model has no such tensor")
        elif target.shape != tensor.shape:
            wrong.append(f"{name}: shape {tuple(tensor.shape)}, the engine's is {tuple(target.shape)}")
        else:
            seen.add(_storage(name, target))
            if not torch.isfinite(tensor).all():
                wrong.append(f"{name}: holds NaN or infinity")
    wrong += [f"{name}: missing" for name, tensor in own.items() if _storage(name, tensor) not in seen]
    if wrong:
        raise CrrlError(
            "The pushed weights do not fit the engine's model, which keeps serving the old ones: "
            + "; ".join(wrong[:8]),
            "Push the same architecture, with Hugging Face state-dict names and adapters merged.",
        )


def _storage(name: str, tensor: Tensor) -> int | str:
    """Tied tensors share storage: one of the names is enough. Packed ones have none here, and are never tied."""
    return name if tensor.is_meta else tensor.data_ptr()
