"""The trainer: TRL's `GRPOTrainer`, fed with rows of recorded tokens instead of its own generations.

The losses, the head and the loop are TRL's; the rows, the micro-batches, how they reach the loss (`trl_loss.py`) and
the checkpoints are ours. A step without rows changes no weight.

The loss is a mean over all scored episodes of the step, those of groups without spread included, so that a step's
gradient does not grow as more groups agree. For `dr_grpo` (arXiv:2503.20783, eq. 2) and on-policy rows:

    loss = - sum over rows of weight * advantage * sum over trained tokens of log p  /  (episodes * length_normaliser)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import TrainOutput

from crrl.conf.schema import Config
from crrl.engines import adapter
from crrl.errors import CrrlError
from crrl.learning import checkpoint, dry_step, trainer_state
from crrl.learning.batches import MicroBatch, plan
from crrl.learning.losses import Loss, TrlLoss
from crrl.learning.precision import computing, make_optimizer
from crrl.learning.push import follow_push
from crrl.learning.ranks import Ranks, Stopped
from crrl.learning.schedule import make_schedule
from crrl.learning.source import StepBatch
from crrl.learning.trl_loss import LossTrainer, Prepared

StepHook = Callable[[int, dict[str, float]], None]
Resting = Callable[[], AbstractContextManager[None]]
"""`engines.api.Weights.resting`."""


class TrainingError(CrrlError):
    """The loss or the gradient is not a number. The weights are those of the update before."""


class RepairTrainer(LossTrainer):
    """Made by `make_trainer`. `train()` runs from the first step not yet taken to `trainer.max_steps`.

    For every step k (0-based): gets rows from `source(k)`, updates the weights, calls `on_step(k, metrics)`, and, if
    one is due, writes a checkpoint of k + 1 steps. On several ranks `source` and `on_step` are rank 0's; the others
    compute what it tells them.
    """

    def __init__(
        self,
        *,
        config: Config,
        folder: Path,
        first: str,
        begin: int,
        resume_from: Path | None,
        source: Callable[[int], StepBatch],
        on_step: StepHook,
        resting: Resting,
        loss: Loss | TrlLoss,
        note: Callable[[str], None],
        updating: Callable[[int, int], None],
        ranks: Ranks,
        ready: Callable[[], None],
        **kwargs: Any,
    ) -> None:
        self._ranks, self._ready = ranks, ready
        self._counted: dict[str, float] = {}
        self._config, self._folder, self._first, self._begin = config, folder, first, begin
        self._source, self._on_step, self._resting, self._updating = source, on_step, resting, updating
        self._resume_from = resume_from
        self._taken: dict[str, float] = {}
        self._norms: list[float] = []  # of the step's updates so far
        self._rounds = 0  # micro-batches of the step, on every rank
        super().__init__(objective=config.objective, loss=loss, note=note, **kwargs)
        self._base = adapter.Base.of(self.policy) if hasattr(self.policy, "peft_config") else None

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        if self._begin >= self._config.trainer.max_steps:  # the loop would take a step before it looks
            return TrainOutput(self._begin, 0.0, {})
        if self._resume_from is not None:
            kwargs["resume_from_checkpoint"] = str(self._resume_from)
        return super().train(*args, **kwargs)

    # One step -----------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Rows, and all micro-batches of one step, backward included: TRL's gradient accumulation needs a fixed number
        of them. `inputs` is the dummy dataset's."""
        model.train()
        if self.is_deepspeed_enabled and not hasattr(model, "set_gradient_accumulation_boundary"):
            told = "accelerate has not given the model to DeepSpeed."
            raise CrrlError(told, "Unset ACCELERATE_USE_CPU, and whatever else configures accelerate.")
        if self.state.global_step == self._begin:
            self._lead(self._ready)
        if self.state.global_step == self._begin and dry_step.due(self.accelerator.device):
            with self._ranks.stopping(), self._resting():
                self.dry_step(model)
        batch = None
        if self._ranks.main:
            with self._ranks.stopping():
                batch = self._source(self.state.global_step)
        self._ranks.share()  # the others have waited for rows
        with self._resting():
            micros = self._micro_batches(batch)
            prepared = [self._prepare(micro) for micro in micros]
            if self._reference is not None:
                self._reference.follow(self.state.global_step)
            updates = self._config.objective.updates_per_batch
            losses, self._norms, self._rounds = [], [], len(prepared)
            for update in range(updates):
                if update:
                    self._update(model)
                losses.append(self._one_pass(model, prepared, update, updates))
        loss = torch.stack(losses).mean()
        self._step += 1
        self._taken = {**self._counted, **self._collected(prepared), "loss": loss.item()}
        return loss

    def dry_step(self, model: Any) -> None:
        """On all ranks, each with the same rows. Raises DoesNotFit."""

        def step(micro: MicroBatch) -> None:
            prepared = self._current = self._prepare(micro)
            with self._accumulating(model, last=False):  # zeros: DeepSpeed keeps what it is given
                self.accelerator.backward(0.0 * self._compute_loss(model, prepared.inputs))

        if self._sharing is None:
            self._sharing = self._share()
        optimizer = None if self.is_deepspeed_enabled else self.optimizer
        try:
            dry_step.run(self.policy, self._config, self.accelerator.device, optimizer, self._sharing, step)
        finally:
            model.zero_grad()
            self._forget()

    def _one_pass(self, model: Any, prepared: list[Prepared], update: int, updates: int) -> Tensor:
        """Gradients of the step's whole loss: all micro-batches, backward included. Returns that loss."""
        losses = []
        for done, one in enumerate(prepared, 1):
            with self._accumulating(model, last=done == len(prepared)):
                losses.append(self._micro_step(model, one))
            self._updating(update * len(prepared) + done, updates * len(prepared))
        return torch.stack(losses).sum() if losses else torch.zeros((), device=self.accelerator.device)

    @contextmanager
    def _accumulating(self, model: Any, *, last: bool) -> Iterator[None]:
        """Around a micro-batch. With the last one gradients are averaged over ranks, and DeepSpeed, which updates
        weights inside `backward`, does so."""
        self.accelerator.gradient_state._set_sync_gradients(last)
        with nullcontext() if last else self.accelerator.no_sync(model):
            yield

    def _backward(self, loss: Tensor) -> Tensor:
        """Returns the loss of all ranks, whose gradients are averaged. Raises TrainingError, on others Stopped."""
        (total,) = self._ranks.sum([loss.item()])
        self._require_finite("loss", torch.tensor(total))
        # DeepSpeed would divide by a fixed number of micro-batches.
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}))
        return torch.tensor(total / self._ranks.size, device=loss.device)

    def _update(self, model: Any) -> None:
        """An update within a step; TRL's loop makes the step's last one, and then moves the schedule on."""
        norm = self._clip_grad_norm(model) if self.args.max_grad_norm > 0 else None
        self._norms.append(float(self._get_grad_norm(model, grad_norm=norm)))
        self.control = self.callback_handler.on_pre_optimizer_step(self.args, self.state, self.control)
        assert self.optimizer is not None, "train() makes it"
        self.optimizer.step()
        model.zero_grad()

    def _micro_batches(self, batch: StepBatch | None) -> list[MicroBatch]:
        """This rank's, one for each round; and what rank 0, which has the `batch`, counts of all of them."""
        if self._sharing is None:
            self._sharing = self._share()
        parts = None
        if batch is not None:
            mean, budget = self._policy_loss.mean, self._config.trainer.tokens_per_micro_batch
            limits: dict[str, Any] = {"sharing": self._sharing, "ranks": self._ranks.size}
            rounds = plan(batch.rows, mean, batch.episodes, budget, **limits)
            micros = [micro for each in rounds for micro in each]
            rows = [row for micro in micros for row in micro.rows if any(row.loss_mask)]
            self._counted = {
                **batch.metrics,
                "rows": float(len(rows)),
                "trained_tokens": float(sum(sum(row.loss_mask[1:]) for row in rows)),
                "row_tokens": float(sum(len(row.ids) for row in rows)),
                "computed_tokens": float(sum(micro.tokens for micro in micros)),
                "skipped": float(not rows),
            }
            parts = [[each[rank] for each in rounds] for rank in range(self._ranks.size)]
        return self._ranks.scatter(parts)

    def _lead(self, call: Callable[[], None]) -> None:
        """Rank 0 calls it, and the others do what is collective in the pushes and the proofs that it makes."""
        if self._ranks.main:
            with self._ranks.stopping():
                call()
            self._ranks.share()
        else:
            follow_push(self.policy, self._ranks, computing(self._config.trainer))

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.is_deepspeed_enabled and not self._rounds:
            return torch.zeros(())  # DeepSpeed would give that of an earlier step
        norm = super()._clip_grad_norm(model)
        self._require_finite("gradient norm", torch.as_tensor(norm))
        return norm

    def _require_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):  # on all ranks
            if not self._ranks.main:
                raise Stopped
            raise TrainingError(
                f"The {what} of step {self.state.global_step} is {value.item()}"
                + (f", after {len(self._norms)} of its updates." if self._norms else "; the weights were not changed."),
                "Lower trainer.learning_rate (and look at the rewards), then resume from the last checkpoint.",
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The loop calls this once after each update, when the step is over."""
        if "learning_rate" not in logs:  # the loop's closing totals
            return
        norms = [*self._norms, float(logs.get("grad_norm", 0.0))]
        self._taken["grad_norm"] = sum(norms) / len(norms)
        self._taken["learning_rate"] = float(logs.get("learning_rate", 0.0))
        taken = self.state.global_step
        trainer = self._config.trainer
        self._lead(lambda: self._on_step(taken - 1, self._taken))
        if taken % trainer.save_steps == 0 or taken == trainer.max_steps:
            self._write_checkpoint(taken)

    # transformers makes them when it has wrapped the model; with ZeRO, of the shards.

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.policy, self._config.trainer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            assert self.optimizer is not None
            self.lr_scheduler = make_schedule(self.optimizer, self._config.trainer)
        return self.lr_scheduler

    # Checkpoints --------------------------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The model was made with these weights."""

    def _write_checkpoint(self, step: int) -> None:
        if not self._ranks.main:
            self._write_content(self._ranks.share())
            self._ranks.all_ok(True)
            return
        folder = self._folder / checkpoint.FOLDER
        with checkpoint.writing(folder, step):
            with self._ranks.stopping():
                new = checkpoint.begin(folder, step)
            self._ranks.share(new)
            self._write_content(new)
            self._ranks.all_ok(True)  # every rank's files are there
            with self._ranks.stopping():
                checkpoint.seal(new, self._first, self._config.trainer.keep_checkpoints, self._ranks.size)

    def _write_content(self, new: Path) -> None:
        """On all ranks together."""
        trainer_state.save(self, new, self._base)
        if self._reference is not None and self._reference.moves:
            self._reference.save(new)
