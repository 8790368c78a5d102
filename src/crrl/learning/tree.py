"""Rows as a forest: what they share at their beginnings is one token in the forward pass, whatever the number of rows.

The attempts of a group begin alike: the prompt, often the first calls. A node of the forest is a token together with
the token after it, so that a node has one label; rows with the same beginning have the same nodes. Nodes in depth-first
order are one packed row for the model: `Forest.ids_N` at the positions `positions_N`. In that order the new tokens of
each row are one `Segment`, which attends to its path to the root and, causally, to itself (`tree_attention.py`).

Invariant: the log-prob of a trained token is that of its row alone, up to rounding (test_prefix_tree.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """`length` tokens in a row of the packed order. `path`: what they attend to besides themselves, from the root on:
    (index of a segment, how many of its first tokens)."""

    length: int
    path: tuple[tuple[int, int], ...]


@dataclass
class Forest:
    """Rows, packed.

    Args:
        ids_N, positions_N: the model's input.
        segments: of the packed order, in that order; their lengths add up to N.
        picked_M: the places in the packed order whose next token is trained in some row.
        labels_M: that next token.
        of_K: for each trained token of each row, rows in their order: its index among the M.
        made: what attention makes once for all layers.
    """

    ids_N: Tensor
    positions_N: Tensor
    segments: tuple[Segment, ...]
    picked_M: Tensor
    labels_M: Tensor
    of_K: Tensor
    made: dict[tuple[object, ...], Tensor] = field(default_factory=dict)


def forest(rows: Sequence[Sequence[int]], trained: Sequence[Sequence[int]], device: torch.device) -> Forest:
    """The forest of token sequences (two tokens or more each), of which `trained` marks the trained tokens."""
    ids = [np.asarray(row, np.int64) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: list(rows[i]))  # then each row shares most with the one before it
    tokens: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    segments: list[Segment] = []
    starts: list[int] = []
    nodes: dict[int, np.ndarray] = {}
    path: list[tuple[int, int]] = []
    before = ids[order[0]][:0]
    offset = 0
    for i in order:
        row = ids[i]
        shared = shared_nodes(before, row)
        path = _beginning(path, shared)
        if new := len(row) - 1 - shared:
            segments.append(Segment(new, tuple(path)))
            starts.append(offset)
            path.append((len(segments) - 1, new))
            tokens.append(row[shared:-1])
            labels.append(row[shared + 1 :])
            positions.append(np.arange(shared, len(row) - 1))
            offset += new
        nodes[i] = np.concatenate([np.arange(starts[s], starts[s] + n) for s, n in path])
        before = row
    picked = np.zeros(offset, bool)
    places = [nodes[i][np.asarray(trained[i][1:], bool)] for i in range(len(rows))]
    for of_row in places:
        picked[of_row] = True
    rank = np.cumsum(picked) - 1

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return Forest(
        tensor(np.concatenate(tokens)),
        tensor(np.concatenate(positions)),
        tuple(segments),
        tensor(np.flatnonzero(picked)),
        tensor(np.concatenate(labels)[picked]),
        tensor(rank[np.concatenate(places)]),
    )


def shared_nodes(a: np.ndarray, b: np.ndarray) -> int:
    """How many nodes two rows have in common: the last token they share has another one after it in each."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return max(0, int(differ[0] if len(differ) else n) - 1)


def _beginning(path: list[tuple[int, int]], tokens: int) -> list[tuple[int, int]]:
    """The first `tokens` tokens of a path."""
    cut: list[tuple[int, int]] = []
    for segment, length in path:
        if not tokens:
            break
        cut.append((segment, min(length, tokens)))
        tokens -= cut[-1][1]
    return cut
