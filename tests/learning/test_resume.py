"""A run that was stopped and goes on from its checkpoint ends as if it had never been stopped."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learning_kit import Rows, config, random_rows, tiny_model, tiny_tokenizer, trainer_of
from transformers import PreTrainedModel

from crrl.conf.schema import Adapter
from crrl.engines.fingerprint import fingerprint
from crrl.engines.load import load_model, load_tokenizer
from crrl.errors import CrrlError
from crrl.learning import checkpoint, older_checkpoint
from crrl.learning.lora import trainable
from crrl.learning.make_trainer import make_trainer
from crrl.learning.source import StepBatch
from crrl.models import model_folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


class Draws(Rows):
    """Random numbers drawn in each step, of every kind that a checkpoint keeps."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__(random_rows, stop_at)
        self.drawn: dict[int, tuple[float, float, float]] = {}

    def __call__(self, step: int) -> StepBatch:
        self.drawn[step] = random.random(), np.random.random(), torch.rand(()).item()
        return super().__call__(step)


def other_past() -> None:
    """Another process, with another past."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(12345)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, adapter: str) -> None:
    """Killed in step 3, after two steps were saved: step 2 is taken again."""
    settings: dict[str, Any] = {
        **{"max_steps": 5, "save_steps": 2, "keep_checkpoints": 1, "learning_rate": 1e-2, "max_grad_norm": 1.0},
        **{"schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.1},
    }
    tiny_model().save_pretrained(tmp_path / "model")

    def model(source: Path) -> PreTrainedModel:
        return trainable(source, Adapter(adapter, r=4), seed=7)

    whole = Draws()
    trainer_of(tmp_path / "whole", whole, model(tmp_path / "model"), **settings).train()

    stopped = Draws(stop_at=3)
    with pytest.raises(KeyError, match="stop"):
        trainer_of(tmp_path / "run", stopped, model(tmp_path / "model"), **settings).train()
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None and checkpoint.verify(found).step == 2
    other_past()
    resumed = Draws()
    trainer_of(tmp_path / "run", resumed, model(found), found, **settings).train()

    assert [step for step, _ in resumed.taken] == [2, 3, 4]
    assert stopped.taken + resumed.taken[1:] == whole.taken and resumed.taken[0] == whole.taken[2]
    assert resumed.drawn == {step: drawn for step, drawn in whole.drawn.items() if step >= 2}
    assert len({metrics["learning_rate"] for _, metrics in whole.taken}) == 5
    ends = [tmp_path / name / "checkpoints" / "step-5" for name in ("whole", "run")]
    assert names(ends[0].parent) == names(ends[1].parent) == ["step-5"]
    assert names(ends[0]) == names(ends[1])
    weights = {
        "none": {"model.safetensors", "config.json"},
        "lora": {"adapter_model.safetensors", "adapter_config.json", "base.json"},
    }
    assert weights[adapter] | {"tokenizer.json", "optimizer.pt", "rng_state.pth"} <= set(names(ends[0]))
    for file in names(ends[0]):
        if file.endswith((".pt", ".pth")):
            assert_equal(*(torch.load(end / file, weights_only=False) for end in ends))
        elif file != checkpoint.MANIFEST:  # it has checksums of torch's archives, whose names differ
            assert (ends[0] / file).read_bytes() == (ends[1] / file).read_bytes(), file


def assert_equal(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b)
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def test_a_checkpoint_is_a_model_folder(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, Rows(random_rows), learning_rate=1e-2)
    trainer.train()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    for name, tensor in load_model(found).state_dict().items():
        assert torch.equal(tensor, trainer.policy.state_dict()[name])
    assert load_tokenizer(found).chat_template == trainer.processing_class.chat_template
    first = fingerprint(model_folder("tiny"))
    assert fingerprint(found) != checkpoint.verify(found).policy == first


@pytest.mark.parametrize("missing", ["optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_a_checkpoint_without_a_trainers_state_is_refused(tmp_path: Path, missing: str) -> None:
    trainer_of(tmp_path, Rows(random_rows), max_steps=1).train()
    whole = checkpoint.latest(tmp_path)
    assert whole is not None

    def fill(folder: Path) -> None:
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        for name in (missing, checkpoint.MANIFEST):
            (folder / name).unlink()

    part = checkpoint.write(tmp_path / "checkpoints", 2, "policy", 1, fill).path
    with pytest.raises(CrrlError, match=missing) as error:
        trainer_of(tmp_path, Rows(random_rows), resume_from=part)
    assert f"model.path={part}" in error.value.remedy


def test_a_checkpoint_of_before_goes_on_the_same(tmp_path: Path) -> None:
    """Schema 1: all of the trainer's state in `trainer.pt`."""
    settings: dict[str, Any] = {"max_steps": 3, "save_steps": 2, "learning_rate": 1e-2, "schedule": "cosine"}
    whole, stopped, resumed = Rows(random_rows), Rows(random_rows, stop_at=2), Rows(random_rows)
    trainer_of(tmp_path / "whole", whole, **settings).train()
    with pytest.raises(KeyError, match="stop"):
        trainer_of(tmp_path / "run", stopped, **settings).train()
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None
    as_before(found)
    assert older_checkpoint.is_older(found)
    older_checkpoint.rewrite(found)
    assert not older_checkpoint.is_older(found) and not (found / older_checkpoint.STATE).exists()
    trainer_of(tmp_path / "run", resumed, load_model(found), found, **settings).train()
    assert stopped.taken + resumed.taken == whole.taken
    ends = [tmp_path / name / "checkpoints" / "step-3" / "model.safetensors" for name in ("whole", "run")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def as_before(path: Path) -> None:
    """Lays a checkpoint out as schema 1 had it."""
    parts = {name: path / f"{name}.pt" for name in ("optimizer", "scheduler")}
    state = {name: torch.load(file, weights_only=True) for name, file in parts.items()}
    torch.save({**state, "rng": torch.get_rng_state()}, path / older_checkpoint.STATE)
    for file in (*parts.values(), path / "rng_state.pth", path / "trainer_state.json"):
        file.unlink()
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    (path / checkpoint.MANIFEST).unlink()
    files = {p.name: [p.stat().st_size, zlib.crc32(p.read_bytes())] for p in path.iterdir()}
    old = {"schema": 1, "step": manifest["step"], "policy": manifest["policy"], "files": files}
    (path / checkpoint.MANIFEST).write_text(json.dumps(old))


def test_a_checkpoint_of_before_without_readable_state_is_refused(tmp_path: Path) -> None:
    trainer_of(tmp_path, Rows(random_rows), max_steps=1).train()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    as_before(found)
    (found / older_checkpoint.STATE).write_bytes(b"not torch's")
    with pytest.raises(CrrlError, match=r"damaged: trainer\.pt"):
        older_checkpoint.rewrite(found)
    as_listed = json.loads((found / checkpoint.MANIFEST).read_text())
    as_listed["files"].pop(older_checkpoint.STATE)
    (found / checkpoint.MANIFEST).write_text(json.dumps(as_listed))
    with pytest.raises(CrrlError, match=r"trainer\.pt is not readable") as error:
        older_checkpoint.rewrite(found)
    assert "model.path=" in error.value.remedy


def test_a_resumed_run_keeps_its_first_policy_as_the_reference(tmp_path: Path) -> None:
    """`model.path=tiny` is a name, not a folder."""
    first = model_folder("tiny")

    def train(folder: Path, source: Rows, found: Path | None = None) -> None:
        made = config(max_steps=3, save_steps=2, learning_rate=1e-2, beta=0.3)
        model, tokenizer = load_model(found or first), load_tokenizer(first)
        make_trainer(model, tokenizer, made, folder, source, source.on_step, found).train()

    whole, stopped, resumed = Rows(random_rows), Rows(random_rows, stop_at=2), Rows(random_rows)
    train(tmp_path / "whole", whole)
    with pytest.raises(KeyError, match="stop"):
        train(tmp_path / "run", stopped)
    train(tmp_path / "run", resumed, checkpoint.latest(tmp_path / "run"))
    assert stopped.taken + resumed.taken == whole.taken and resumed.taken[0][1]["kl"] > 1e-4


def test_a_reference_that_is_no_longer_there_is_said(tmp_path: Path) -> None:
    made = config(max_steps=1, beta=0.3)
    made.model.path = str(tmp_path / "first")
    tiny_model().save_pretrained(made.model.path)
    source = Rows(random_rows)
    make_trainer(tiny_model(), tiny_tokenizer(), made, tmp_path, source, source.on_step).train()
    found = checkpoint.latest(tmp_path)
    tiny_model(seed=1).save_pretrained(made.model.path)
    made.trainer.max_steps = 2
    with pytest.raises(CrrlError, match=r"needs the run's first policy, \w+, as the reference") as error:
        make_trainer(tiny_model(), tiny_tokenizer(), made, tmp_path, source, source.on_step, found)
    assert error.value.remedy
