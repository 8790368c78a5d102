"""What a checkpoint holds of the trainer: Hugging Face's own files, so that each kind of run (one process, DDP, ZeRO,
with an adapter or without) is saved and resumed as `transformers.Trainer` does it.

| file | what |
|---|---|
| `model.safetensors` (an adapter: `adapter_model.safetensors`, `base.json`) | the policy (and what it stands on) |
| `optimizer.pt`, `scheduler.pt` (ZeRO: `global_stepN/`) | moments, learning rate |
| `rng_state.pth` (`rng_state_RANK.pth`) | random numbers: Python, NumPy, torch, CUDA |
| `trainer_state.json` | the step |
"""

from __future__ import annotations

from pathlib import Path

from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME, TRAINING_ARGS_NAME

from crrl.engines import adapter
from crrl.errors import CrrlError
from crrl.learning.checkpoint import Checkpoint

SHARDS = "global_step"  # DeepSpeed's folders begin so


def save(trainer: Trainer, folder: Path, base: adapter.Base | None) -> None:
    """On all ranks together. `folder` is there. `base`: of an adapter."""
    to = str(folder)
    trainer.save_model(to, _internal_call=True)
    trainer._save_optimizer_and_scheduler(to)
    trainer._save_scaler(to)
    trainer._save_rng_state(to)
    if not trainer.args.should_save:
        return
    if base is not None:
        base.write(folder)
    trainer.state.save_to_json(str(folder / TRAINER_STATE_NAME))
    # Pickled settings, which loading would run as code, and PEFT's card with nothing filled in.
    for name in (TRAINING_ARGS_NAME, "README.md"):
        (folder / name).unlink(missing_ok=True)


def require(found: Checkpoint, zero3: int = 0) -> None:
    """Raises CrrlError: a trainer cannot go on from this checkpoint. `zero3`: the number of ranks that hold its shards;
    0: it is not sharded, and may have been written by any number of ranks."""
    path = found.path
    sharded = any(path.glob(f"{SHARDS}*"))
    wanted = [TRAINER_STATE_NAME, *([] if sharded else [OPTIMIZER_NAME, SCHEDULER_NAME])]
    alone = f"To start from the weights alone: crrl train RECIPE model.path={path}"
    if missing := [name for name in wanted if not (path / name).is_file()]:
        raise CrrlError(f"{path} has no state of a trainer: {', '.join(missing)}.", alone)
    if sharded and zero3 != found.ranks:
        raise CrrlError(
            f"{path} has the shards of {found.ranks} processes (launch=zero3), and they fit no other number.",
            f"Write launch=zero3 launch.processes={found.ranks}. {alone}",
        )
    if zero3 and not sharded:
        raise CrrlError(
            f"{path} was not written by launch=zero3, and its optimizer's state cannot be divided into shards.",
            f"Write launch=local, or launch=ddp with any number of processes. {alone}",
        )
