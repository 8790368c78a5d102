"""What the trainer counts in: `trainer.dtype` and `trainer.optimizer`.

| trainer.dtype | weights, gradients | forward and backward pass |
|---|---|---|
| float32 | float32 | float32 |
| mixed | float32 | bfloat16, by autocast |
| bfloat16 | bfloat16 | bfloat16 |

Invariant: what this machine lacks is refused before anything starts; nothing slower or coarser takes its place.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from crrl.conf.schema import Trainer
from crrl.engines.device import DTYPES, device_of, has_bfloat16
from crrl.errors import UsageError

EIGHT_BITS = ("adamw_8bit", "paged_adamw_8bit")


def require(trainer: Trainer) -> None:
    """Raises UsageError: this machine cannot."""
    device = device_of("auto")
    if trainer.dtype != "float32" and not has_bfloat16(device):
        raise UsageError(
            f"trainer.dtype={trainer.dtype}: this {device.type.upper()} has no bfloat16 instructions, and torch would "
            "emulate them.",
            "Write trainer.dtype=float32.",
        )
    if trainer.optimizer in EIGHT_BITS and device.type != "cuda":
        raise UsageError(
            f"trainer.optimizer={trainer.optimizer} computes on a CUDA GPU, and torch sees none.",
            "Write trainer.optimizer=adamw.",
        )
    if trainer.optimizer in EIGHT_BITS and importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f"trainer.optimizer={trainer.optimizer}: the package bitsandbytes is not installed.",
            'In the checkout of CodeRepairRL: .venv/bin/pip install -c constraints.txt -e ".[bitsandbytes]"',
        )


def weights_dtype(trainer: Trainer) -> torch.dtype:
    return DTYPES.get(trainer.dtype, torch.float32)


def computing(trainer: Trainer) -> AbstractContextManager[Any]:
    """In which a forward pass computes as the trainer's do."""
    return torch.autocast(device_of("auto").type, torch.bfloat16) if trainer.dtype == "mixed" else nullcontext()


def make_optimizer(model: nn.Module, trainer: Trainer) -> torch.optim.Optimizer:
    """Over the weights that are trained."""
    trained = [p for p in model.parameters() if p.requires_grad]
    settings: dict[str, Any] = {
        "lr": trainer.learning_rate,
        "betas": (0.9, trainer.adam_beta2),
        "weight_decay": trainer.weight_decay,
    }
    if trainer.optimizer in EIGHT_BITS:
        from bitsandbytes.optim import AdamW

        made: torch.optim.Optimizer = AdamW(
            trained, **settings, optim_bits=8, is_paged=trainer.optimizer.startswith("paged")
        )
        return made
    return torch.optim.AdamW(trained, **settings)
