"""Folders that are there whole or not at all: filled under another name beside their place, then renamed.

Invariant: a kill, an error or a full disk leaves no half-made entry of a cache, only a leftover that `cache.py` knows
by its prefix. Several processes may make the same folder: the first wins, and the others' content is the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(made: Path, prefix: str = "tmp") -> Iterator[Path]:
    """A folder to fill, readable by the uid that boxes run as, which is `made` once the block has ended."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=prefix, ignore_cleanup_errors=True) as partial:
        folder = Path(partial) / "made"
        folder.mkdir()
        folder.chmod(0o755)
        yield folder
        try:
            os.rename(folder, made)
        except OSError:
            if not made.is_dir():  # else: another process was faster
                raise
