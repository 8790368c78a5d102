"""`crrl bench train`: the forward and backward pass of a step, beside TRL's own `GRPOTrainer` on the same rows.

Eight rows of 1,000 shared and 300 own tokens, and eight of 1,300 own ones; half of what is their own is trained. Both
trainers have the same model (the tiny policy, and a wider one with random weights), loss, attention (sdpa) and number
of threads (one), in one process, in turns; TRL's gets its rows as padded matrices, ready-made. `bench_length.py` uses
the same two for one row of growing length.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOTrainer

from crrl.conf.schema import Config
from crrl.engines.load import load_model, load_tokenizer
from crrl.learning import losses, peak
from crrl.learning.api import Row
from crrl.learning.batches import micro_batches, tensors
from crrl.learning.logprobs import score
from crrl.learning.make_trainer import arguments, make_trainer, never
from crrl.learning.source import StepBatch
from crrl.models import model_folder

ROWS = 8
Policy = Callable[[], PreTrainedModel]
RowsOf = Callable[[int], Sequence[Row]]
"""Of a step."""
TURNS, STEPS = 2, 2  # the first step of a turn warms up


def tiny() -> PreTrainedModel:
    return load_model(model_folder("tiny"))


def wide() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 2}
    return Qwen2ForCausalLM(
        Qwen2Config(**sizes, num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True)
    )


# Of which policy; shared and own tokens; how many times TRL's time ours must be.
SHAPES: tuple[tuple[Policy, int, int, float], ...] = (
    (tiny, 1000, 300, 3.0),
    (tiny, 0, 1300, 1.0),
    (wide, 1000, 300, 3.0),
)


@dataclass(frozen=True)
class Shape:
    """CPU-seconds of a step, medians; `gap`: the largest difference of the gradients, of their largest value."""

    policy: str
    shared: int
    own: int
    target: float
    computed: int
    ours_s: float
    trl_s: float
    gap: float


@dataclass(frozen=True)
class TrainBench:
    shapes: list[Shape]

    def lines(self) -> list[str]:
        rows = [
            f"  {shape.policy:6}{shape.shared:5} + {shape.own:5}"
            f"{ROWS * (shape.shared + shape.own):9,}{shape.computed:10,}"
            f"{shape.ours_s:8.2f}{shape.trl_s:8.2f}{shape.trl_s / shape.ours_s:7.1f} (target {shape.target:g})"
            f"{shape.gap:11.1e}"
            for shape in self.shapes
        ]
        return [
            f"Forward and backward pass of {ROWS} rows, CPU-seconds, one thread:",
            "        shared +   own    tokens  computed    crrl     TRL  ratio             gradients",
            *rows,
        ]


def bench() -> TrainBench:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return TrainBench([_shape(*shape) for shape in SHAPES])
    finally:
        torch.set_num_threads(threads)


def _shape(policy: Policy, shared: int, own: int, target: float) -> Shape:
    rows, folder = _rows(policy, shared, own, ROWS), model_folder("tiny")
    ours, trl = [], []
    for _ in range(TURNS):
        ours.append(ours_of(policy(), folder, lambda _: rows, settings()))
        trl.append(trl_of(policy(), folder, lambda _: rows, settings()))
    gradients, wanted = ours[-1].gradients, trl[-1].gradients
    largest = max(tensor.abs().max().item() for tensor in wanted.values())
    gap = max((gradients[name] - wanted[name]).abs().max().item() for name in wanted) / largest
    computed = sum(m.tokens for m in micro_batches(rows, "rows", ROWS, 10**9, sharing=True))
    ours_s, trl_s = (statistics.median(step.cpu_s for step in side) for side in (ours, trl))
    return Shape(policy.__name__, shared, own, target, computed, ours_s, trl_s, gap)


def _rows(policy: Policy, shared: int, own: int, count: int) -> list[Row]:
    """On-policy: their log-probs are the policy's, so that no token is at the edge of the clip."""
    model = policy()
    rng = random.Random(shared + own)
    begin = [rng.randrange(900) for _ in range(shared)]
    rows = []
    for i in range(count):
        mask = [0] * shared + [i % 2 for i in range(own)]
        ids = begin + [rng.randrange(900) for _ in range(own)]
        logprobs = [logprob * m for logprob, m in zip([0.0, *score(model, ids)], mask, strict=True)]
        versions = [m - 1 for m in mask]
        rows.append(Row(ids, mask, logprobs, versions, rng.uniform(-1, 1), 1.0, f"e{i}", "g"))
    return rows


def settings() -> Config:
    config = Config()
    config.trainer.max_steps, config.trainer.warmup_steps, config.trainer.learning_rate = STEPS, 0, 0.0
    config.trainer.tokens_per_micro_batch, config.trainer.save_steps = 10**9, STEPS
    return config


@dataclass(frozen=True)
class Step:
    """The last step of a training. `extra`: its peak memory in bytes, on top of what was there when it began."""

    cpu_s: float
    extra: int
    gradients: dict[str, Tensor]


def ours_of(model: PreTrainedModel, folder: Path, rows_of: RowsOf, config: Config) -> Step:
    def source(step: int) -> StepBatch:
        rows = list(rows_of(step))
        return StepBatch(rows, len(rows))

    with tempfile.TemporaryDirectory() as run:
        made = make_trainer(*(model, load_tokenizer(folder), config, Path(run)), source, lambda step, metrics: None)
        return _measured(made)


class _Plain(GRPOTrainer):
    """TRL's own, but for where its rows come from."""

    batches: list[dict[str, Tensor]]

    def _prepare_inputs(self, inputs: Any) -> dict[str, Tensor]:
        return self.batches[self.state.global_step]


def trl_of(model: PreTrainedModel, folder: Path, rows_of: RowsOf, config: Config) -> Step:
    from datasets import Dataset  # type: ignore[import-untyped]

    def padded(rows: Sequence[Row]) -> dict[str, Tensor]:
        (micro,) = micro_batches(rows, "rows", len(rows), 10**9, sharing=False)
        return tensors(micro, tokenizer.pad_token_id, made.accelerator.device)

    tokenizer = load_tokenizer(folder)
    with tempfile.TemporaryDirectory() as run:
        made = _Plain(
            model=model,
            processing_class=tokenizer,
            reward_funcs=never,
            args=arguments(config, Path(run), losses.make(config.objective)),
            train_dataset=Dataset.from_dict({"prompt": [""] * STEPS}),
        )
        made.remove_callback(PrinterCallback)
        made.batches = [padded(rows_of(step)) for step in range(STEPS)]
        return _measured(made)


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._resident = peak.restart()
        self._began = time.process_time()

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        cpu_s, extra = time.process_time() - self._began, peak.reached() - self._resident
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        self.steps.append(Step(cpu_s, extra, gradients))


def _measured(trainer: GRPOTrainer) -> Step:
    trainer.add_callback(clock := _Clock())
    trainer.train()
    return clock.steps[-1]
