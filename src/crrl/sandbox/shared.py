"""Files that prepared workspaces have in common: kept once, and hard-linked into each.

The trees of a repository's tasks differ in a few files. No box writes to them: they are the overlay's lower layer.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

CANNOT_LINK = (errno.EMLINK, errno.EXDEV, errno.EPERM)  # too many links, another disk, a disk without links


class SharedFiles:
    """By content and mode, below `root`. Safe for several processes; a file in it is whole."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def put(self, content: bytes, mode: int, target: str | bytes, made: Callable[[bytes], bytes] = bytes) -> None:
        """`target` becomes a file of `made(content)`, which is asked for where no such file is there. Raises OSError,
        FileExistsError where `target` is there."""
        name = hashlib.sha256(content).hexdigest()
        folder = os.path.join(self.root, name[:2])
        place = os.path.join(folder, f"{name[2:]}-{mode:o}")
        try:
            os.link(place, target)
        except FileNotFoundError:  # the first
            write_new(target, mode, made(content))
            os.makedirs(folder, exist_ok=True)
            with contextlib.suppress(OSError):  # another process was first, or it cannot be shared
                os.link(target, place)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            write_new(target, mode, made(content))


def write_new(full: str | bytes, mode: int, content: bytes) -> None:
    """A new file. Raises FileExistsError where something is there, a link too."""
    fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(fd, "wb") as file:
        file.write(content)
