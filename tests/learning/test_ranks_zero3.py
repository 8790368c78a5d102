"""ZeRO-3 in two gloo processes: as one process trains, resumed exactly, pushed layer by layer (`make test-zero3`)."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_kit import Rows, config, make_row, tiny_model, tiny_tokenizer
from ranks_kit import on_ranks

from crrl.conf.schema import Config
from crrl.engines.device import has_bfloat16
from crrl.engines.load import load_model
from crrl.engines.local import LocalEngine
from crrl.errors import CrrlError
from crrl.learning import checkpoint, push, sharding, trainer_state
from crrl.learning.make_trainer import make_trainer
from crrl.learning.push import ModuleWeights, _layers
from crrl.learning.ranks import ALONE, Ranks, Stopped
from crrl.learning.source import StepBatch

pytest.importorskip("deepspeed", reason="the extra [deepspeed] is not installed")
pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def rows(step: int) -> StepBatch:
    """Seven rows of several weights; one; none at all; then five each time."""
    rng = random.Random(step)
    count = (7, 1, 0)[step] if step < 3 else 5
    weights = [1.0, 0.5, 0.5, 1.0, 0.25, 1.0, 1.0][:count]
    return StepBatch([make_row(rng, weight) for weight in weights], episodes=9, metrics={"reward": 0.25})


def settings(model: Path, lora: bool, zero3: bool, **trainer: Any) -> Config:
    made = config(learning_rate=1e-4, tokens_per_micro_batch=60, max_grad_norm=0.5, **trainer)
    made.model.path = str(model)
    made.launch.name = "zero3" if zero3 else "local"
    if lora:
        made.adapter.name, made.adapter.r = "lora", 4
    return made


def trained(
    ranks: Ranks, made: Config, folder: Path, stop_at: int | None = None, resume_from: Path | None = None
) -> dict[str, Any]:
    """The merged weights at the end, the metrics of each step, and DeepSpeed's count of updates."""
    sharding.KEPT_WHOLE = 0
    source = Rows(rows, stop_at)
    at = resume_from or Path(made.model.path)
    policy = sharding.load(made, at, ranks)
    trainer = make_trainer(
        *(policy, tiny_tokenizer(), made, folder, source, source.on_step), resume_from=resume_from, ranks=ranks
    )
    try:
        trainer.train()
    except (KeyError, Stopped):
        assert stop_at is not None
    weights = {name: tensor.float().numpy().copy() for name, tensor in ModuleWeights(trainer.policy).tensors()}
    engine = getattr(trainer, "deepspeed", None)
    return {"weights": weights, "taken": source.taken, "updates": getattr(engine, "global_steps", None)}


def zero3(body: Any, *args: Any) -> list[Any]:
    return on_ranks(body, 2, *args, deepspeed=True)


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["weights"].keys() == wanted["weights"].keys()
    apart = {name: abs(found["weights"][name] - value).max() for name, value in wanted["weights"].items()}
    assert max(apart.values()) < 1e-6, apart
    for (step, mine), (of, theirs) in zip(found["taken"], wanted["taken"], strict=True):
        assert step == of
        for key in theirs.keys() - {"computed_tokens"}:
            assert mine[key] == pytest.approx(theirs[key], abs=2e-5), (step, key)


def test_three_steps_are_those_of_one_process(tmp_path: Path, model: Path) -> None:
    """All weights, in shards; the last step has no rows. One update a step, whatever the micro-batches."""
    alone = trained(ALONE, settings(model, False, False, max_steps=3), tmp_path / "alone")
    found = zero3(trained, settings(model, False, True, max_steps=3), tmp_path / "zero3")
    assert [each["updates"] for each in found] == [2, 2]
    assert_same(found[0], alone)
    kept = load_model(tmp_path / "zero3/checkpoints/step-3").state_dict()
    assert all(torch.equal(kept[name], torch.from_numpy(value)) for name, value in found[0]["weights"].items())


def test_lora_three_and_three_steps_are_six(tmp_path: Path, model: Path) -> None:
    made = settings(model, True, True, max_steps=6, save_steps=3)
    alone = trained(ALONE, settings(model, True, False, max_steps=6), tmp_path / "alone")
    straight, _ = zero3(trained, made, tmp_path / "straight")
    assert_same(straight, alone)
    first, _ = zero3(trained, made, tmp_path / "halves", 3)
    found = checkpoint.latest(tmp_path / "halves")
    assert found is not None and found.name == "step-3" and checkpoint.verify(found).ranks == 2
    second, _ = zero3(trained, made, tmp_path / "halves", None, found)
    second["taken"] = first["taken"] + second["taken"]
    assert_same(second, straight)
    shutil.copytree(found, tmp_path / "other/checkpoints/step-3")
    with pytest.raises(CrrlError, match="shards of 2 processes") as error:
        trained(ALONE, settings(model, True, False, max_steps=6), tmp_path / "other", None, found)
    assert "launch.processes=2" in error.value.remedy
    with pytest.raises(CrrlError, match="shards of 2 processes"):
        trainer_state.require(checkpoint.verify(found), 3)
    unsharded = checkpoint.latest(tmp_path / "alone")
    assert unsharded is not None
    with pytest.raises(CrrlError, match="was not written by launch=zero3"):
        trainer_state.require(checkpoint.verify(unsharded), 2)


@pytest.mark.parametrize("lora", [True, False])
def test_mixed_precision_is_near_to_that_of_one_process(tmp_path: Path, model: Path, lora: bool) -> None:
    """The weights of the passes are bfloat16, and small updates are kept all the same."""
    if not has_bfloat16(torch.device("cpu")):
        pytest.skip("this CPU has no bfloat16")
    alone = trained(ALONE, settings(model, lora, False, max_steps=2, dtype="mixed"), tmp_path / "alone")
    found, _ = zero3(trained, settings(model, lora, True, max_steps=2, dtype="mixed"), tmp_path / "zero3")
    for (_, mine), (_, theirs) in zip(found["taken"], alone["taken"], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=0.02) and mine["rows"] == theirs["rows"]
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.1)
    for name, value in alone["weights"].items():
        assert abs(found["weights"][name] - value).max() < 2e-3 + abs(value).max() / 128, name


def pushed(ranks: Ranks, made: Config, folder: Path) -> tuple[float, int, int, int]:
    """Of the push after a step: its error; most numbers that were whole at once while it went on; those of the largest
    layer; and how many were whole after it."""
    sharding.KEPT_WHOLE = 0
    engine = LocalEngine(load_model(made.model.path), "hash", context=128) if ranks.main else None
    policy = sharding.load(made, Path(made.model.path), ranks)
    largest = max(sum(p.ds_numel for p in layer.values()) for layer in _layers(policy))
    found: list[Any] = []

    class Watched(ModuleWeights):
        breaks, most, left = True, 0, 0

        def tensors(self) -> Any:
            with closing(super().tensors()) as tensors:
                for number, each in enumerate(tensors):
                    Watched.most = max(Watched.most, sum(p.numel() for p in policy.parameters()))
                    if number == 2 and self.breaks:
                        raise CrrlError("the connection broke")
                    yield each
            Watched.left = sum(p.numel() for p in policy.parameters())

    def on_step(step: int, metrics: dict[str, float]) -> None:
        assert engine is not None
        push.ModuleWeights = Watched  # type: ignore[misc]
        with pytest.raises(CrrlError, match="broke"):
            asyncio.run(push.push_and_prove(engine, policy, 1, ranks=ranks))
        Watched.breaks = False
        error = asyncio.run(push.push_and_prove(engine, policy, 1, ranks=ranks))
        found.extend([error, Watched.most, largest, Watched.left])

    try:
        make_trainer(*(policy, tiny_tokenizer(), made, folder, rows, on_step), ranks=ranks).train()
    finally:
        if engine is not None:
            engine.close()
    return tuple(found)


def test_a_push_puts_one_layer_together_at_a_time(model: Path, tmp_path: Path) -> None:
    """Also after one that broke off at its third tensor: the other rank is not left behind."""
    (error, most, largest, left), _ = zero3(pushed, settings(model, False, True, max_steps=1), tmp_path)
    assert error < 2e-5
    assert 0 < most <= largest and left == 0
