"""A policy written for other programs: whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch

from crrl.engines import adapter
from crrl.engines.load import load_model, tokenizer_folder
from crrl.errors import CrrlError
from crrl.learning import checkpoint

OF_THE_TRAINER = (
    *("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json", checkpoint.MANIFEST),
    *("global_step*", "latest", "zero_to_fp32.py", "reference"),
)


def export(source: Path, out: Path, *, merged: bool, base: str = "") -> None:
    """Writes `out`: the model or adapter in `source`, or with `merged` the adapter merged into its base.

    Raises:
        CrrlError: a file is damaged, the base is not there or another, or the disk is full.
    """
    if (source / checkpoint.MANIFEST).is_file():
        checkpoint.verify(source)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if merged:
            _merge(source, partial, base)
        else:
            shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*OF_THE_TRAINER))
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _merge(source: Path, partial: Path, base: str) -> None:
    """W + delta in float32, then in the dtype of the base."""
    on = adapter.base_folder(source, base)
    load_model(source, base=base).to(_dtype(on)).save_pretrained(partial)  # type: ignore[arg-type]
    tokens = tokenizer_folder(source, base)
    for file in tokens.iterdir():
        name = file.name
        if name.startswith(("tokenizer", "chat_template", "special_tokens", "vocab", "merges", "added_tokens")):
            shutil.copy2(file, partial / name)


def _dtype(folder: Path) -> torch.dtype:
    config = json.loads((folder / "config.json").read_text())
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise CrrlError(
            f"{folder / 'config.json'}: dtype {name} does not exist.", "Write float32, bfloat16 or float16."
        )
    return found
