"""The trainer: TRL's `GRPOTrainer`, fed with rows of recorded tokens instead of its own generations.

The losses (`_compute_loss`), the head and the loop are TRL's; the rows, the micro-batches, the forest as which they go
through the model (`tree.py`), plug-in losses and the checkpoints are ours. Old log-probs are the sampler's, without
further correction (mode a of the design). A step without rows changes no weight.

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
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from crrl.conf.schema import Config
from crrl.engines.load import load_model
from crrl.errors import CrrlError
from crrl.learning import checkpoint, losses
from crrl.learning.batches import MicroBatch, micro_batches, tensors
from crrl.learning.logprobs import Picked, trained_logprobs, unwrapped
from crrl.learning.losses import Loss, TrlLoss
from crrl.learning.precision import make_optimizer, weights_dtype
from crrl.learning.schedule import make_schedule
from crrl.learning.source import StepBatch
from crrl.learning.tree import Forest, forest
from crrl.learning.tree_attention import IMPLEMENTATION, sharing
from crrl.models import model_folder

StepHook = Callable[[int, dict[str, float]], None]
Resting = Callable[[], AbstractContextManager[None]]
"""`engines.api.Weights.resting`."""
STATE = "trainer.pt"


class TrainingError(CrrlError):
    """The loss or the gradient is not a number. The weights are those of the previous step."""


class RepairTrainer(GRPOTrainer):
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
        self._source, self._on_step, self._resting = source, on_step, resting
        self._policy_loss, self._note, self._updating = loss, note, updating
        self._rows: tuple[Tensor, Forest | None] | None = None
        self._sampled_BT: Tensor | None = None  # the sampler's log-probs of these rows
        self._sharing: bool | None = None
        self._reference: PreTrainedModel | None = None
        self._taken: dict[str, float] = {}
        super().__init__(**kwargs)
        self._picked = {False: Picked(self.policy)}

    @property
    def policy(self) -> PreTrainedModel:
        model: Any = self.model
        return model

    def use_reference(self, reference: PreTrainedModel, beta: float) -> None:
        """Sets a fixed policy for the KL term. TRL itself would load the first policy from a path that it guesses."""
        reference.requires_grad_(False).eval().to(self.accelerator.device)
        add_fused_lm_head(reference, temperature=self.temperature, outputs=("log_probs",))
        self._picked[True] = Picked(reference)
        self._reference, self.beta = reference, beta

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

    def _share(self) -> bool:
        """Whether rows go through the model as a forest; if not, says why."""
        policy = unwrapped(self.policy)
        if reason := sharing(policy):
            self._note(f"Rows are padded, each with its own beginning, because of {type(policy).__name__}: {reason}.")
        elif self._reference is not None:
            self._reference.set_attn_implementation(IMPLEMENTATION)
        return not reason

    def _micro_step(self, model: Any, micro: MicroBatch) -> Tensor:
        device = self.accelerator.device
        inputs = tensors(micro, self._tokenizer.pad_token_id, device)
        packed = None
        if self._sharing:
            packed = forest([row.ids for row in micro.rows], [row.loss_mask for row in micro.rows], device)
        self._rows = torch.cat([torch.zeros_like(inputs["prompt_ids"]), inputs["tool_mask"]], 1), packed
        self._sampled_BT = inputs["old_per_token_logps"]
        if self._reference is not None:
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
            with torch.no_grad():
                logps, _, _ = self._get_per_token_logps_and_entropies(self._reference, ids, mask, ids.shape[1] - 1)
            inputs["ref_per_token_logps"] = logps
        loss = self._compute_loss(model, inputs) * micro.scale
        self.accelerator.backward(loss)
        return loss.detach()

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """TRL's loss, or a plug-in with the same KL and its own mean."""
        if isinstance(self._policy_loss, TrlLoss):
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        logps_BT, entropy_BT, _ = self._get_per_token_logps_and_entropies(model, ids, mask, ids.shape[1] - 1)
        old_BT, trained_BT = inputs["old_per_token_logps"], inputs["tool_mask"]
        loss_BT = self._policy_loss(logps_BT, old_BT, inputs["advantages"].unsqueeze(1), trained_BT)
        assert entropy_BT is not None
        measured = {"entropy": entropy_BT}
        if self.beta:
            behind = inputs["ref_per_token_logps"] - logps_BT
            measured["kl"] = (torch.exp(behind) - behind - 1) * torch.exp(logps_BT - old_BT)
            loss_BT = loss_BT + self.beta * measured["kl"]
        kept = trained_BT.bool()
        for name, value_BT in measured.items():
            self._metrics["train"][name].append(value_BT[kept].mean().item())
        per_row_B = torch.where(kept, loss_BT, 0.0).sum(1)
        if self._policy_loss.mean == "rows":
            return (per_row_B / kept.sum(1).clamp(min=1)).mean()
        return per_row_B.sum() / (kept.sum() if self._policy_loss.mean == "tokens" else inputs["num_items_in_batch"])

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Like TRL's, but for trained tokens only; 0 elsewhere."""
        assert self._rows is not None
        trained_BT, packed = self._rows
        with self.accelerator.autocast():
            logps_BT, entropy_BT, output = trained_logprobs(
                *(model, self._picked[model is self._reference], input_ids, attention_mask, trained_BT, packed),
                router=kwargs.get("compute_aux_loss", False),
            )
        kept = slice(input_ids.shape[1] - logits_to_keep, None)
        if model is not self._reference:
            assert self._sampled_BT is not None
            apart_BT = (logps_BT[:, kept].detach() - self._sampled_BT)[trained_BT[:, kept].bool()].abs()
            self._metrics["train"]["drift"].append(apart_BT.mean().item())
        return logps_BT[:, kept], None if entropy_BT is None else entropy_BT[:, kept], output.aux_loss

    def _collected(self, micros: list[MicroBatch]) -> dict[str, float]:
        """TRL's metrics per micro-batch, averaged over the step's trained tokens."""
        tokens = [sum(sum(row.loss_mask[1:]) for row in micro.rows) for micro in micros]
        means = {}
        for name, key in (*((own, own) for own in ("entropy", "kl", "drift")), ("clipped", "clip_ratio/region_mean")):
            values = self._metrics["train"].get(key, [])
            if values:
                means[name] = sum(v * n for v, n in zip(values, tokens, strict=True)) / sum(tokens)
        self._metrics["train"].clear()
        return means

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
