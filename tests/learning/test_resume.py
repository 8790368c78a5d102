"""A run that was stopped and goes on from its checkpoint ends as if it had never been stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_kit import Rows, config, random_rows, tiny_model, trainer_of

from crrl.engines.load import load_model, load_tokenizer
from crrl.errors import CrrlError
from crrl.learning import checkpoint
from crrl.learning.trainer import STATE, make_trainer
from crrl.models import model_folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed in step 3, after two steps were saved: step 2 is taken again."""
    settings: dict[str, Any] = {
        **{"max_steps": 5, "save_steps": 2, "keep_checkpoints": 1, "learning_rate": 1e-2, "max_grad_norm": 1.0},
        **{"schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.1},
    }
    tiny_model().save_pretrained(tmp_path / "model")
    whole = Rows(random_rows)
    trainer_of(tmp_path / "whole", whole, load_model(tmp_path / "model"), **settings).train()

    stopped = Rows(random_rows, stop_at=3)
    with pytest.raises(KeyError, match="stop"):
        trainer_of(tmp_path / "run", stopped, load_model(tmp_path / "model"), **settings).train()
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None and checkpoint.verify(found).step == 2
    torch.manual_seed(12345)  # another process, with another past
    resumed = Rows(random_rows)
    trainer_of(tmp_path / "run", resumed, load_model(found), found, **settings).train()

    assert [step for step, _ in resumed.taken] == [2, 3, 4]
    assert stopped.taken + resumed.taken[1:] == whole.taken and resumed.taken[0] == whole.taken[2]
    assert len({metrics["learning_rate"] for _, metrics in whole.taken}) == 5
    ends = [tmp_path / name / "checkpoints" / "step-5" for name in ("whole", "run")]
    assert names(ends[0].parent) == names(ends[1].parent) == ["step-5"]
    assert names(ends[0]) == names(ends[1])
    for file in names(ends[0]):
        if file not in (STATE, checkpoint.MANIFEST):
            assert (ends[0] / file).read_bytes() == (ends[1] / file).read_bytes(), file
    states = [torch.load(end / STATE, weights_only=True) for end in ends]
    assert_equal(states[0]["optimizer"], states[1]["optimizer"])
    assert_equal(states[0]["scheduler"], states[1]["scheduler"])
    assert checkpoint.verify(ends[0]).policy == checkpoint.verify(ends[1]).policy
    assert checkpoint.verify(ends[0]).policy == checkpoint.fingerprint(tiny_model())


def assert_equal(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
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
    assert checkpoint.fingerprint(load_model(found)) != checkpoint.verify(found).policy


def test_a_checkpoint_without_a_trainers_state_is_refused(tmp_path: Path) -> None:
    other = checkpoint.write(tmp_path / "checkpoints", 1, "policy", 1, lambda p: None).path
    with pytest.raises(CrrlError, match=STATE) as error:
        trainer_of(tmp_path, Rows(random_rows), resume_from=other)
    assert "model.path=" in error.value.remedy
    shutil.rmtree(other)
    checkpoint.write(tmp_path / "checkpoints", 1, "policy", 1, lambda p: (p / STATE).write_bytes(b"not torch's"))
    with pytest.raises(CrrlError, match=STATE):
        trainer_of(tmp_path, Rows(random_rows), resume_from=other)


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
    trainer_of(tmp_path, Rows(random_rows), max_steps=1, beta=0.3).train()  # of a model that is not model.path's
    found = checkpoint.latest(tmp_path)
    with pytest.raises(CrrlError, match=r"needs the run's first policy, \w+, as the reference") as error:
        trainer_of(tmp_path, Rows(random_rows), resume_from=found, max_steps=2, beta=0.3)
    assert error.value.remedy
