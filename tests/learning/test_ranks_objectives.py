"""Objectives on several ranks: those of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks_kit import on_ranks
from test_ranks_zero3 import assert_same, model, settings, trained, zero3  # noqa: F401 - a fixture

from crrl.conf.schema import Config
from crrl.learning.ranks import ALONE

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]


def several_updates(folder: Path, sharded: bool) -> Config:
    """GSPO with a clip that acts on some rows."""
    made = settings(folder, True, sharded, max_steps=2, schedule="linear")
    made.trainer.learning_rate = 1e-3
    objective = made.objective
    objective.loss, objective.level, objective.clip = "grpo", "sequence", 0.02
    objective.old, objective.correction, objective.updates_per_batch = "trainer", "sequence_truncate", 3
    return made


def test_updates_of_one_step(tmp_path: Path, model: Path) -> None:  # noqa: F811
    """DeepSpeed makes each inside `backward`."""
    alone = trained(ALONE, several_updates(model, False), tmp_path / "alone")
    found = zero3(trained, several_updates(model, True), tmp_path / "zero3")
    assert [each["updates"] for each in found] == [6, 6]
    assert_same(found[0], alone)
    assert [metrics["learning_rate"] for _, metrics in found[0]["taken"]] == pytest.approx([1e-3, 5e-4])


def test_a_reference_that_is_an_adapter(tmp_path: Path, model: Path) -> None:  # noqa: F811
    """On DDP: scored with the policy's adapter set aside, and followed on each rank."""
    made = settings(model, True, False, max_steps=2)
    made.trainer.learning_rate = 1e-3
    made.objective.beta, made.objective.every, made.objective.mixup = 0.5, 1, 0.5
    alone = trained(ALONE, made, tmp_path / "alone")
    found = on_ranks(trained, 2, made, tmp_path / "ddp")
    assert_same(found[0], alone)
    assert [metrics["kl"] for _, metrics in alone["taken"]][1] > 0
