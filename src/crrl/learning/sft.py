"""Supervised fine-tuning on rows, by TRL's `SFTTrainer`: packed whole (best fit), loss on the policy's own tokens.

With `beta`, the loss gets `beta` times the mean over trained tokens of KL(policy || base), exact over the vocabulary.
With LoRA the base is the model without its adapter; the result is written merged, and the adapter beside it.

Invariant 8: an interrupted command is resumed by running it again; the finished model appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset, disable_progress_bars  # type: ignore[import-untyped]
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from crrl.conf.schema import RowsConfig
from crrl.engines import adapter
from crrl.errors import CrrlError, UsageError
from crrl.learning.sft_rows import SftRow

disable_progress_bars()  # they would tear the command's own display
SETTINGS = "settings.json"
IGNORED = -100


class RowTrainer(SFTTrainer):
    """TRL's, with a KL term. `base`: the policy to stay close to; None: the model without its adapter."""

    def __init__(self, *, beta: float, base: PreTrainedModel | None, **kwargs: Any) -> None:
        self._beta, self._base = beta, base
        super().__init__(**kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        if not self._beta:
            return loss
        kl = self._kl(model, inputs)
        self._metrics["train"]["kl"].append((kl.detach().sum() / max(1, kl.numel())).item())
        tokens = kl.numel() if num_items_in_batch is None else num_items_in_batch
        return loss + self._beta * kl.sum() / torch.as_tensor(tokens).clamp(min=1)

    def _kl(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """KL(policy || base) in nats at each trained token: shape (trained,). Rows are packed: the batch has one."""
        at = (inputs["labels"][0, 1:] != IGNORED).nonzero()[:, 0]
        asked = {k: v for k, v in inputs.items() if k != "labels"} | {"logits_to_keep": at}
        ours = F.log_softmax(model(**asked).logits[0].float(), dim=-1)
        with torch.no_grad():
            if self._base is not None:
                theirs = self._base(**asked).logits[0]
            else:
                with self.accelerator.unwrap_model(model).disable_adapter():
                    theirs = model(**asked).logits[0]
        return F.kl_div(F.log_softmax(theirs.float(), dim=-1), ours, log_target=True, reduction="none").sum(-1)


Progress = Callable[[int, int, dict[str, float]], None]
"""Called with updates done, updates planned, and numbers of the last one (none at the start)."""


class _Shown(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps, {})

    def on_log(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        logs = named["logs"]
        if "loss" in logs:
            names = {"loss": "loss", "mean_token_accuracy": "accuracy", "kl": "kl"}
            shown = {said: logs[name] for name, said in names.items() if name in logs}
            self._progress(state.global_step, state.max_steps, shown)


def fine_tune(
    model: PreTrainedModel,
    base: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[SftRow],
    config: RowsConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Trains, and writes `config.out`: a model folder, with `adapter/` in it under LoRA, and `sft.json`.

    Args:
        model: as `lora.trainable` makes it.
        base: for `beta`: what the model starts from; None: what it is without its adapter.

    Returns:
        The contents of `sft.json`.

    Raises:
        UsageError: `out` was begun with other settings or rows.
        CrrlError: the loss is not a number.
    """
    out = Path(config.out)
    state = out.with_name(f"{out.name}.state")
    _begin(state, config, rows)
    labels = [[t if m else IGNORED for t, m in zip(row.ids, row.trained, strict=True)] for row in rows]
    trainer = RowTrainer(
        beta=config.beta,
        base=base.requires_grad_(False).eval() if base is not None else None,
        model=model,
        args=_arguments(config, state),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": labels}),
        callbacks=[_Shown(progress)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state)))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not all(map(torch.isfinite, torch.tensor(losses))):
        raise CrrlError("The loss is not a number.", "Lower learning_rate, and remove " + str(state))
    record = {
        "steps": trainer.state.global_step,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "rows": len(rows),
        "trained_tokens": sum(sum(row.trained[1:]) for row in rows),
        "settings": asdict(config),
    }
    _write(trainer, tokenizer, out, record)
    shutil.rmtree(state)
    return record


def _begin(state: Path, config: RowsConfig, rows: Sequence[SftRow]) -> None:
    """Checkpoints of other settings or rows are never continued."""
    state.mkdir(parents=True, exist_ok=True)
    file = state / SETTINGS
    told = json.dumps([asdict(config), len(rows), sum(len(row.ids) for row in rows)], indent=1)
    if not file.exists():
        file.write_text(told)
    elif file.read_text() != told:
        raise UsageError(
            f"{state} has the checkpoints of another command with the same out=.",
            f"Write another out=FOLDER, or remove {state}.",
        )


def _write(trainer: Any, tokenizer: PreTrainedTokenizerBase, out: Path, record: dict[str, Any]) -> None:
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(partial / "adapter")
        if (base := adapter.Base.of(model)) is not None:
            base.write(partial / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "sft.json").write_text(json.dumps(record, indent=2) + "\n")
    os.rename(partial, out)


def _arguments(config: RowsConfig, state: Path) -> SFTConfig:
    cpu = not torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(state),
        seed=config.seed,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        # One pack at a time, whatever the machine has; an update takes several.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.packs_per_step,
        packing=True,
        packing_strategy="bfd",
        max_length=config.tokens_per_pack,
        activation_checkpointing=config.gradient_checkpointing,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=cpu,
        bf16=False,
        fp16=False,
    )
