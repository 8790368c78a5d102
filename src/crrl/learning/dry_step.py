"""A step before the first one: forward and backward pass over the longest rows that the budgets allow, beside memory as
large as the optimizer's moments, so that a run that does not fit ends now, and not in its ninth hour.

On a GPU it is done, once, on every rank. On a CPU it would take minutes, and running out of memory raises nothing
there, so the estimate decides (`plan.require`).

Invariant: nothing of it is left: no weight, gradient, moment, metric or random state has changed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from crrl.conf.schema import Config
from crrl.learning.api import Row
from crrl.learning.batches import MicroBatch, plan
from crrl.learning.memory import Budget, budget_of
from crrl.learning.plan import DoesNotFit
from crrl.learning.precision import EIGHT_BITS


def due(device: torch.device) -> bool:
    return device.type == "cuda"


def run(
    policy: PreTrainedModel,
    config: Config,
    device: torch.device,
    optimizer: torch.optim.Optimizer | None,
    sharing: bool,
    step: Callable[[MicroBatch], None],
) -> None:
    """
    Args:
        optimizer: None: its moments are there.
        sharing: rows go through the model as a forest.
        step: forward and backward pass, without effect.

    Raises:
        DoesNotFit: memory ran out.
    """
    text = policy.config.get_text_config()
    budget = budget_of(int(getattr(text, "max_position_embeddings", 0) or 0), config)
    rows = longest_rows(budget, int(text.vocab_size))
    on_gpu = device.type == "cuda"
    try:
        with torch.random.fork_rng([device] if on_gpu else []):
            moments = _moments(optimizer, config) if optimizer is not None else []
            (micro, *_), *_ = plan(rows, "rows", len(rows), budget.tokens, sharing=sharing, ranks=1)
            step(micro)
            del moments
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(
            f"A step with the longest rows that the budgets allow ({budget.tokens:,} tokens, {budget.trained:,} of "
            f"them trained, rows of {budget.row:,}) runs out of memory: {str(error).splitlines()[0][:160]}",
            "Lower trainer.tokens_per_micro_batch or engine.context, or write trainer.gradient_checkpointing=true. "
            "All components: crrl plan.",
        ) from error
    if on_gpu:
        torch.cuda.empty_cache()  # what it took is for anyone again


def longest_rows(budget: Budget, vocabulary: int) -> list[Row]:
    """As many rows of the greatest length as fill a micro-batch, which share nothing, and of which as much is trained
    as may be."""
    count = max(1, budget.tokens // budget.row)
    trained = min(budget.row - 1, -(-budget.trained // count))
    context = budget.row - trained
    rows = []
    for i in range(count):
        ids = [(i + 31 * j) % vocabulary for j in range(budget.row)]
        mask = [0] * context + [1] * trained
        rows.append(Row(ids, mask, [0.0] * len(ids), [m - 1 for m in mask], 1.0, 1.0, f"dry/{i}", "dry"))
    return rows


def _moments(optimizer: torch.optim.Optimizer, config: Config) -> list[torch.Tensor]:
    """As large as those that the optimizer makes at its first update; one that resumes has them."""
    if optimizer.state:
        return []
    dtype = torch.uint8 if config.trainer.optimizer in EIGHT_BITS else torch.float32
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    return [torch.empty(p.shape, dtype=dtype, device=p.device) for p in trained for _ in range(2)]
