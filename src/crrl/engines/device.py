"""Where a model computes, and in which type: the words of `engine.device` and `*.dtype`, and whether this machine can.

Invariant: nothing computes slowly in silence. A device that is not there, or bfloat16 on a processor without
instructions for it (torch would emulate it, several times slower than float32), is refused before anything starts.
"""

from __future__ import annotations

import platform

import torch

from crrl.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device_of(word: str) -> torch.device:
    """`auto`: the first GPU if there is one, as the trainer does. Raises UsageError."""
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(word)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        why = f"torch sees {seen} GPU(s)" if torch.version.cuda else f"torch {torch.__version__} has no CUDA"
        raise UsageError(
            f"engine.device={word}: {why}.",
            "Write engine.device=auto, or use a torch with CUDA: make setup TORCH=system",
        )
    return device


def dtype_of(word: str, device: torch.device, setting: str) -> torch.dtype:
    """`setting`: the key, for the error. Raises UsageError."""
    dtype = DTYPES[word]
    if dtype == torch.bfloat16 and not has_bfloat16(device):
        raise UsageError(
            f"{setting}={word}: {'this GPU' if device.type == 'cuda' else 'this CPU'} has no bfloat16 instructions, "
            "and torch would emulate them.",
            f"Write {setting}=float32.",
        )
    return dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in, not emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() == "x86_64":  # oneDNN calls bfloat16 supported where it has to emulate it, too
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
