"""The run's folder: there whole, with its journal and its settings, or not there at all (invariant 8).

It is made under another name beside its own and renamed: whatever is killed, and however full the disk is, there is
never a folder that neither `resume` nor a new run of that name accepts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError
from crrl.rollout import journal_file
from crrl.rollout.journal import Journal

CONFIG = "config.yaml"


def create(folder: Path, meta: Mapping[str, Any], config: str) -> Journal:
    """The open journal of a new run. Raises CrrlError: the folder is there, or cannot be made."""
    new: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        new.chmod(0o777 & ~_umask())
        lock = journal_file.lock(new)  # until it has its name: who finds it unlocked knows that its maker is gone
        try:
            (new / CONFIG).write_text(config)
            _flush(new / CONFIG)
            Journal.fill(new, meta)
            _flush(new)
            os.rename(new, folder)
            _flush(folder.parent)
        finally:
            os.close(lock)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            remedy = f"Go on with it: crrl train resume={folder.name}. Otherwise choose another run=NAME."
            raise CrrlError(f"{folder} exists.", remedy) from error
        raise CrrlError(f"The run folder {folder} cannot be made: {error}.", "Check the disk, or runs_dir.") from error
    except CrrlError as error:
        if new is None or str(new) not in error.message:
            raise
        message = error.message.replace(str(new), str(folder))
        raise CrrlError(
            f"{message} There is no run {folder.name} yet.", "Put that right, and start it again."
        ) from None
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
    return Journal.open(folder)


def remove_stale(folder: Path) -> None:
    """What was left by a process that was killed while it made this run's folder."""
    for stale in folder.parent.glob(f"{_prefix(folder)}*"):
        with contextlib.suppress(CrrlError, OSError):
            os.close(journal_file.lock(stale))
            shutil.rmtree(stale)


def _prefix(folder: Path) -> str:
    return f".new-{folder.name}-"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
