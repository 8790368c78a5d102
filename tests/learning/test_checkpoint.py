"""Checkpoints: resumed is as if never stopped; damaged is refused; full disks and kills leave only whole ones."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_kit import Rows, random_rows, tiny_model, trainer_of

from crrl.engines.load import load_model, load_tokenizer
from crrl.errors import CrrlError
from crrl.learning import checkpoint
from crrl.learning.trainer import STATE


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fill(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(range(256)) * 40)
    (folder / "part").mkdir()
    (folder / "part" / "state").write_text("state")


# Resuming -----------------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed in step 3, after two steps were saved: step 2 is taken again."""
    settings: dict[str, Any] = {
        **{"max_steps": 5, "save_steps": 2, "keep_checkpoints": 1, "learning_rate": 1e-2, "max_grad_norm": 1.0},
        **{"schedule": "cosine", "warmup_steps": 1, "weight_decay": 0.1},
    }
    tiny_model().save_pretrained(tmp_path / "model")
    whole = Rows(random_rows)
    trainer_of(tmp_path / "whole", whole, load_model(tmp_path / "model"), **settings).train()

    stopped = Rows(random_rows, stop_at=3)
    with pytest.raises(KeyError, match="stop"):
        trainer_of(tmp_path / "run", stopped, load_model(tmp_path / "model"), **settings).train()
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None and checkpoint.step_of(found) == 2
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


# What is not believed -----------------------------------------------------------------------------------------


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        values = json.loads((path / checkpoint.MANIFEST).read_text())
        (path / checkpoint.MANIFEST).write_text(json.dumps(change(values)))

    return damage


def flip(path: Path) -> None:
    content = bytearray((path / "weights").read_bytes())
    content[700] ^= 1
    (path / "weights").write_bytes(content)


GO_ON = "go on from step-2: rm -r"
DAMAGES: list[tuple[Callable[[Path], Any], str, str]] = [
    (flip, "damaged: weights", GO_ON),
    (lambda p: os.truncate(p / "weights", 100), "damaged: weights", GO_ON),
    (lambda p: (p / "part" / "state").unlink(), "incomplete: part/state is missing", GO_ON),
    (lambda p: os.truncate(p / checkpoint.MANIFEST, 60), "crrl.json is damaged", GO_ON),
    (lambda p: (p / checkpoint.MANIFEST).write_bytes(b"\xff\xfe\0"), "crrl.json is damaged", GO_ON),
    (manifest(lambda m: []), "crrl.json is damaged", GO_ON),
    (manifest(lambda m: m | {"files": ["weights"]}), "crrl.json is damaged", GO_ON),
    (manifest(lambda m: {k: v for k, v in m.items() if k != "step"}), "crrl.json is damaged", GO_ON),
    (lambda p: (p / checkpoint.MANIFEST).unlink(), "is not a checkpoint of crrl", "model.path=FOLDER"),
    (manifest(lambda m: m | {"schema": 2}), "newer crrl", "pip install --upgrade"),
    (manifest(lambda m: {"schema": 2, "contents": "laid out otherwise"}), "newer crrl", "pip install --upgrade"),
]


@pytest.mark.parametrize(("damage", "says", "remedy"), DAMAGES)
def test_what_is_not_whole_is_refused_with_a_remedy(tmp_path: Path, damage: Callable, says: str, remedy: str) -> None:
    folder = tmp_path / "run" / "checkpoints"
    for step in (2, 4):
        checkpoint.write(folder, step, "policy", 2, fill)
    assert checkpoint.latest(tmp_path / "run") == folder / "step-4"
    damage(folder / "step-4")
    with pytest.raises(CrrlError) as error:
        checkpoint.latest(tmp_path / "run")
    assert says in error.value.message and str(folder / "step-4") in error.value.message
    assert remedy in error.value.remedy
    shutil.rmtree(folder / "step-4")  # what the remedy says
    assert checkpoint.latest(tmp_path / "run") == folder / "step-2"
    damage(folder / "step-2")
    with pytest.raises(CrrlError) as error:
        checkpoint.latest(tmp_path / "run")
    assert error.value.remedy and "go on from" not in error.value.remedy


def test_a_checkpoint_without_a_trainers_state_is_refused(tmp_path: Path) -> None:
    other = checkpoint.write(tmp_path / "checkpoints", 1, "policy", 1, fill).path
    with pytest.raises(CrrlError, match=STATE) as error:
        trainer_of(tmp_path, Rows(random_rows), resume_from=other)
    assert "model.path=" in error.value.remedy
    shutil.rmtree(other)
    checkpoint.write(tmp_path / "checkpoints", 1, "policy", 1, lambda p: (p / STATE).write_bytes(b"not torch's"))
    with pytest.raises(CrrlError, match=STATE):
        trainer_of(tmp_path, Rows(random_rows), resume_from=other)


# Full disks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # loaded weights may still be mapped


@pytest.mark.parametrize("room", [0, 40_000, 120_000])  # it ends in the weights, and in the optimizer's state
def test_a_full_disk_leaves_the_older_checkpoint_whole(small_disk: Path, room: int) -> None:
    folder = small_disk / "run" / "checkpoints"
    rows = Rows(lambda step: (leave(small_disk, room) if step == 1 else None) or random_rows(step))
    with pytest.raises(CrrlError, match=r"is full.*step 2") as error:
        trainer_of(small_disk / "run", rows, max_steps=2, save_steps=1).train()
    assert "resume=run" in error.value.remedy
    assert names(folder) == ["step-1"]
    (small_disk / "ballast").unlink()
    found = checkpoint.latest(small_disk / "run")
    assert found is not None
    trainer_of(small_disk / "run", Rows(random_rows), load_model(found), found, max_steps=2).train()
    assert names(folder) == ["step-1", "step-2"] and checkpoint.latest(small_disk / "run") == folder / "step-2"


def leave(disk: Path, room: int) -> None:
    """Fill the disk but for `room` bytes."""
    free = os.statvfs(disk)
    with open(disk / "ballast", "wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - room)))


def test_a_file_over_its_limit_is_a_full_disk(tmp_path: Path) -> None:
    """As quotas are met: the limit is on the size of a file."""
    checkpoint.write(tmp_path / "run", 1, "policy", 2, fill)
    with limited(5_000), pytest.raises(CrrlError, match="is full"):
        checkpoint.write(tmp_path / "run", 2, "policy", 2, fill)
    assert names(tmp_path / "run") == ["step-1"] and checkpoint.verify(tmp_path / "run" / "step-1").step == 1


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Kills --------------------------------------------------------------------------------------------------------


def test_killed_at_any_operation_only_whole_checkpoints_are_there(tmp_path: Path) -> None:
    """`kill -9` before each file-system operation of a write, one after the other."""
    for step in (9, 10):
        checkpoint.write(tmp_path / "before", step, "policy", 2, fill)
    died, last = 0, False
    while not last:
        folder = tmp_path / str(died) / "run" / "checkpoints"
        shutil.copytree(tmp_path / "before", folder)
        last = not killed_at(died, lambda folder=folder: checkpoint.write(folder, 11, "policy", 2, fill))
        died += not last
        there = [checkpoint.verify(path).step for path in checkpoint.checkpoints(folder)]
        assert there in ([9, 10], [9, 10, 11], [10, 11]), f"killed at operation {died}"
        checkpoint.write(folder, 12, "policy", 2, fill)
        newest = "step-11" if 11 in there else "step-10"
        assert names(folder) == sorted([newest, "step-12"])
        assert checkpoint.latest(folder.parent) == folder / "step-12"
    assert there == [10, 11] and died > 15


def killed_at(n: int, write: Callable[[], Any]) -> bool:
    """Run `write` in a process that is killed at its n-th file-system operation. False: it had fewer."""
    child = os.fork()
    if child == 0:
        left = n

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event == "open" or event.startswith(("os.", "shutil.")):
                if left == 0:
                    signal.raise_signal(signal.SIGKILL)
                left -= 1

        sys.addaudithook(hook)
        write()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (8, 9, 10, 100):  # by number, not by name
        checkpoint.write(tmp_path, step, "policy", 3, fill)
    assert names(tmp_path) == ["step-10", "step-100", "step-9"]
    checkpoint.write(tmp_path, 101, "policy", 1, fill)
    assert names(tmp_path) == ["step-101"]
