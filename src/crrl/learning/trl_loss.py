"""The loss of a micro-batch: TRL's `GRPOTrainer._compute_loss`, or a plug-in's, over rows of recorded tokens.

`LossTrainer` is `GRPOTrainer` with its generations replaced by rows: how they go through the model (`tree.py`,
`logprobs.py`), the reference policy of the KL term, and what is measured on the way. Old log-probs are the sampler's,
without further correction (mode a of the design).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from crrl.learning.batches import MicroBatch, tensors
from crrl.learning.logprobs import Picked, trained_logprobs, unwrapped
from crrl.learning.losses import Loss, TrlLoss
from crrl.learning.tree import Forest, forest
from crrl.learning.tree_attention import IMPLEMENTATION, sharing


class LossTrainer(GRPOTrainer):
    """`_micro_step` is the forward and backward pass of one micro-batch; `_collected`, what a step's measured."""

    def __init__(self, *, loss: Loss | TrlLoss, note: Callable[[str], None], **kwargs: Any) -> None:
        self._policy_loss, self._note = loss, note
        self._rows: tuple[Tensor, Forest | None] | None = None
        self._sampled_BT: Tensor | None = None  # the sampler's log-probs of these rows
        self._sharing: bool | None = None
        self._reference: PreTrainedModel | None = None
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
