"""Packs rows into micro-batches of tensors, within a budget of padded tokens.

The rows of a micro-batch have equal weight and belong to one group, so they share a prefix, which
`logprobs.hidden_states` computes once. The loss of a micro-batch is multiplied by its `scale`; thus the sum over
micro-batches is the loss of the whole step, whatever the budget: a sum over rows weighted by `Row.weight`, divided once
by a number of the whole step. Weights are not folded into advantages, so that they apply to loss terms that do not
depend on the advantage, too (KL).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crrl.learning.api import Row
from crrl.learning.losses import Mean


@dataclass(frozen=True)
class MicroBatch:
    """`rows` share one weight. `items` is the weighted number of trained tokens of the whole step."""

    rows: list[Row]
    scale: float
    items: float


def trim(row: Row) -> Row | None:
    """Cuts the context after the last trained token, which cannot influence the loss. None: no token of the row is
    trained (the first has no log-prob)."""
    end = len(row.ids)
    while end > 0 and not row.loss_mask[end - 1]:
        end -= 1
    if not any(row.loss_mask[1:end]):
        return None
    cut = (row.ids[:end], row.loss_mask[:end], row.logprobs[:end], row.versions[:end])
    return Row(*cut, row.advantage, row.weight, row.episode, row.group)


def micro_batches(rows: Sequence[Row], mean: Mean, episodes: int, tokens: int) -> list[MicroBatch]:
    """At most `tokens` padded tokens each; a longer row gets its own. Deterministic in the order of `rows`."""
    kept = [row for row in map(trim, rows) if row is not None]
    kept.sort(key=lambda row: (row.group, row.weight, -len(row.ids)))  # stable: longest first
    items = sum(row.weight * sum(row.loss_mask[1:]) for row in kept)
    return [
        MicroBatch(part, part[0].weight * _share(part, mean, episodes, items), items) for part in _parts(kept, tokens)
    ]


def _parts(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in rows:
        alike = part and (row.group, row.weight) == (part[0].group, part[0].weight)
        if part and not (alike and len(part[0].ids) * (len(part) + 1) <= tokens):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _share(part: Sequence[Row], mean: Mean, episodes: int, items: float) -> float:
    """The micro-batch's divisor over the step's."""
    if mean == "rows":
        return len(part) / episodes
    if mean == "tokens":
        return sum(sum(row.loss_mask[1:]) for row in part) / items
    return 1.0


def tensors(micro: MicroBatch, pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """The batch for TRL's `_compute_loss`. The first token is the "prompt", all others are the "completion";
    `tool_mask` marks the trained ones."""
    rows = micro.rows
    longest = max(len(row.ids) for row in rows)

    def pad(lists: Sequence[Sequence[float]], value: float, dtype: torch.dtype) -> Tensor:
        filled = [[*x[1:], *[value] * (longest - len(x))] for x in lists]
        return torch.tensor(filled, dtype=dtype, device=device)

    return {
        "prompt_ids": torch.tensor([row.ids[:1] for row in rows], device=device),
        "prompt_mask": torch.ones(len(rows), 1, dtype=torch.long, device=device),
        "completion_ids": pad([row.ids for row in rows], pad_id, torch.long),
        "completion_mask": pad([[1] * len(row.ids) for row in rows], 0, torch.long),
        "tool_mask": pad([row.loss_mask for row in rows], 0, torch.long),
        "advantages": torch.tensor([row.advantage for row in rows], dtype=torch.float32, device=device),
        "old_per_token_logps": pad([row.logprobs for row in rows], 0.0, torch.float32),
        "num_items_in_batch": torch.tensor(micro.items, dtype=torch.float32, device=device),
    }
