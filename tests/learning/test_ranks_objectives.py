"""Several updates of one step under ZeRO-3, where DeepSpeed makes each inside `backward`: those of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
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
    alone = trained(ALONE, several_updates(model, False), tmp_path / "alone")
    found = zero3(trained, several_updates(model, True), tmp_path / "zero3")
    assert [each["updates"] for each in found] == [6, 6]
    assert_same(found[0], alone)
    assert [metrics["learning_rate"] for _, metrics in found[0]["taken"]] == pytest.approx([1e-3, 5e-4])
