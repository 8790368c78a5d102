"""The peak of a training process, measured beside the estimate: `python -m crrl.learning.peak FOLDER tokens=N row=N`.

A process of its own, because a peak is a process's: it loads the model, takes two steps with the longest rows of the
budgets (`dry_step.longest_rows`), and prints both numbers as JSON. A step has two micro-batches: the second one meets
the gradients of the first. Linux counts the peak; glibc's heap is part of it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from crrl.conf.schema import Config
from crrl.engines.load import load_model, load_tokenizer
from crrl.learning import lora
from crrl.learning.dry_step import longest_rows
from crrl.learning.make_trainer import make_trainer
from crrl.learning.memory import budget_of, estimate, shape_of
from crrl.learning.source import StepBatch

STEPS = 2  # the first makes the moments


@dataclass(frozen=True)
class Peak:
    """Bytes, of the process without an engine; `cpu_s`: CPU-seconds of the last step."""

    model: str
    tokens: int
    row: int
    measured: int
    estimated: int
    cpu_s: float


def measure(config: Config) -> Peak:
    """On this process, which should have done nothing else yet."""
    folder = Path(config.model.path)
    config.trainer.max_steps, config.trainer.warmup_steps, config.trainer.learning_rate = STEPS, 0, 0.0
    config.trainer.save_steps = 10**9
    shape = shape_of(folder, config.adapter.targets)
    budget = budget_of(shape.context, config)
    two = replace(budget, tokens=2 * budget.tokens, trained=2 * budget.trained)
    rows = longest_rows(two, min(shape.vocabulary, 900))
    model = lora.trainable(folder, config.adapter, 0) if config.adapter.name == "lora" else load_model(folder)
    took: list[float] = []
    began = time.process_time()

    def source(step: int) -> StepBatch:
        nonlocal began
        began = time.process_time()
        return StepBatch(list(rows), len(rows))

    def on_step(step: int, metrics: dict[str, float]) -> None:
        took.append(time.process_time() - began)
        if step == STEPS - 1:
            raise _Enough

    with tempfile.TemporaryDirectory() as run:
        trainer = make_trainer(model, load_tokenizer(folder), config, Path(run), source, on_step)
        restart()
        with contextlib.suppress(_Enough):
            trainer.train()
    estimated = estimate(shape, config, device="cpu").trainer
    return Peak(folder.name, budget.tokens, budget.row, reached(), estimated, took[-1])


class _Enough(Exception):
    """No checkpoint is wanted."""


def restart() -> int:
    """This process's peak counts from here on. Returns the bytes that it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def reached() -> int:
    """Bytes, this process's peak since `restart`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def main(words: list[str]) -> None:
    """Settings: `tokens=`, `row=`, `lora=RANK`, `checkpointing=1`, `threads=`."""
    folder, given = words[0], dict(word.split("=", 1) for word in words[1:])
    config = Config()
    config.model.path = folder
    config.trainer.tokens_per_micro_batch = int(given["tokens"])
    config.engine.context = int(given["row"])
    config.agent.tokens = int(given["row"])
    config.trainer.gradient_checkpointing = "checkpointing" in given
    if "lora" in given:
        config.adapter.name, config.adapter.r = "lora", int(given["lora"])
    torch.set_num_threads(int(given.get("threads", 1)))
    print(json.dumps(asdict(measure(config))))


if __name__ == "__main__":
    main(sys.argv[1:])
