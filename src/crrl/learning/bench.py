"""`crrl bench train`: the forward and backward pass of a step, beside TRL's own `GRPOTrainer` on the same rows.

Eight rows of 1,000 shared and 300 own tokens, and eight of 1,300 own ones; half of what is their own is trained. Both
trainers have the same model (the tiny policy, and a wider one with random weights), loss, attention (sdpa) and number
of threads (one), in one process, in turns; TRL's gets its rows as padded matrices, ready-made. Then one row of growing
length, with checkpointed activations.
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
from crrl.learning import losses
from crrl.learning.api import Row
from crrl.learning.batches import micro_batches, tensors
from crrl.learning.logprobs import score
from crrl.learning.source import StepBatch
from crrl.learning.trainer import arguments, make_trainer, never
from crrl.models import model_folder

ROWS = 8
Policy = Callable[[], PreTrainedModel]
LENGTHS = (1024, 4096, 8192)
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
    """`lengths`: tokens of one row -> CPU-seconds of a step."""

    shapes: list[Shape]
    lengths: dict[int, float]

    def lines(self) -> list[str]:
        rows = [
            f"  {shape.policy:6}{shape.shared:5} + {shape.own:5}"
            f"{ROWS * (shape.shared + shape.own):9,}{shape.computed:10,}"
            f"{shape.ours_s:8.2f}{shape.trl_s:8.2f}{shape.trl_s / shape.ours_s:7.1f} (target {shape.target:g})"
            f"{shape.gap:11.1e}"
            for shape in self.shapes
        ]
        grown = ", ".join(f"{n:,}: {1e6 * s / n:.0f}" for n, s in self.lengths.items())
        return [
            f"Forward and backward pass of {ROWS} rows, CPU-seconds, one thread:",
            "        shared +   own    tokens  computed    crrl     TRL  ratio             gradients",
            *rows,
            f"One row, tiny policy, checkpointed, CPU-microseconds per token by its length: {grown}",
        ]


def bench() -> TrainBench:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return TrainBench([_shape(*shape) for shape in SHAPES], {n: _long(n) for n in LENGTHS})
    finally:
        torch.set_num_threads(threads)


def _shape(policy: Policy, shared: int, own: int, target: float) -> Shape:
    rows = _rows(policy, shared, own, ROWS)
    ours, trl = [], []
    for _ in range(TURNS):
        ours.append(_ours(policy, rows))
        trl.append(_trl(policy, rows))
    (_, gradients), (_, wanted) = ours[-1], trl[-1]
    largest = max(tensor.abs().max().item() for tensor in wanted.values())
    gap = max((gradients[name] - wanted[name]).abs().max().item() for name in wanted) / largest
    computed = sum(m.tokens for m in micro_batches(rows, "rows", ROWS, 10**9, sharing=True))
    ours_s, trl_s = (statistics.median(s for s, _ in side) for side in (ours, trl))
    return Shape(policy.__name__, shared, own, target, computed, ours_s, trl_s, gap)


def _long(tokens: int) -> float:
    return _ours(tiny, _rows(tiny, 0, tokens, 1), gradient_checkpointing=True)[0]


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


def _config(**trainer: Any) -> Config:
    config = Config()
    config.trainer.max_steps, config.trainer.warmup_steps, config.trainer.learning_rate = STEPS, 0, 0.0
    config.trainer.tokens_per_micro_batch, config.trainer.save_steps = 10**9, STEPS
    for name, value in trainer.items():
        setattr(config.trainer, name, value)
    return config


def _ours(policy: Policy, rows: Sequence[Row], **trainer: Any) -> tuple[float, dict[str, Tensor]]:
    batch = StepBatch(list(rows), len(rows))
    folder = model_folder("tiny")
    with tempfile.TemporaryDirectory() as run:
        made = make_trainer(
            *(policy(), load_tokenizer(folder), _config(**trainer), Path(run)),
            *(lambda step: batch, lambda step, metrics: None),
        )
        return _measured(made)


class _Plain(GRPOTrainer):
    """TRL's own, but for where its rows come from."""

    batch: dict[str, Tensor]

    def _prepare_inputs(self, inputs: Any) -> dict[str, Tensor]:
        return self.batch


def _trl(policy: Policy, rows: Sequence[Row]) -> tuple[float, dict[str, Tensor]]:
    from datasets import Dataset  # type: ignore[import-untyped]

    config, folder = _config(), model_folder("tiny")
    tokenizer, loss = load_tokenizer(folder), losses.make(config.objective)
    with tempfile.TemporaryDirectory() as run:
        made = _Plain(
            model=policy(),
            processing_class=tokenizer,
            reward_funcs=never,
            args=arguments(config, Path(run), loss),
            train_dataset=Dataset.from_dict({"prompt": [""] * STEPS}),
        )
        made.remove_callback(PrinterCallback)
        (micro,) = micro_batches(rows, "rows", len(rows), 10**9, sharing=False)
        made.batch = tensors(micro, tokenizer.pad_token_id, made.accelerator.device)
        return _measured(made)


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.gradients: dict[str, Tensor] = {}

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.process_time()

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.seconds.append(time.process_time() - self._began)
        self.gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _measured(trainer: GRPOTrainer) -> tuple[float, dict[str, Tensor]]:
    trainer.add_callback(clock := _Clock())
    trainer.train()
    return statistics.median(clock.seconds[1:]), clock.gradients
