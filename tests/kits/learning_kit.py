"""A very small model, its tokenizer, and sources of rows that are functions of the step."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

from crrl.conf.schema import Config
from crrl.learning.api import Row
from crrl.learning.make_trainer import make_trainer
from crrl.learning.source import StepBatch
from crrl.learning.trainer import RepairTrainer

torch.set_num_threads(1)
gc.freeze()  # each train() collects garbage: not through all of torch and transformers again
VOCAB = 64


def tiny_model(seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return Qwen3ForCausalLM(config).float()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(VOCAB - 2)} | {"<eos>": VOCAB - 2, "<pad>": VOCAB - 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words)), eos_token="<eos>", pad_token="<pad>"
    )
    tokenizer.chat_template = "{{ messages }}"
    return tokenizer


def make_row(rng: random.Random, weight: float = 1.0, n: int | None = None, advantage: float | None = None) -> Row:
    """Two stretches of trained tokens with context before, between and after."""
    n = n or rng.randint(12, 40)
    mask = [int(3 <= i < 6 or 8 <= i < n - 2) for i in range(n)]
    return Row(
        ids=[rng.randrange(VOCAB - 2) for _ in range(n)],
        loss_mask=mask,
        logprobs=[-rng.uniform(2.0, 6.5) * m for m in mask],
        versions=[0 if m else -1 for m in mask],
        advantage=rng.uniform(-1, 1) if advantage is None else advantage,
        weight=weight,
        episode=f"e{rng.random()}",
        group="g",
    )


class Rows:
    """A source of rows that is a function of the step, and what it heard of steps taken."""

    def __init__(self, make: Callable[[int], StepBatch], stop_at: int | None = None) -> None:
        self.make, self.stop_at = make, stop_at
        self.taken: list[tuple[int, dict[str, float]]] = []

    def __call__(self, step: int) -> StepBatch:
        torch.rand(3)  # whoever serves rows may draw global noise; a resumed run must not care
        if step == self.stop_at:
            raise KeyError("stop")
        return self.make(step)

    def on_step(self, step: int, metrics: dict[str, float]) -> None:
        self.taken.append((step, dict(metrics)))


def random_rows(step: int) -> StepBatch:
    rng = random.Random(step)
    return StepBatch([make_row(rng) for _ in range(6)], episodes=8, metrics={"reward": 0.25})


def config(**settings: float | str) -> Config:
    """Settings by name: `loss`, `beta`... are of the objective, the others of the trainer."""
    made = Config()
    made.objective.length_normaliser = 64
    made.trainer.max_steps, made.trainer.max_grad_norm, made.trainer.warmup_steps = 1, 0.0, 0
    for name, value in settings.items():
        part = made.objective if hasattr(made.objective, name) else made.trainer
        assert hasattr(part, name), name
        setattr(part, name, value)
    return made


def trainer_of(folder: Path, source: Rows, model=None, resume_from: Path | None = None, **settings) -> RepairTrainer:
    model = tiny_model() if model is None else model
    return make_trainer(model, tiny_tokenizer(), config(**settings), folder, source, source.on_step, resume_from)


class Gradients(TrainerCallback):
    """The gradients of each step, before they are applied."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def one_step(folder: Path, batch: StepBatch, model=None, **settings) -> tuple[dict[str, torch.Tensor], dict]:
    """The gradients and the metrics of one update on `batch`."""
    source = Rows(lambda _: batch)
    trainer = trainer_of(folder, source, model, **settings)
    trainer.add_callback(gradients := Gradients())
    trainer.train()
    return gradients.steps[0], source.taken[0][1]
