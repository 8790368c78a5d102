"""Packs rows into micro-batches of tensors, within a budget of tokens that go through the model.

Where rows share their beginnings (`tree.py`), a beginning counts once; else rows are padded, and padding counts. The
rows of a micro-batch have equal weight. The loss of a micro-batch is multiplied by its `scale`; thus the sum over
micro-batches is the loss of the whole step, whatever the budget: a sum over rows weighted by `Row.weight`, divided once
by a number of the whole step. Weights are not folded into advantages, so that they apply to loss terms that do not
depend on the advantage, too (KL).

Several ranks take rounds (`plan`): in each, every rank has one micro-batch of equally many rows, because ranks compute
and gather together. Gradients are averaged over ranks, so scales have their number as a factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from crrl.learning.api import Row
from crrl.learning.losses import Mean
from crrl.learning.tree import shared_nodes


@dataclass(frozen=True)
class MicroBatch:
    """`rows` share one weight. `tokens` go through the model. `items` is the weighted number of trained tokens of the
    whole step. `trained` is their number, unweighted, in this micro-batch and in those that the other ranks compute
    meanwhile."""

    rows: list[Row]
    tokens: int
    scale: float
    items: float
    trained: int


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


def micro_batches(rows: Sequence[Row], mean: Mean, episodes: int, tokens: int, *, sharing: bool) -> list[MicroBatch]:
    """For one rank: at most `tokens` each; a longer row gets its own. `sharing`: beginnings count once. Deterministic
    in the order of `rows`."""
    return [micro for (micro,) in plan(rows, mean, episodes, tokens, sharing=sharing, ranks=1)]


def plan(
    rows: Sequence[Row], mean: Mean, episodes: int, tokens: int, *, sharing: bool, ranks: int
) -> list[list[MicroBatch]]:
    """Rounds, in each a micro-batch for every rank. A round takes as long as its longest micro-batch, so micro-batches
    are dealt longest first; of budgets up to `tokens`, that with the shortest rounds in all is taken."""
    kept = [row for row in map(trim, rows) if row is not None]
    items = sum(row.weight * sum(row.loss_mask[1:]) for row in kept)
    divide = _forests if sharing else _padded
    whole = list(divide(kept, tokens))
    dealt = _dealt(whole, ranks) if ranks > 1 else [[part] for part in whole]
    if ranks > 1:
        fair = sum(count for _, count in whole) / (ranks * len(dealt) or 1)
        for share in (1.0, 1.15, 1.3, 1.5):
            if (budget := math.ceil(share * fair)) < tokens:
                dealt = min(dealt, _dealt(list(divide(kept, budget)), ranks), key=_length)
    return [_round(parts, ranks, mean, episodes, items) for parts in dealt]


Part = tuple[list[Row], int]
"""Rows of one weight, and how many tokens go through the model for them."""


def _dealt(parts: Sequence[Part], ranks: int) -> list[list[Part]]:
    longest = sorted(parts, key=lambda part: -part[1])
    return [longest[i : i + ranks] for i in range(0, len(longest), ranks)]


def _length(rounds: Sequence[Sequence[Part]]) -> int:
    return sum(max(count for _, count in parts) for parts in rounds)


def _round(parts: Sequence[Part], ranks: int, mean: Mean, episodes: int, items: float) -> list[MicroBatch]:
    """Equally many rows for each rank: where a rank has fewer, the beginning of a row in which nothing is trained."""
    most = max(len(part) for part, _ in parts)
    trained = sum(_trained(part) for part, _ in parts)
    made = []
    for rank in range(ranks):
        part, count = parts[rank] if rank < len(parts) else ([], 0)
        filler = _filler((part or parts[0][0])[0])
        filled = [*part, *[filler] * (most - len(part))]
        scale = filler.weight * _share(filled, mean, episodes, items) * (1 if mean == "step" else ranks)
        made.append(MicroBatch(filled, count or 2, scale, items, trained))
    return made


def _filler(row: Row) -> Row:
    """Its first three tokens: two nodes of a forest, and where `row` is in it, too, none. (TRL takes a column for a
    value per row, so two tokens would be too few.)"""
    ids = [*row.ids, row.ids[0]][:3]
    return replace(row, ids=ids, loss_mask=[0] * 3, logprobs=[0.0] * 3, versions=[-1] * 3, advantage=0.0)


def _trained(part: Sequence[Row]) -> int:
    return sum(sum(row.loss_mask[1:]) for row in part)


def _padded(rows: Sequence[Row], tokens: int) -> Iterator[Part]:
    """Parts of `rows`, and the length of their matrix: rows of like length together."""
    part: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.weight, -len(row.ids))):
        if part and (row.weight != part[0].weight or len(part[0].ids) * (len(part) + 1) > tokens):
            yield part, len(part) * len(part[0].ids)
            part = []
        part.append(row)
    if part:
        yield part, len(part) * len(part[0].ids)


def _forests(rows: Sequence[Row], tokens: int) -> Iterator[Part]:
    """Parts of `rows`, and the size of their forest: rows that begin alike together."""
    part: list[Row] = []
    count, before = 0, np.zeros(0, np.int64)
    for row in sorted(rows, key=lambda row: (row.weight, row.group, row.ids)):
        ids = np.asarray(row.ids, np.int64)
        new = len(ids) - 1 - shared_nodes(before, ids)
        if part and (row.weight != part[0].weight or count + new > tokens):
            yield part, count
            part, count, new = [], 0, len(ids) - 1
        part.append(row)
        count, before = count + new, ids
    if part:
        yield part, count


def _share(part: Sequence[Row], mean: Mean, episodes: int, items: float) -> float:
    """The micro-batch's divisor over the step's."""
    if mean == "rows":
        return len(part) / episodes
    if mean == "tokens":
        return _trained(part) / items
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
