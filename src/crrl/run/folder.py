"""The run folder: complete, with its journal and settings, or absent (invariant 8).

It is made under a temporary name and renamed, so neither a kill nor a full disk leaves a folder that both `resume` and
a new run of that name would refuse.
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
from crrl.learning.checkpoint import flush
from crrl.rollout import journal_file
from crrl.rollout.journal import Journal

CONFIG = "config.yaml"


def create(folder: Path, meta: Mapping[str, Any], config: str, files: Mapping[str, bytes] | None = None) -> Journal:
    """Create the folder of a new run, with further `files` by name, and open its journal. Raises CrrlError: it exists,
    or cannot be made."""
    new: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        new.chmod(0o777 & ~_umask())
        lock = journal_file.lock(new)  # held until the rename: an unlocked one is stale
        try:
            (new / CONFIG).write_text(config)
            flush(new / CONFIG)
            for name, content in (files or {}).items():
                (new / name).write_bytes(content)
                flush(new / name)
            Journal.fill(new, meta)
            flush(new)
            os.rename(new, folder)
            flush(folder.parent)
        finally:
            os.close(lock)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            remedy = f"Resume it: crrl train resume={folder.name}. Or choose another name: run=NAME."
            raise CrrlError(f"{folder} exists.", remedy) from error
        raise CrrlError(f"The run folder {folder} cannot be made: {error}.", "Check the disk, or runs_dir.") from error
    except CrrlError as error:
        if new is None or str(new) not in error.message:
            raise
        message = error.message.replace(str(new), str(folder))
        raise CrrlError(f"{message} There is no run {folder.name} yet.", "Fix this, then start again.") from None
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
    return Journal.open(folder)


def remove_stale(folder: Path) -> None:
    """Remove the leftovers of processes that were killed while making this run's folder."""
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
