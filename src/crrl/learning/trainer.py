"""The trainer: TRL's `GRPOTrainer`, fed with rows of recorded tokens instead of its own generations.

The losses, the head and the loop are TRL's; the rows, the micro-batches, how they reach the loss (`trl_loss.py`) and
the checkpoints are ours. A step without rows changes no weight.

The loss is a mean over all scored episodes of the step, those of groups without spread included, so that a step's
gradient does not grow as more groups agree. For `dr_grpo` (arXiv:2503.20783, eq. 2) and on-policy rows:

    loss = - sum over rows of weight * advantage * sum over trained tokens of log p  /  (episodes * length_normaliser)
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import TrainOutput
from trl import GRPOConfig

from crrl.conf.schema import Config
from crrl.engines.load import load_model
from crrl.errors import CrrlError
from crrl.learning import checkpoint, losses
from crrl.learning.batches import MicroBatch, micro_batches
from crrl.learning.losses import Loss, TrlLoss
from crrl.learning.precision import make_optimizer, weights_dtype
from crrl.learning.schedule import make_schedule
from crrl.learning.source import StepBatch
from crrl.learning.trl_loss import LossTrainer
from crrl.models import model_folder

StepHook = Callable[[int, dict[str, float]], None]
Resting = Callable[[], AbstractContextManager[None]]
"""`engines.api.Weights.resting`."""
STATE = "trainer.pt"


class TrainingError(CrrlError):
    """The loss or the gradient is not a number. The weights are those of the previous step."""


class RepairTrainer(LossTrainer):
    """Made by `make_trainer`. `train()` runs from the first step not yet taken to `trainer.max_steps`.

    For every step k (0-based): gets rows from `source(k)`, updates the weights, calls `on_step(k, metrics)`, and, if
    one is due, writes a checkpoint of k + 1 steps.
    """

    def __init__(
        self,
        *,
        config: Config,
        folder: Path,
        first: str,
        begin: int,
        source: Callable[[int], StepBatch],
        on_step: StepHook,
        resting: Resting,
        loss: Loss | TrlLoss,
        note: Callable[[str], None],
        updating: Callable[[int, int], None],
        **kwargs: Any,
    ) -> None:
        self._config, self._folder, self._first, self._begin = config, folder, first, begin
        self._source, self._on_step, self._resting, self._updating = source, on_step, resting, updating
        self._taken: dict[str, float] = {}
        super().__init__(loss=loss, note=note, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        if self._begin >= self._config.trainer.max_steps:  # the loop would take a step before it looks
            return TrainOutput(self._begin, 0.0, {})
        return super().train(*args, **kwargs)

    # One step -----------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Rows, and all micro-batches of one step, backward included: TRL's gradient accumulation needs a fixed number
        of them. `inputs` is the dummy dataset's."""
        model.train()
        batch = self._source(self.state.global_step)
        with self._resting():
            micros = self._micro_batches(batch)
            losses = []
            for done, micro in enumerate(micros, 1):
                losses.append(self._micro_step(model, micro))
                self._updating(done, len(micros))
        loss = torch.stack(losses).sum() if losses else torch.zeros((), device=self.accelerator.device)
        self._require_finite("loss", loss)
        self._step += 1
        rows = [row for micro in micros for row in micro.rows]
        self._taken = {
            **batch.metrics,
            **self._collected(micros),
            "loss": loss.item(),
            "rows": float(len(rows)),
            "trained_tokens": float(sum(sum(row.loss_mask[1:]) for row in rows)),
            "row_tokens": float(sum(len(row.ids) for row in rows)),
            "computed_tokens": float(sum(micro.tokens for micro in micros)),
            "skipped": float(not rows),
        }
        return loss

    def _micro_batches(self, batch: StepBatch) -> list[MicroBatch]:
        if self._sharing is None:
            self._sharing = self._share()
        mean, budget = self._policy_loss.mean, self._config.trainer.tokens_per_micro_batch
        return micro_batches(batch.rows, mean, batch.episodes, budget, sharing=self._sharing)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self._require_finite("gradient norm", torch.as_tensor(norm))
        return norm

    def _require_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"The {what} of step {self.state.global_step} is {value.item()}; the weights were not changed.",
                "Lower trainer.learning_rate (and look at the rewards), then resume from the last checkpoint.",
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The loop calls this once after each update, when the step is over."""
        if "learning_rate" not in logs:  # the loop's closing totals
            return
        for name in ("grad_norm", "learning_rate"):
            self._taken[name] = float(logs.get(name, 0.0))
        taken = self.state.global_step
        self._on_step(taken - 1, self._taken)
        trainer = self._config.trainer
        if taken % trainer.save_steps == 0 or taken == trainer.max_steps:
            self._write_checkpoint(taken)

    # Checkpoints --------------------------------------------------------------------------------------------

    def _write_checkpoint(self, step: int) -> None:
        optimizer, scheduler = self.optimizer, self.lr_scheduler
        assert optimizer is not None and scheduler is not None, "train() makes them"

        def fill(folder: Path) -> None:
            self.policy.save_pretrained(folder)
            self._tokenizer.save_pretrained(folder)
            state = {
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "rng": torch.get_rng_state(),
            }
            with open(folder / STATE, "wb") as file:  # given a path, torch would not report a full disk
                torch.save(state, file)

        checkpoint.write(self._folder / "checkpoints", step, self._first, self._config.trainer.keep_checkpoints, fill)


def _silent(*_: object) -> None:
    pass


class _BeginAt(TrainerCallback):
    """The loop's resume reads files of its own; ours needs only the step number."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.global_step = self._step


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

    Raises:
        CrrlError: the checkpoint is damaged, or has no trainer state.
    """
    trainer, objective = config.trainer, config.objective
    optimizer = make_optimizer(model, trainer)
    scheduler = make_schedule(optimizer, trainer)
    first, step = checkpoint.fingerprint(model), 0
    if resume_from is not None:
        known = checkpoint.verify(resume_from)
        first, step = known.policy, known.step
        state = _read_state(resume_from / STATE)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    loss = losses.make(objective)
    reference = None
    if objective.beta:
        reference = deepcopy(model) if resume_from is None else _first_policy(config, first)
    made = RepairTrainer(
        config=config,
        folder=folder,
        first=first,
        begin=step,
        source=source,
        on_step=on_step,
        resting=resting,
        loss=loss,
        note=note,
        updating=updating,
        model=model,
        processing_class=tokenizer,
        reward_funcs=never,
        args=arguments(config, folder, loss),
        # One dummy row per step: the loop needs a dataset, and stops at its end.
        train_dataset=Dataset.from_dict({"prompt": [""] * max(trainer.max_steps, 1)}),
        optimizers=(optimizer, scheduler),
        callbacks=[_BeginAt(step)],
    )
    made.remove_callback(PrinterCallback)
    if reference is not None:
        made.use_reference(reference, objective.beta)
    if resume_from is not None:
        torch.set_rng_state(state["rng"])
    return made


def _first_policy(config: Config, first: str) -> PreTrainedModel:
    """Raises CrrlError: `model.path` is no longer what the run began with."""
    folder = model_folder(config.model.path)
    found = load_model(folder, dtype=weights_dtype(config.trainer))
    if (now := checkpoint.fingerprint(found)) != first:
        raise CrrlError(
            f"objective.beta={config.objective.beta} needs the run's first policy, {first}, as the reference; "
            f"{folder} has another one now, {now}.",
            "Put the first policy back there, or begin a new run from the checkpoint: crrl train RECIPE "
            "model.path=CHECKPOINT",
        )
    return found


def _read_state(file: Path) -> dict[str, Any]:
    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CrrlError(
            f"{file} is not readable as trainer state ({type(error).__name__}).",
            f"To start from the weights alone: crrl train RECIPE model.path={file.parent}",
        ) from error


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
        epsilon=objective.clip,
        max_completion_length=objective.length_normaliser,  # in TRL's dr_grpo: the constant that sums are divided by
        temperature=config.rollout.temperature,
        max_grad_norm=trainer.max_grad_norm,
        beta=0.0,  # see use_reference
        # The estimator is k3 times the importance ratio: its gradient is that of the reverse KL (arXiv:2512.02556).
        use_bias_correction_kl=True,
        disable_dropout=True,
        activation_checkpointing=trainer.gradient_checkpointing,
        # One dummy prompt with two "generations" makes one iteration of the loop, and one update.
        per_device_train_batch_size=2,
        num_generations=2,
        gradient_accumulation_steps=1,
        use_cpu=not torch.cuda.is_available(),
        bf16=trainer.dtype == "mixed",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
