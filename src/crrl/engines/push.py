"""New weights for a module that is serving: checks all names and shapes before it changes anything.

`stage` reads a source into buffers while decoding goes on; `swap` copies the buffers in, between two decode steps.
The probe sequence that proves a push (DESIGN, invariant 7) is `probe_ids`.
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


def _own(module: nn.Module) -> dict[str, Tensor]:
    return module.state_dict(keep_vars=False)


def stage(module: nn.Module, source: WeightSource) -> list[tuple[Tensor, Tensor]]:
    """(own tensor, buffered new values) for every tensor of the source.

    Raises:
        CrrlError: a name is unknown or missing, a shape differs, or a value is not finite; nothing was changed.
    """
    own = _own(module)
    staged: list[tuple[Tensor, Tensor]] = []
    seen: set[int] = set()
    wrong: list[str] = []
    for name, tensor in source.tensors():
        target = own.get(name)
        if target is None:
            wrong.append(f"{name}: the engine's model has no such tensor")
        elif target.shape != tensor.shape:
            wrong.append(f"{name}: shape {tuple(tensor.shape)}, the engine's is {tuple(target.shape)}")
        else:
            seen.add(target.data_ptr())
            if not torch.isfinite(tensor).all():
                wrong.append(f"{name}: holds NaN or infinity")
            else:
                staged.append((target, tensor.detach().to(target.device, target.dtype, copy=True)))
    # Tied tensors share storage: one of the names is enough.
    wrong += [f"{name}: missing" for name, tensor in own.items() if tensor.data_ptr() not in seen]
    if wrong:
        raise CrrlError(
            "The pushed weights do not fit the engine's model, which keeps serving the old ones: "
            + "; ".join(wrong[:8]),
            "Push the same architecture, with Hugging Face state-dict names and adapters merged.",
        )
    return staged


def swap(staged: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for target, new in staged:
            target.copy_(new)
