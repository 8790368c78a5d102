"""`crrl bench length`: what one row of growing length costs, with LoRA and checkpointed activations, beside plain TRL.

Each length and trainer has a process of its own (`python -m crrl.learning.bench_length TRAINER TOKENS FOLDER`), one
thread, a short row first to warm up. Every second token of the row's second half is trained. Both trainers must come
to the same gradients.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from crrl.conf.schema import Config
from crrl.learning import lora
from crrl.learning.api import Row
from crrl.learning.bench import Step, ours_of, settings, trl_of
from crrl.learning.bench_process import load, measured
from crrl.learning.memory import shape_of
from crrl.models import model_folder

LENGTHS = (1024, 4096, 16384)
WARM_UP = 64
TRAINERS = {"crrl": ours_of, "trl": trl_of}


@dataclass(frozen=True)
class Cost:
    """Of one forward and backward pass. `extra`: peak memory in bytes on top of what was there before the step;
    `norm`: of all gradients."""

    cpu_s: float
    extra: int
    norm: float


@dataclass(frozen=True)
class LengthBench:
    """`costs`: tokens of the row -> trainer -> its cost; None: it does not fit into memory."""

    model: str
    parameters: int
    costs: dict[int, dict[str, Cost | None]]
    load: str

    def lines(self) -> list[str]:
        name = Path(self.model).name
        return [
            f"One row, {name} ({self.parameters / 1e6:.1f} M parameters), LoRA, checkpointed; forward and backward "
            f"pass, one thread, load {self.load}:",
            "   tokens     crrl CPU-s  us/token   extra MiB      TRL CPU-s  us/token   extra MiB   gradients' norms",
            *(f"  {n:7,}{_cell(n, of['crrl'])}    {_cell(n, of['trl'])}   {_gap(of)}" for n, of in self.costs.items()),
        ]


def bench(tokens: Sequence[int] = LENGTHS, model: str = "tiny") -> LengthBench:
    """`model`: a model folder, or the name of a shipped one."""
    folder = model_folder(model)
    shape = shape_of(folder)
    costs: dict[int, dict[str, Cost | None]] = {}
    for n in tokens:
        found = {who: measured("crrl.learning.bench_length", who, str(n), str(folder)) for who in TRAINERS}
        costs[n] = {who: Cost(**cost) if cost else None for who, cost in found.items()}
    return LengthBench(str(folder), shape.parameters, costs, load())


def _cell(tokens: int, cost: Cost | None) -> str:
    if cost is None:
        return f"{'does not fit':>36}"
    return f"{cost.cpu_s:15.2f}{1e6 * cost.cpu_s / tokens:10.0f}{cost.extra / 2**20:12.0f}"[1:]


def _gap(of: dict[str, Cost | None]) -> str:
    ours, trl = of["crrl"], of["trl"]
    return f"differ by {abs(ours.norm / trl.norm - 1):.0e}" if ours and trl else "-"


def step(trainer: str, tokens: int, folder: Path) -> Step:
    config = _settings()
    vocabulary = min(900, shape_of(folder).vocabulary)
    rows = [[_row(WARM_UP, vocabulary)], [_row(tokens, vocabulary)]]
    model = lora.trainable(folder, config.adapter, 0)
    return TRAINERS[trainer](model, folder, rows.__getitem__, config)


def _settings() -> Config:
    config = settings()
    config.adapter.name, config.trainer.gradient_checkpointing = "lora", True
    config.trainer.max_grad_norm = 1e9  # the gradients as they are
    return config


def _row(tokens: int, vocabulary: int) -> Row:
    rng = random.Random(tokens)
    ids = [rng.randrange(vocabulary) for _ in range(tokens)]
    mask = [int(i > tokens // 2 and i % 2) for i in range(tokens)]
    # As if sampled evenly: scoring it would take the logits of the whole row.
    logprobs = [-math.log(vocabulary) * m for m in mask]
    return Row(ids, mask, logprobs, [m - 1 for m in mask], 1.0, 1.0, "e", "g")


def main(words: list[str]) -> None:
    trainer, tokens, folder = words
    torch.set_num_threads(1)
    found = step(trainer, int(tokens), Path(folder))
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in found.gradients.values()))
    print(json.dumps({"cpu_s": found.cpu_s, "extra": found.extra, "norm": norm}))


if __name__ == "__main__":
    main(sys.argv[1:])
