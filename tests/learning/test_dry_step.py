"""The step before the first: as large as the budgets allow, without effect, and its failure says what to lower.

It is done on a GPU; here it is asked for on the CPU, where it is the same code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from learning_kit import VOCAB, Rows, config, random_rows, tiny_model, tiny_tokenizer, trainer_of

from crrl.learning import dry_step
from crrl.learning.batches import micro_batches
from crrl.learning.make_trainer import make_trainer
from crrl.learning.memory import Budget, budget_of
from crrl.learning.plan import DoesNotFit
from crrl.learning.trainer import RepairTrainer

SETTINGS: list[dict[str, Any]] = [
    {},
    {"gradient_checkpointing": True},
    {"beta": 0.1},
    {"old": "trainer", "correction": "token_truncate", "updates_per_batch": 2},
]


def trained(folder: Path, dry: bool, steps: int = 2, **settings: Any) -> tuple[RepairTrainer, list[dict[str, float]]]:
    """A run, with a dry step before each of its steps or without."""
    made: list[RepairTrainer] = []

    def rows(step: int) -> Any:
        if dry:
            made[0].dry_step(made[0].model_wrapped)
            assert all(p.grad is None for p in made[0].policy.parameters())
        torch.rand(1)
        return random_rows(step)

    source = Rows(rows)
    trainer = trainer_of(folder, source, max_steps=steps, learning_rate=1e-3, tokens_per_micro_batch=600, **settings)
    made.append(trainer)
    trainer.train()
    return trainer, [metrics for _, metrics in source.taken]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ",".join(s) or "default")
def test_nothing_of_it_is_left(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Weights, moments, metrics and random numbers are those of a run without it, bit for bit."""
    plain, told = trained(tmp_path / "a", False, **settings)
    dry, again = trained(tmp_path / "b", True, **settings)
    assert told == again
    for a, b in zip(plain.policy.state_dict().values(), dry.policy.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert plain.optimizer is not None and dry.optimizer is not None
    for a, b in zip(plain.optimizer.state.values(), dry.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("exp_avg", "exp_avg_sq", "step"))


def test_random_numbers_are_where_they_were(tmp_path: Path) -> None:
    before: list[torch.Tensor] = []

    def rows(step: int) -> Any:
        before.append(torch.get_rng_state())
        trainer.dry_step(trainer.model_wrapped)
        assert torch.equal(before[-1], torch.get_rng_state())
        return random_rows(step)

    trainer = trainer_of(tmp_path, Rows(rows), tokens_per_micro_batch=600)
    trainer.train()
    assert before


@pytest.mark.parametrize("tokens", [100, 256, 600, 5000])
def test_it_is_as_long_as_the_budgets_allow(tmp_path: Path, tokens: int) -> None:
    """One micro-batch, of rows as long as the context: more of them where the budget has room, and never less."""
    seen: list[tuple[int, int]] = []
    model = tiny_model()

    def note(_module: Any, _args: Any, kwargs: Any) -> None:
        if "input_ids" in kwargs:
            seen.append((kwargs["input_ids"].shape[1], int(kwargs["position_ids"].max()) + 1))

    model.base_model.register_forward_pre_hook(note, with_kwargs=True)

    def rows(step: int) -> Any:
        seen.clear()
        trainer.dry_step(trainer.model_wrapped)
        assert seen[-1] == (max(1, tokens // 256) * 255, 255)  # before it: can rows be shared?
        return random_rows(step)

    source = Rows(rows)
    trainer = trainer_of(tmp_path, source, model, tokens_per_micro_batch=tokens)
    trainer.train()
    assert source.taken


def test_rows_are_trained_as_far_as_the_sampled_tokens_reach() -> None:
    few = Budget(tokens=1024, trained=300, row=256)
    rows = dry_step.longest_rows(few, VOCAB)
    assert len(rows) == 4 and all(len(row.ids) == 256 and sum(row.loss_mask) == 75 for row in rows)
    assert all(0 <= id < VOCAB for row in rows for id in row.ids)
    (micro,) = micro_batches(rows, "rows", 4, 1024, sharing=True)
    assert micro.tokens == 4 * 255  # they share nothing
    everything = dry_step.longest_rows(Budget(tokens=256, trained=256, row=256), VOCAB)
    assert sum(everything[0].loss_mask) == 255  # the first token has no log-prob


def test_the_engines_context_bounds_rows_and_the_step_bounds_what_is_trained() -> None:
    made = config(tokens_per_micro_batch=100)
    made.engine.context, made.agent.tokens = 512, 3
    assert budget_of(4096, made) == Budget(512, 8 * 8 * 3, 512)
    made.engine.context = 0
    assert budget_of(4096, made).row == 4096


class Small:
    """Runs out of memory at so many tokens, as a GPU would."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, _module: Any, _args: Any, kwargs: Any) -> None:
        if "input_ids" in kwargs and kwargs["input_ids"].numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def test_running_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    model = tiny_model()
    model.base_model.register_forward_pre_hook(Small(400), with_kwargs=True)
    asked: list[int] = []

    def rows(step: int) -> Any:
        with pytest.raises(DoesNotFit, match="600 tokens") as error:
            trainer.dry_step(trainer.model_wrapped)
        assert "rows of 256" in error.value.message and "2.00 GiB" in error.value.message
        assert "tokens_per_micro_batch" in error.value.remedy and "gradient_checkpointing" in error.value.remedy
        assert all(p.grad is None for p in trainer.policy.parameters())
        asked.append(step)
        return random_rows(step)  # small ones: the run could go on

    trainer = make_trainer(
        *(model, tiny_tokenizer(), config(tokens_per_micro_batch=600), tmp_path, Rows(rows), lambda *_: None)
    )
    trainer.train()
    assert asked == [0]


def test_it_comes_before_the_first_rows_on_a_gpu_alone() -> None:
    assert dry_step.due(torch.device("cuda")) and not dry_step.due(torch.device("cpu"))
