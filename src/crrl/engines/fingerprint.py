"""The fingerprint of a policy: the hash of name, shape and first values of every tensor in its folder's safetensors.

It is taken from the files, so that it is the same for every process, also where each holds only a part of the weights
(ZeRO). Cheap at any size: a few values of each tensor are read. An adapter's includes its base's.
"""

from __future__ import annotations

import hashlib
from math import ceil, prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from crrl.errors import CrrlError

VALUES = 64
BASE = "base.json"
"""In an adapter's folder: its base model (`engines.adapter`)."""


def fingerprint(folder: Path) -> str:
    """Raises CrrlError: no weights, or a file that cannot be read."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CrrlError(f"{folder} has no weights (*.safetensors).", "Save the model there with save_pretrained.")
    found: dict[str, bytes] = {}
    for file in files:
        try:
            with safe_open(str(file), "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - no mapping
                    found[name] = _first_values(tensors.get_slice(name), name)
        except (SafetensorError, OSError) as error:
            raise CrrlError(f"{file} is damaged: {error}", "Copy or download it again.") from error
    h = hashlib.blake2b(digest_size=12)
    for name in sorted(found):
        h.update(found[name])
    if (base := folder / BASE).is_file():
        h.update(base.read_bytes())
    return h.hexdigest()


def _first_values(tensor: object, name: str) -> bytes:
    shape = tuple(tensor.get_shape())  # type: ignore[attr-defined]
    if shape:
        rows = ceil(VALUES / max(1, prod(shape[1:])))
        values: torch.Tensor = tensor[:rows]  # type: ignore[index]
    else:
        values = tensor[...]  # type: ignore[index]
    head = values.flatten()[:VALUES].to(torch.float32).numpy().tobytes()
    return f"{name} {shape} ".encode() + head
