"""Files that several workspaces share: stored once, and hard-linked into each.

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
    """Keyed by content and mode, below `root`. Safe for several processes; its files are always complete."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def put(self, content: bytes, mode: int, target: str | bytes, made: Callable[[bytes], bytes] = bytes) -> None:
        """Make `target` a file of `made(content)`, called only if that file does not exist yet. Raises OSError,
        FileExistsError if `target` exists."""
        name = hashlib.sha256(content).hexdigest()
        folder = os.path.join(self.root, name[:2])
        place = os.path.join(folder, f"{name[2:]}-{mode:o}")
        try:
            os.link(place, target)
        except FileNotFoundError:  # the first
            write_new(target, mode, made(content))
            os.makedirs(folder, exist_ok=True)
            with contextlib.suppress(OSError):  # another process was first, or sharing does not work
                os.link(target, place)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            write_new(target, mode, made(content))


def write_new(full: str | bytes, mode: int, content: bytes) -> None:
    """A new file. Raises FileExistsError if `path` exists, even as a link."""
    fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(fd, "wb") as file:
        file.write(content)
