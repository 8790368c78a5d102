"""Several ranks train as one does: DDP on two and three processes, gloo, the real trainer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from learning_kit import Rows, config, make_row, tiny_model, tiny_tokenizer
from ranks_kit import on_ranks

from crrl.engines.load import load_model
from crrl.learning import checkpoint
from crrl.learning.make_trainer import make_trainer
from crrl.learning.ranks import ALONE, Ranks, Stopped
from crrl.learning.source import StepBatch

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(600)]
STEPS = 4
SETTINGS: list[dict[str, Any]] = [
    {"loss": "grpo"},  # a mean over rows
    {"loss": "dr_grpo", "max_grad_norm": 0.5, "beta": 0.2},  # a constant
    {"loss": "bnpo"},  # a mean over tokens of a micro-batch
    {"loss": "dapo"},  # over tokens of the step
    # Several updates, ratios of rows, importance weights, a reference that follows.
    {
        **{"loss": "grpo", "level": "sequence", "clip": 0.05, "old": "trainer", "correction": "sequence_truncate"},
        **{"updates_per_batch": 2, "beta": 0.2, "every": 1, "mixup": 0.5},
    },
]


def rows(step: int) -> StepBatch:
    """Seven rows of several weights; one; none at all; five."""
    rng = random.Random(step)
    weights = [1.0, 0.5, 0.5, 1.0, 0.25, 1.0, 1.0]
    count = (7, 1, 0, 5)[step % 4]
    return StepBatch([make_row(rng, weight) for weight in weights[:count]], episodes=9, metrics={"reward": 0.25})


def trained(ranks: Ranks, folder: Path, settings: Sequence[dict[str, Any]]) -> list[Any]:
    """For each: the metrics of all steps, and the weights."""
    results = []
    for number, setting in enumerate(settings):
        source = Rows(rows)
        made = config(max_steps=STEPS, learning_rate=1e-3, tokens_per_micro_batch=60, **setting)
        model = tiny_model()
        trainer = make_trainer(
            *(model, tiny_tokenizer(), made, folder / str(number), source, source.on_step), ranks=ranks
        )
        trainer.train()
        results.append((source.taken, {name: value.detach().numpy() for name, value in model.named_parameters()}))
    return results


def apart(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    return max(abs(found[name] - value).max() for name, value in wanted.items())


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_as_one_does(tmp_path: Path, size: int) -> None:
    settings = SETTINGS if size == 2 else SETTINGS[:1]
    alone = trained(ALONE, tmp_path / "alone", settings)
    found = on_ranks(trained, size, tmp_path / "ranks", settings)
    for setting, (metrics, weights), *others in zip(settings, alone, *found, strict=True):
        for rank, (told, theirs) in enumerate(others):
            assert apart(theirs, weights) < 1e-6, (setting, rank)
            assert bool(told) == (rank == 0)
        for (_, mine), (_, wanted) in zip(others[0][0], metrics, strict=True):
            exact = mine.keys() - {"computed_tokens"}
            assert {k: mine[k] for k in exact} == pytest.approx({k: wanted[k] for k in exact}, abs=1e-5), setting


def resumed(ranks: Ranks, folder: Path, stop_at: int | None, resume_from: Path | None) -> dict[str, Any]:
    """The weights at the end, or where it stopped."""
    source = Rows(rows, stop_at)
    made = config(max_steps=STEPS, save_steps=2, learning_rate=1e-4, tokens_per_micro_batch=60)
    model = load_model(resume_from) if resume_from else tiny_model()
    trainer = make_trainer(
        *(model, tiny_tokenizer(), made, folder, source, source.on_step), resume_from=resume_from, ranks=ranks
    )
    try:
        trainer.train()
    except (KeyError, Stopped):
        assert stop_at is not None
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def test_a_checkpoint_of_two_ranks_fits_any_number(tmp_path: Path) -> None:
    straight = resumed(ALONE, tmp_path / "alone", None, None)
    on_ranks(resumed, 2, tmp_path / "two", 2, None)
    found = checkpoint.latest(tmp_path / "two")
    assert found is not None and found.name == "step-2" and checkpoint.verify(found).ranks == 2
    assert apart(resumed(ALONE, tmp_path / "one", None, found), straight) < 1e-6
    for weights in on_ranks(resumed, 3, tmp_path / "three", None, found):
        assert apart(weights, straight) < 1e-6
