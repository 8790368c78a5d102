"""What one rank meets ends all of them: one error, on rank 0, and nothing of the step is kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_kit import Rows, config, make_row, tiny_model, tiny_tokenizer
from ranks_kit import on_ranks
from torch import Tensor

from crrl.engines.api import WeightSource
from crrl.engines.local import LocalEngine
from crrl.errors import CrrlError
from crrl.learning import checkpoint
from crrl.learning.make_trainer import make_trainer
from crrl.learning.push import push_and_prove
from crrl.learning.ranks import Ranks, Stopped
from crrl.learning.source import StepBatch

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(600)]


def rows(step: int, broken: int | None = None) -> StepBatch:
    """Rows of falling length, so that it is known which rank has which; the advantage of `broken` is not a number."""
    rng = random.Random(step)
    made = [make_row(rng, n=40 - n) for n in range(4)]
    if step == 1 and broken is not None:
        made[broken] = replace(made[broken], advantage=float("nan"))
    return StepBatch(made, episodes=4, metrics={})


def ended(ranks: Ranks, folder: Path, failing: str) -> tuple[str, str, list[int]]:
    """How the rank's training ended: type and text of the exception, and the steps that were told."""
    source = Rows(lambda step: rows(step, {"nan on rank 0": 0, "nan on rank 1": 1}.get(failing)))
    engine = Sender(tiny_model(), "hash", context=128) if ranks.main else None

    def on_step(step: int, metrics: dict[str, float]) -> None:
        assert engine is not None
        engine.fail_at = 3 if step == 1 and failing == "third tensor" else 0
        engine.blunt = step == 1 and failing == "wrong tensor"
        asyncio.run(push_and_prove(engine, trainer.policy, step + 1, ranks=ranks))
        if step == 1 and failing == "record":
            raise CrrlError("the journal's disk is full")
        source.on_step(step, metrics)

    def rows_of(step: int) -> StepBatch:
        if step == 1 and failing == "interrupt":
            raise KeyboardInterrupt
        return source(step)

    made = config(max_steps=3, save_steps=1, tokens_per_micro_batch=45, learning_rate=1e-3)
    trainer = make_trainer(tiny_model(), tiny_tokenizer(), made, folder, rows_of, on_step, ranks=ranks)
    if failing == "checkpoint" and ranks.main:
        (folder / "checkpoints").write_text("a file where a folder should be")
    try:
        trainer.train()
    except BaseException as error:
        return type(error).__name__, str(error), [step for step, _ in source.taken]
    finally:
        if engine is not None:
            engine.close()
    return "", "", [step for step, _ in source.taken]


class Sender(LocalEngine):
    """Fails after some tensors, or changes one."""

    fail_at, blunt = 0, False

    async def push(self, source: WeightSource, version: int) -> Any:
        return await super().push(_Source(source, self.fail_at, self.blunt), version)


class _Source:
    def __init__(self, source: WeightSource, fail_at: int, blunt: bool) -> None:
        self._source, self._fail_at, self._blunt = source, fail_at, blunt

    def adapter(self) -> None:
        return None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for number, (name, tensor) in enumerate(self._source.tensors(), 1):
            if number == self._fail_at:
                raise CrrlError("the connection broke")
            yield name, torch.roll(tensor, 1, 0) if self._blunt and "q_proj" in name else tensor


EXPECTED = {
    "nan on rank 0": ("TrainingError", "loss of step 1 is nan"),
    "nan on rank 1": ("TrainingError", "loss of step 1 is nan"),
    "third tensor": ("CrrlError", "the connection broke"),
    "wrong tensor": ("PushError", "is not the trainer's policy"),
    "record": ("CrrlError", "disk is full"),
    "interrupt": ("KeyboardInterrupt", ""),
    "checkpoint": ("NotADirectoryError", "checkpoints"),
}


def all_ended(ranks: Ranks, folder: Path) -> list[tuple[str, str, list[int]]]:
    return [ended(ranks, folder / failing.replace(" ", "-"), failing) for failing in EXPECTED]


def test_one_failure_ends_all_ranks(tmp_path: Path) -> None:
    for failing in EXPECTED:
        (tmp_path / failing.replace(" ", "-")).mkdir()
    main, other = on_ranks(all_ended, 2, tmp_path)
    for (failing, (kind, says)), found, theirs in zip(EXPECTED.items(), main, other, strict=True):
        assert found[0] == kind and says in found[1], (failing, found)
        assert theirs[0] == Stopped.__name__, (failing, theirs)
        if failing != "checkpoint":
            assert found[2] == [0], failing
            kept = checkpoint.latest(tmp_path / failing.replace(" ", "-"))
            assert kept is not None and kept.name == "step-1", failing
