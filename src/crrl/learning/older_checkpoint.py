"""Checkpoints of before November 2026 (schema 1) in today's form: the trainer's state was in one file, `trainer.pt`.

The weights, the optimizer and the schedule stay as they are. Of random numbers only torch's were kept; training draws
none.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from crrl.errors import CrrlError
from crrl.learning import checkpoint

STATE = "trainer.pt"


def is_older(path: Path) -> bool:
    return int(json.loads((path / checkpoint.MANIFEST).read_text())["schema"]) < checkpoint.SCHEMA


def rewrite(path: Path) -> None:
    """Replaces an older checkpoint by the same one in today's form. Raises CrrlError: it has no trainer's state."""
    found = checkpoint.verify(path)
    state = _read(path / STATE)

    def fill(folder: Path) -> None:
        ours = {STATE, checkpoint.MANIFEST}
        shutil.copytree(path, folder, dirs_exist_ok=True, ignore=lambda _, names: ours & set(names))
        torch.save(state["optimizer"], folder / OPTIMIZER_NAME)
        torch.save(state["scheduler"], folder / SCHEDULER_NAME)
        numbers = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": state["rng"]}
        if torch.cuda.is_available():
            numbers["cuda"] = torch.cuda.random.get_rng_state()
        torch.save(numbers, folder / "rng_state.pth")
        told = TrainerState(global_step=found.step, logging_steps=1, eval_steps=500, save_steps=500, train_batch_size=2)
        told.save_to_json(str(folder / TRAINER_STATE_NAME))

    everything = len(checkpoint.checkpoints(path.parent))
    checkpoint.write(path.parent, found.step, found.policy, everything, fill)


def fingerprint(model: nn.Module) -> str:
    """As runs of that time have it of their first policy."""
    h = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        h.update(f"{name} {tuple(tensor.shape)} ".encode())
        h.update(tensor.detach().flatten()[:64].to("cpu", torch.float32).numpy().tobytes())
    return h.hexdigest()


def _read(file: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CrrlError(
            f"{file} is not readable as trainer state ({type(error).__name__}).",
            f"To start from the weights alone: crrl train RECIPE model.path={file.parent}",
        ) from error
    return state
