"""Checkpoints: what is damaged is refused; full disks and kills leave only whole ones."""

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
from learning_kit import Rows, random_rows, trainer_of

from crrl.engines.load import load_model
from crrl.errors import CrrlError
from crrl.learning import checkpoint


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fill(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(range(256)) * 40)
    (folder / "part").mkdir()
    (folder / "part" / "state").write_text("state")


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


RESUME = "resume from step-2: rm -r"
DAMAGES: list[tuple[Callable[[Path], Any], str, str]] = [
    (flip, "damaged: weights", RESUME),
    (lambda p: os.truncate(p / "weights", 100), "damaged: weights", RESUME),
    (lambda p: (p / "part" / "state").unlink(), "incomplete: part/state is missing", RESUME),
    (lambda p: os.truncate(p / checkpoint.MANIFEST, 60), "crrl.json is damaged", RESUME),
    (lambda p: (p / checkpoint.MANIFEST).write_bytes(b"\xff\xfe\0"), "crrl.json is damaged", RESUME),
    (manifest(lambda m: []), "crrl.json is damaged", RESUME),
    (manifest(lambda m: m | {"files": ["weights"]}), "crrl.json is damaged", RESUME),
    (manifest(lambda m: {k: v for k, v in m.items() if k != "step"}), "crrl.json is damaged", RESUME),
    (lambda p: (p / checkpoint.MANIFEST).unlink(), "is not a checkpoint of crrl", "model.path=FOLDER"),
    (manifest(lambda m: m | {"schema": checkpoint.SCHEMA + 1}), "newer crrl", "pip install --upgrade"),
    (
        manifest(lambda m: {"schema": checkpoint.SCHEMA + 1, "contents": "laid out otherwise"}),
        "newer crrl",
        "pip install --upgrade",
    ),
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
    assert error.value.remedy and "resume from" not in error.value.remedy


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
