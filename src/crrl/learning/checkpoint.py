"""Checkpoints: written whole or not at all, and verified before use (invariant 8).

This is the envelope; the files in it are Hugging Face's own (`trainer_state.py`). A checkpoint is written under a
temporary name (`begin`), flushed, and renamed (`seal`), so a folder `step-N` is complete whenever the run was killed.
Its manifest (`crrl.json`) has the length and checksum of every file, the number of steps (the cursor: steps of the
journal before N are consumed), and the fingerprint of the run's first policy, which tells checkpoints of other runs
apart.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crrl.errors import CrrlError
from crrl.learning import best

FOLDER = "checkpoints"
MANIFEST = "crrl.json"
SCHEMA = 2
"""1 had the trainer's state in a file of our own (`older_checkpoint.py`)."""


@dataclass(frozen=True)
class Checkpoint:
    """The policy after `step` updates, written by so many `ranks`. `path` is also a Hugging Face model or adapter
    folder, fit for `model.path=`."""

    path: Path
    step: int
    policy: str
    ranks: int = 1


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of `runs/NAME/checkpoints`, oldest first; not verified."""
    found = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name[5:]))


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run folder, verified; None if there is none.

    Raises:
        CrrlError: it is damaged, or the disk that holds it is not there.
    """
    folder = run / FOLDER
    if folder.is_symlink() and not folder.is_dir():
        raise CrrlError(
            f"The checkpoints of {run.name} are in {folder.readlink()}, which is not there.",
            f"Mount that disk. If it has another name now: ln -sfn NEW_PLACE {folder}",
        )
    found = checkpoints(folder)
    return verify(found[-1]).path if found else None


def of_policy(path: Path, policy: str) -> Checkpoint:
    """A verified checkpoint, if it descends from the policy with this fingerprint. Raises CrrlError."""
    found = verify(path)
    if found.policy != policy:
        raise CrrlError(
            f"{path} is a checkpoint of another run: it began with policy {found.policy}, this one with {policy}.",
            f"Remove it, or start a new run from it: crrl train RECIPE model.path={path}",
        )
    return found


def verify(path: Path) -> Checkpoint:
    """Raises CrrlError: it is not crrl's, has missing or changed files, or was written by a newer crrl."""
    older = [p for p in checkpoints(path.parent) if p != path]
    remedy = (
        f"Remove that folder to resume from {older[-1].name}: rm -r {path}"
        if older
        else f"Remove that folder to restart from the run's first policy: rm -r {path}"
    )
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if (schema := int(manifest["schema"])) > SCHEMA:  # whatever else it holds
            raise CrrlError(
                f"{path} was written by a newer crrl (schema {schema}; this one knows {SCHEMA}).",
                "Use that version: pip install --upgrade coderepair-rl",
            )
        step, policy, ranks = int(manifest["step"]), str(manifest["policy"]), int(manifest.get("ranks", 1))
        files = {str(name): (int(size), int(crc)) for name, (size, crc) in manifest["files"].items()}
    except OSError as error:
        raise CrrlError(
            f"{path} is not a checkpoint of crrl: it has no readable {MANIFEST}.",
            "To start from another program's model: crrl train RECIPE model.path=FOLDER. Otherwise: " + remedy,
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CrrlError(f"{path / MANIFEST} is damaged ({type(error).__name__}: {error}).", remedy) from error
    for name, (size, crc) in files.items():
        file = path / name
        if not file.is_file():
            raise CrrlError(f"Checkpoint {path} is incomplete: {name} is missing.", remedy)
        if file.stat().st_size != size or _crc(file) != crc:
            raise CrrlError(f"Checkpoint {path} is damaged: {name} has changed since it was written.", remedy)
    return Checkpoint(path, step, policy, ranks)


def begin(folder: Path, step: int) -> Path:
    """The folder in which the files of `folder/step-N` are written. It is no checkpoint before `seal`."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):
        _delete(leftover)
    new = folder / f".writing-step-{step}"
    new.mkdir()
    return new


def seal(new: Path, policy: str, keep: int, ranks: int = 1) -> Checkpoint:
    """Makes a checkpoint of what was written since `begin`: on the disk, with checksums, under its own name. Only the
    newest `keep` remain, and the best (`best.py`)."""
    folder, final = new.parent, new.with_name(new.name.removeprefix(".writing-"))
    step = int(final.name[5:])
    files = sorted(p for p in new.rglob("*") if p.is_file())
    listed = {str(p.relative_to(new)): (p.stat().st_size, _crc(p)) for p in files}
    manifest = {"schema": SCHEMA, "step": step, "policy": policy, "ranks": ranks, "files": listed}
    (new / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in [*files, new / MANIFEST, *(p for p in new.rglob("*") if p.is_dir()), new]:
        flush(path)
    if final.exists():  # the run resumed from an earlier one
        _remove(final)
    os.rename(new, final)
    flush(folder)
    found = checkpoints(folder)
    kept = {*found[-keep:], best.point(folder)}
    for old in found:
        if old not in kept:
            _remove(old)
    return Checkpoint(final, step, policy, ranks)


@contextmanager
def writing(folder: Path, step: int) -> Iterator[None]:
    """Around `begin`, what writes the files, and `seal`: nothing is left of a checkpoint that failed.

    Raises:
        CrrlError: the disk is full. Earlier checkpoints are untouched.
    """
    try:
        yield
    except Exception as error:
        _delete(folder / f".writing-step-{step}")
        if _is_full(error):
            raise CrrlError(
                f"The disk that holds {folder} is full: no checkpoint of step {step} was written. "
                "The earlier ones are untouched.",
                f"Free some space, then resume: crrl train resume={folder.parent.name}",
            ) from error
        raise


def write(folder: Path, step: int, policy: str, keep: int, fill: Callable[[Path], None]) -> Checkpoint:
    """In one process: `fill` writes the files into the folder it gets. Raises CrrlError: the disk is full."""
    with writing(folder, step):
        new = begin(folder, step)
        fill(new)
        return seal(new, policy, keep)


# Where they are ------------------------------------------------------------------------------------------------


def elsewhere(run: Path, checkpoints_dir: str) -> Path:
    """The folder of this run's checkpoints in `trainer.checkpoints_dir`. Raises CrrlError: another run's are there."""
    target = Path(checkpoints_dir).expanduser().absolute() / run.name
    if not (run / FOLDER).is_symlink() and target.is_dir() and any(target.iterdir()):
        raise CrrlError(
            f"{target} has the checkpoints of another run of this name.",
            "Choose another name, run=NAME, or another trainer.checkpoints_dir.",
        )
    return target


def link(run: Path, checkpoints_dir: str) -> None:
    """`run/checkpoints` leads to `checkpoints_dir`, so that everything else finds them where they always are."""
    if (run / FOLDER).is_symlink():
        return
    target = elsewhere(run, checkpoints_dir)
    target.mkdir(parents=True, exist_ok=True)
    (run / FOLDER).symlink_to(target)
    flush(run)


def _remove(path: Path) -> None:
    """Renames it first: a killed removal must not leave half a checkpoint that looks whole."""
    grave = path.with_name(f".writing-removed-{path.name}")
    os.rename(path, grave)
    shutil.rmtree(grave)


def _delete(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def _crc(file: Path) -> int:
    crc = 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def flush(path: Path) -> None:
    """What is written of a file, or of a folder's names, is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_full(error: BaseException | None) -> bool:
    """safetensors and torch wrap the system's error, or only its message; torch's own writer says only that it failed
    (`inline_container`)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(said in str(error) for said in ("No space left", "os error 28", "inline_container.cc")):
            return True
        error = error.__cause__ or error.__context__
    return False
