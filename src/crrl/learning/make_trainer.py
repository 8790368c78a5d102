"""How a trainer is put together: what TRL is told of a recipe, the loss, and the reference policy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig

from crrl.conf.schema import Config
from crrl.engines.fingerprint import fingerprint
from crrl.engines.load import load_model
from crrl.errors import CrrlError
from crrl.learning import checkpoint, losses, older_checkpoint, trainer_state
from crrl.learning.losses import Loss, TrlLoss
from crrl.learning.precision import weights_dtype
from crrl.learning.ranks import ALONE, Ranks
from crrl.learning.sharding import PROMPTS, zero3_of
from crrl.learning.source import StepBatch
from crrl.learning.trainer import RepairTrainer, Resting, StepHook
from crrl.models import model_folder


def _silent(*_: object) -> None:
    pass


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    folder: Path,
    source: Callable[[int], StepBatch],
    on_step: StepHook,
    resume_from: Path | None = None,
    resting: Resting = nullcontext,
    note: Callable[[str], None] = _silent,
    updating: Callable[[int, int], None] = _silent,
    ranks: Ranks = ALONE,
    ready: Callable[[], None] = _silent,
) -> RepairTrainer:
    """A trainer that changes the weights of `model` in place.

    Args:
        folder: the run's; checkpoints go to `folder/checkpoints/step-N` after N updates.
        source: returns the rows of step k (0-based); may wait for rollouts.
        on_step: called with (k, metrics) after the update of step k and before its checkpoint.
        resume_from: a checkpoint folder; `model` must hold its weights.
        resting: entered while a step computes, to pause the engine on the same hardware.
        note: told what a user should know.
        updating: called after each micro-batch, with how many are done and how many there are.
        ranks: those that train. `source`, `on_step`, `resting`, `note`, `updating` and `ready` are rank 0's.
        ready: called before the first step, when `model` is as it is trained (under ZeRO-3 it cannot compute before).

    Raises:
        CrrlError: the checkpoint is damaged, or has no trainer state.
    """
    trainer, objective = config.trainer, config.objective
    if resume_from is None:
        first, step = fingerprint(model_folder(config.model.path)), 0
    else:  # where the first policy was a moved adapter's base, it need not be there
        known = checkpoint.verify(resume_from)
        trainer_state.require(known, ranks.size if config.launch.name == "zero3" else 0)
        first, step = known.policy, known.step
    loss = losses.make(objective)
    reference = None
    if objective.beta and not hasattr(model, "peft_config"):
        reloaded = resume_from is not None and not objective.every
        reference = _first_policy(config, first) if reloaded else deepcopy(model)
    made = RepairTrainer(
        config=config,
        folder=folder,
        first=first,
        begin=step,
        resume_from=resume_from,
        source=source,
        on_step=on_step,
        resting=resting,
        loss=loss,
        note=note,
        updating=updating,
        ranks=ranks,
        ready=ready,
        model=model,
        processing_class=tokenizer,
        reward_funcs=never,
        args=arguments(config, folder, loss),
        # One dummy row per step and rank: the loop needs a dataset, and stops at its end.
        train_dataset=Dataset.from_dict({"prompt": [""] * max(trainer.max_steps, 1) * ranks.size}),
    )
    made.remove_callback(PrinterCallback)
    if objective.beta:
        made.use_reference(reference, resume_from)
    return made


def _first_policy(config: Config, first: str) -> PreTrainedModel:
    """Raises CrrlError: `model.path` is no longer what the run began with."""
    folder = model_folder(config.model.path)
    found = load_model(folder, dtype=weights_dtype(config.trainer))
    if first not in (now := fingerprint(folder), older_checkpoint.fingerprint(found)):
        raise CrrlError(
            f"objective.beta={config.objective.beta} needs the run's first policy, {first}, as the reference; "
            f"{folder} has another one now, {now}.",
            "Put the first policy back there, or begin a new run from the checkpoint: crrl train RECIPE "
            "model.path=CHECKPOINT",
        )
    return found


def never(**_: Any) -> list[float | None]:
    """The reward function that TRL asks for."""
    raise AssertionError("rewards come with the rows")


def arguments(config: Config, folder: Path, loss: Loss | TrlLoss) -> GRPOConfig:
    """What TRL is told of a recipe."""
    trainer, objective = config.trainer, config.objective
    return GRPOConfig(
        output_dir=str(folder),
        seed=config.seed,
        max_steps=trainer.max_steps,
        learning_rate=trainer.learning_rate,
        loss_type=loss.loss_type if isinstance(loss, TrlLoss) else "dr_grpo",  # unused by a plug-in: see _compute_loss
        importance_sampling_level=objective.level,
        epsilon=objective.clip,
        # In TRL's cispo: the bound of the ratio itself.
        epsilon_high=(objective.clip_high or objective.clip) + (1.0 if objective.loss == "cispo" else 0.0),
        max_completion_length=objective.length_normaliser,  # in TRL's dr_grpo: the constant that sums are divided by
        temperature=config.rollout.temperature,
        max_grad_norm=trainer.max_grad_norm,
        beta=0.0,  # see LossTrainer.use_reference
        # The estimator is k3 times the importance ratio: its gradient is that of the reverse KL (arXiv:2512.02556).
        use_bias_correction_kl=True,
        disable_dropout=True,
        activation_checkpointing=trainer.gradient_checkpointing,
        # One dummy prompt with two "generations" makes one iteration of the loop, and one update.
        per_device_train_batch_size=PROMPTS,
        num_generations=2,
        gradient_accumulation_steps=1,
        use_cpu=not torch.cuda.is_available(),
        deepspeed=zero3_of(trainer) if config.launch.name == "zero3" else None,
        bf16=trainer.dtype == "mixed",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
