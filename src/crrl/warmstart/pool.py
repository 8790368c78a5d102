"""The warm start's training data: demonstrations as token ids, made once, in parallel, and stored on disk.

Each shard has a fixed seed, and existing shards are not made again: a killed run resumes, and the number of processes
does not change the pool.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from crrl.warmstart.form import SHARD, Form, PoolSettings

PARTS = {"context": 0, "policy": 1, "mistake": 2}


class Pool:
    """Token ids of all demonstrations end to end, who wrote each token, and where each demonstration starts."""

    def __init__(self, ids: np.ndarray, parts: np.ndarray, starts: np.ndarray) -> None:
        self.ids, self.parts, self.starts = ids, parts, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def length(self, index: int) -> int:
        return int(self.starts[index + 1] - self.starts[index])

    def batch(self, indices: Sequence[int], context_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids_BT, weight_BT), right-padded with id 0 and weight 0."""
        width = max(self.length(i) for i in indices)
        ids = np.zeros((len(indices), width), dtype=np.int64)
        weights = np.zeros((len(indices), width), dtype=np.float32)
        table = np.array([context_weight, 1.0, 0.0], dtype=np.float32)
        for row, index in enumerate(indices):
            span = slice(self.starts[index], self.starts[index + 1])
            ids[row, : self.length(index)] = self.ids[span]
            weights[row, : self.length(index)] = table[self.parts[span]]
        return torch.from_numpy(ids), torch.from_numpy(weights)


def make_pool(
    settings: PoolSettings,
    tokenizer: PreTrainedTokenizerFast,
    form: Form,
    folder: Path,
    report: Callable[[int, int], None],
) -> Pool:
    """Make the missing shards of the pool in `folder`, then read all of it. Calls `report(done, total)` after each."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"shard-{i:03d}.npz" for i in range(settings.size // SHARD)]
    missing = [i for i, file in enumerate(files) if not file.exists()]
    write = partial(_write_shard, settings, tokenizer, form, folder)
    done = len(files) - len(missing)
    with multiprocessing.get_context("fork").Pool(settings.processes) as workers:
        for _ in workers.imap_unordered(write, missing):
            done += 1
            report(done, len(files))
    shards = [np.load(file) for file in files]
    lengths = np.concatenate([s["lengths"] for s in shards])
    return Pool(
        ids=np.concatenate([s["ids"] for s in shards]),
        parts=np.concatenate([s["parts"] for s in shards]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
    )


def _write_shard(
    settings: PoolSettings,
    tokenizer: PreTrainedTokenizerFast,
    form: Form,
    folder: Path,
    shard: int,
) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    ids: list[int] = []
    parts: list[int] = []
    lengths: list[int] = []
    for segments in form.demonstrations(settings, shard, SHARD):
        encoded = tokenizer([s.text for s in segments], add_special_tokens=False)["input_ids"]
        for segment, piece in zip(segments, encoded, strict=True):
            ids += piece
            parts += [PARTS[segment.part]] * len(piece)
        lengths.append(sum(len(piece) for piece in encoded))
    target = folder / f"shard-{shard:03d}.npz"
    temporary = target.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        ids=np.array(ids, dtype=np.uint16),
        parts=np.array(parts, dtype=np.uint8),
        lengths=np.array(lengths, dtype=np.int32),
    )
    os.replace(temporary, target)
