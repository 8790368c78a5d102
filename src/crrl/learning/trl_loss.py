"""The loss of a micro-batch: TRL's `GRPOTrainer._compute_loss`, or a plug-in's, over rows of recorded tokens.

`LossTrainer` is `GRPOTrainer` with its generations replaced by rows: how they go through the model (`tree.py`,
`logprobs.py`), which log-probs are the old ones, the reference policy of the KL term, and what is measured on the way.

Invariant: each token's loss knows the sampler's log-prob once. It is the old one (`objective.old=sampler`), or it is in
the importance weight (`old=trainer`, `importance.py`); never both, and never neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer

from crrl.conf.schema import Objective
from crrl.learning import importance
from crrl.learning.batches import MicroBatch, tensors
from crrl.learning.logprobs import Picked, trained_logprobs, unwrapped
from crrl.learning.losses import Loss, TrlLoss
from crrl.learning.reference import AdapterReference, ModelReference, Reference
from crrl.learning.tree import Forest, forest
from crrl.learning.tree_attention import IMPLEMENTATION, sharing

OF_TRL = {
    "entropy": "entropy",
    "kl": "kl",
    "clipped": "clip_ratio/region_mean",
    "clipped_low": "clip_ratio/low_mean",
    "clipped_high": "clip_ratio/high_mean",
}
"""Our names (docs/metrics.md) -> TRL's, each a mean per micro-batch."""


@dataclass
class Prepared:
    """A micro-batch on the device, for all updates of its step.

    Args:
        inputs: for `_compute_loss`. The old log-probs of `old=trainer`, and importance weights, are added by the first
            pass.
        ids_BT, mask_BT, trained_BT: whole rows; `sampled_BT` and all of `inputs`: without their first token.
    """

    micro: MicroBatch
    inputs: dict[str, Tensor]
    ids_BT: Tensor
    mask_BT: Tensor
    trained_BT: Tensor
    sampled_BT: Tensor
    packed: Forest | None
    passed: bool = False


class LossTrainer(GRPOTrainer):
    """A step is `_prepare` for each of its micro-batches, then as many updates as the objective says of `_micro_step`
    for each, then `_collected`: what was measured."""

    def __init__(
        self, *, objective: Objective, loss: Loss | TrlLoss, note: Callable[[str], None], **kwargs: Any
    ) -> None:
        self._objective, self._policy_loss, self._note = objective, loss, note
        self._current: Prepared | None = None
        self._sharing: bool | None = None
        self._reference: Reference | None = None
        self._log_ratios: list[Tensor] = []  # log p_trainer - log p_sampler of trained tokens, before the first update
        self._corrected: list[Tensor] = []  # of the same tokens: was the weight truncated or masked?
        super().__init__(**kwargs)
        self._picked = Picked(self.policy)
        # What makes TRL multiply by `importance_sampling_ratio`. No generation of TRL's ever runs.
        self.use_vllm = self.vllm_importance_sampling_correction = objective.correction != "none"

    @property
    def policy(self) -> PreTrainedModel:
        model: Any = self.model
        return model

    def use_reference(self, first: PreTrainedModel | None, checkpoint: Path | None = None) -> None:
        """Begins the KL term.

        Args:
            first: the run's first policy; None: what the policy is now, as a second adapter.
            checkpoint: what a run resumes from: it has a reference that is neither.
        """
        objective = self._objective
        if first is None:
            self._reference = AdapterReference(self.policy, self._picked, objective)
        else:
            self._reference = ModelReference(self.policy, first, objective, self.temperature)
        if checkpoint is not None and self._reference.moves:
            self._reference.load(checkpoint)
        self.beta = objective.beta

    def _share(self) -> bool:
        """Whether rows go through the model as a forest; if not, says why."""
        policy = unwrapped(self.policy)
        if reason := sharing(policy):
            self._note(f"Rows are padded, each with its own beginning, because of {type(policy).__name__}: {reason}.")
        elif isinstance(self._reference, ModelReference):
            self._reference.model.set_attn_implementation(IMPLEMENTATION)
        return not reason

    # A micro-batch --------------------------------------------------------------------------------------------

    def _prepare(self, micro: MicroBatch) -> Prepared:
        """Tensors, and the reference's log-probs, which no update of the step changes."""
        device = self.accelerator.device
        inputs = tensors(micro, self._tokenizer.pad_token_id, device)
        packed = None
        if self._sharing:
            packed = forest([row.ids for row in micro.rows], [row.loss_mask for row in micro.rows], device)
        ids_BT = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask_BT = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        trained_BT = torch.cat([torch.zeros_like(inputs["prompt_ids"]), inputs["tool_mask"]], 1)
        sampled_BT = inputs["old_per_token_logps"]
        if self._objective.old == "trainer":
            del inputs["old_per_token_logps"]
        prepared = Prepared(micro, inputs, ids_BT, mask_BT, trained_BT, sampled_BT, packed)
        if self._reference is not None:
            with torch.no_grad(), self._reference.scoring() as (model, picked):
                inputs["ref_per_token_logps"] = self._logprobs(model, picked, prepared)[0]
        return prepared

    def _micro_step(self, model: Any, prepared: Prepared) -> Tensor:
        self._current = prepared
        return self._backward(self._compute_loss(model, prepared.inputs) * prepared.micro.scale)

    def _backward(self, loss: Tensor) -> Tensor:
        self.accelerator.backward(loss)
        return loss.detach()

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """TRL's loss, or a plug-in with the same KL, importance weights, and its own mean."""
        if isinstance(self._policy_loss, TrlLoss):
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss
        assert self._current is not None
        ids_BT, mask_BT = self._current.ids_BT, self._current.mask_BT
        logps_BT, entropy_BT, _ = self._get_per_token_logps_and_entropies(model, ids_BT, mask_BT, ids_BT.shape[1] - 1)
        old_BT, trained_BT = inputs["old_per_token_logps"], inputs["tool_mask"]
        loss_BT = self._policy_loss(logps_BT, old_BT, inputs["advantages"].unsqueeze(1), trained_BT)
        if "importance_sampling_ratio" in inputs:
            loss_BT = loss_BT * inputs["importance_sampling_ratio"]
        assert entropy_BT is not None
        measured = {"entropy": entropy_BT}
        if self.beta:
            behind = inputs["ref_per_token_logps"] - logps_BT
            measured["kl"] = (torch.exp(behind) - behind - 1) * torch.exp(logps_BT - old_BT)
            loss_BT = loss_BT + self.beta * measured["kl"]
        kept = trained_BT.bool()
        for name, value_BT in measured.items():
            totals = self.accelerator.reduce(torch.stack([value_BT[kept].sum(), kept.sum()]), reduction="sum")
            self._metrics["train"][name].append((totals[0] / totals[1].clamp(min=1)).item())
        per_row_B = torch.where(kept, loss_BT, 0.0).sum(1)
        if self._policy_loss.mean == "rows":
            return (per_row_B / kept.sum(1).clamp(min=1)).mean()
        of_tokens = self._policy_loss.mean == "tokens"
        return per_row_B.sum() / (kept.sum().clamp(min=1) if of_tokens else inputs["num_items_in_batch"])

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Like TRL's, but for trained tokens only; 0 elsewhere. `_compute_loss` reads old log-probs and importance
        weights after it has called this."""
        prepared = self._current
        assert prepared is not None
        router = kwargs.get("compute_aux_loss", False)
        logps_BT, entropy_BT, aux_loss = self._logprobs(model, self._picked, prepared, router=router)
        if not prepared.passed:
            self._first_pass(prepared, logps_BT.detach())
        return logps_BT, entropy_BT, aux_loss

    def _logprobs(
        self, model: Any, picked: Picked, prepared: Prepared, *, router: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        with self.accelerator.autocast():
            logps_BT, entropy_BT, output = trained_logprobs(
                *(model, picked, prepared.ids_BT, prepared.mask_BT, prepared.trained_BT, prepared.packed),
                router=router,
            )
        return logps_BT[:, 1:], None if entropy_BT is None else entropy_BT[:, 1:], output.aux_loss

    def _first_pass(self, prepared: Prepared, logps_BT: Tensor) -> None:
        """What is known once the policy that begins the step has scored the rows."""
        prepared.passed = True
        sampled_BT, trained_BT = prepared.sampled_BT, prepared.inputs["tool_mask"]
        kept_BT = trained_BT.bool()
        self._log_ratios.append((logps_BT - sampled_BT)[kept_BT])
        if self._objective.old == "trainer":
            prepared.inputs["old_per_token_logps"] = logps_BT
            correction, bound = self._objective.correction, self._objective.correction_bound
            weights, beyond_BT = importance.weights(logps_BT, sampled_BT, trained_BT, correction, bound)
            prepared.inputs["importance_sampling_ratio"] = weights
            self._corrected.append(beyond_BT[kept_BT])

    # A step ---------------------------------------------------------------------------------------------------

    def _collected(self, prepared: Sequence[Prepared]) -> dict[str, float]:
        """The step's metrics. TRL's are means over the trained tokens of a micro-batch (of clips at the level of
        sequences: over its rows): averaged over micro-batches and updates."""
        tokens = [one.micro.trained for one in prepared] * self._objective.updates_per_batch
        rows = [len(one.micro.rows) for one in prepared] * self._objective.updates_per_batch
        trained_rows = self._objective.updates_per_batch * self._number_of_rows(prepared)
        found = {}
        names = {**OF_TRL, "clipped_high": "cispo_clip_ratio"} if self._objective.loss == "cispo" else OF_TRL
        for name, key in names.items():
            if values := self._metrics["train"].get(key, []):
                of_rows = name.startswith("clipped") and self._objective.level == "sequence"
                counts, total = (rows, trained_rows) if of_rows else (tokens, sum(tokens))
                found[name] = sum(v * n for v, n in zip(values, counts, strict=True) if n) / total
        if prepared:
            log_ratios = self._everywhere(torch.cat(self._log_ratios))
            found |= {"drift": log_ratios.abs().mean().item(), **importance.quantiles(log_ratios)}
            if self._corrected:
                found["corrected"] = self._everywhere(torch.cat(self._corrected).float()).mean().item()
        self._forget()
        return found

    def _forget(self) -> None:
        """What was measured since the last step."""
        self._current = None
        self._metrics["train"].clear()
        self._log_ratios.clear()
        self._corrected.clear()

    def _number_of_rows(self, prepared: Sequence[Prepared]) -> float:
        """On average over ranks, without those that fill a rank's micro-batch up, in which nothing is trained."""
        count = sum(any(row.loss_mask) for one in prepared for row in one.micro.rows)
        total = self.accelerator.reduce(torch.tensor(float(count), device=self.accelerator.device), reduction="mean")
        return float(total)

    def _everywhere(self, values: Tensor) -> Tensor:
        """Those of all ranks."""
        filled = self.accelerator.pad_across_processes(values, pad_index=float("nan"))
        gathered: Tensor = self.accelerator.gather(filled)
        return gathered[~gathered.isnan()]
