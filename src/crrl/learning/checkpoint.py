"""Checkpoints: written whole or not at all, and verified before use (invariant 8).

A checkpoint is written under a temporary name, flushed, and renamed, so a folder `step-N` is complete whenever the run
was killed. Its manifest (`crrl.json`) has the length and checksum of every file, the number of steps (the cursor: steps
of the journal before N are consumed), and the fingerprint of the run's first policy, which tells checkpoints of other
runs apart.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from crrl.errors import CrrlError

MANIFEST = "crrl.json"
SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """The policy after `step` updates. `path` is also a Hugging Face model folder, fit for `model.path=`."""

    path: Path
    step: int
    policy: str


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of `runs/NAME/checkpoints`, oldest first; not verified."""
    found = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name[5:]))


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run folder, verified; None if there is none.

    Raises:
        CrrlError: it is damaged.
    """
    found = checkpoints(run / "checkpoints")
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
        step, policy = int(manifest["step"]), str(manifest["policy"])
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
    return Checkpoint(path, step, policy)


def write(folder: Path, step: int, policy: str, keep: int, fill: Callable[[Path], None]) -> Checkpoint:
    """Writes `folder/step-N` atomically. `fill` writes the files into the folder it gets. Only the newest `keep`
    checkpoints remain.

    Raises:
        CrrlError: the disk is full. Earlier checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    new, final = folder / f".writing-step-{step}", folder / f"step-{step}"
    try:
        new.mkdir()
        fill(new)
        files = sorted(p for p in new.rglob("*") if p.is_file())
        listed = {str(p.relative_to(new)): (p.stat().st_size, _crc(p)) for p in files}
        manifest = {"schema": SCHEMA, "step": step, "policy": policy, "files": listed}
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in [*files, new / MANIFEST, *(p for p in new.rglob("*") if p.is_dir()), new]:
            flush(path)
        if final.exists():  # the run resumed from an earlier one
            _remove(final)
        os.rename(new, final)
        flush(folder)
    except Exception as error:
        shutil.rmtree(new, ignore_errors=True)
        if _is_full(error):
            raise CrrlError(
                f"The disk that holds {folder} is full: no checkpoint of step {step} was written. "
                "The earlier ones are untouched.",
                f"Free some space, then resume: crrl train resume={folder.parent.name}",
            ) from error
        raise
    for old in checkpoints(folder)[:-keep]:
        _remove(old)
    return Checkpoint(final, step, policy)


def fingerprint(model: nn.Module) -> str:
    """The hash of a policy: name, shape and first values of every tensor. Cheap at any size."""
    h = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        h.update(f"{name} {tuple(tensor.shape)} ".encode())
        h.update(tensor.detach().flatten()[:64].to("cpu", torch.float32).numpy().tobytes())
    return h.hexdigest()


def _remove(path: Path) -> None:
    """Renames it first: a killed removal must not leave half a checkpoint that looks whole."""
    grave = path.with_name(f".writing-removed-{path.name}")
    os.rename(path, grave)
    shutil.rmtree(grave)


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
    """safetensors and torch wrap the system's error, or only its message."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if "No space left" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
