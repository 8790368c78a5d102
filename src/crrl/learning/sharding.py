"""ZeRO-3 (arXiv:1910.02054): every rank holds a part of weights, gradients and moments, DeepSpeed's way.

The settings are whole, none "auto": what `--dry-run` prints is what DeepSpeed is told, and a model can be loaded in
shards before the trainer is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from crrl.conf.schema import Config, Trainer
from crrl.errors import CrrlError
from crrl.learning import lora, precision
from crrl.learning.ranks import Ranks

PROMPTS = 2
"""Dummy prompts of one rank's step (`make_trainer.arguments`): DeepSpeed wants to know, and does nothing with it."""

KEPT_WHOLE = 10_000
"""Numbers of a parameter up to which every rank keeps it: norms."""


def zero3_of(trainer: Trainer) -> dict[str, Any]:
    """DeepSpeed's settings."""
    return {
        "zero_optimization": {
            "stage": 3,
            "contiguous_gradients": True,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": KEPT_WHOLE,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "train_micro_batch_size_per_gpu": PROMPTS,
        "gradient_accumulation_steps": 1,  # the trainer says which micro-batch is the last one
        "gradient_clipping": trainer.max_grad_norm,
        "bf16": {"enabled": trainer.dtype == "mixed"},
        "zero_allow_untested_optimizer": True,  # torch's AdamW, as with one process
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


def load(config: Config, source: Path, ranks: Ranks) -> PreTrainedModel:
    """The model that is trained, under ZeRO-3 in shards: all ranks load it together. Raises UsageError, CrrlError."""
    kept = failed = None
    if config.launch.name == "zero3":
        import deepspeed
        from transformers.integrations import HfDeepSpeedConfig

        # Between CPUs gloo will do. DeepSpeed would compile an extension of its own, for minutes, where there is g++.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)  # takes the group that there is
        # As long as it lives, transformers shards what it loads; the engine's model must not be.
        kept = HfDeepSpeedConfig({**zero3_of(config.trainer), "train_batch_size": PROMPTS * ranks.size})
    dtype = precision.weights_dtype(config.trainer)
    try:
        model = lora.trainable(source, config.adapter, config.seed, dtype=dtype, base=config.model.base)
    except CrrlError as error:
        failed = error
    del kept
    ranks.together(failed)
    if config.launch.name == "zero3" and config.trainer.dtype == "mixed":
        for parameter in model.parameters():
            if not hasattr(parameter, "ds_id"):  # a new adapter's: DeepSpeed wants all as they are in the passes
                parameter.data = parameter.data.to(torch.bfloat16)
    return model
