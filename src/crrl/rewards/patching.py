"""A patch onto a checkout, on the host's side: which files come out how. No symlink is followed.

`apply` is strict: every context line must be where the hunk says it is. git's own offset search, and all
that is not a plain change of text files, is left to `git apply`, in an empty folder that holds only the
touched files. Both ways give the same result where both apply (tested).
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crrl import unified_diff
from crrl.unified_diff import FilePatch, PatchError, shown


@dataclass(frozen=True)
class File:
    """A regular file (`data`, `executable`) or a symlink (`link`)."""

    data: bytes = b""
    executable: bool = False
    link: str | None = None


Reader = Callable[[str], File | None]


def parse(patch: str) -> list[FilePatch]:
    """`unified_diff.parse`, of a patch that nobody vouches for. Raises PatchError: it leaves the checkout, too."""
    parts = unified_diff.parse(patch)
    for path in (path for part in parts for path in part.names):
        names = path.split("/")
        if path.startswith("/") or "\0" in path or any(n in ("", ".", "..") or n.lower() == ".git" for n in names):
            raise PatchError(f"the path {path[:200]!a} is refused")
    return parts


def apply(patch: str, read: Reader, keep: Callable[[str], bool]) -> dict[str, File | None]:
    """The patched files: path -> content, None where deleted. Files for which `keep(path)` stay as they are.

    Raises PatchError.
    """
    parts = [p for p in parse(patch) if not any(keep(path) for path in p.names)]
    changed: dict[str, File | None] = {}
    for part in parts:
        before = read(part.old) if part.old is not None else None
        result = None if part.unusual or part.path in changed else _strict(part, before)
        if result is None and part.path not in changed and not (part.old and not part.new and not part.unusual):
            return _git_apply(parts, read)
        if result is None and part.path in changed:
            return _git_apply(parts, read)
        changed[part.path] = result if part.new is not None else None
    return changed


def _strict(part: FilePatch, before: File | None) -> File | None:
    """The new content where every hunk sits exactly where it says; None leaves it to git."""
    if part.old is None:
        before = File(executable=part.executable)
    if before is None or before.link is not None:
        raise PatchError(f"{shown(part.path)}: no such file")
    if b"\r" in before.data:
        return None
    old = before.data.decode("utf-8", "surrogateescape").split("\n")
    new: list[str] = []
    at = 0
    for hunk in part.hunks:
        if hunk.first - 1 < at:
            return None
        new += old[at : hunk.first - 1]
        at = hunk.first - 1
        for place, line in enumerate(hunk.body):
            if line[0] == "\\" or (place + 1 < len(hunk.body) and hunk.body[place + 1][0] == "\\"):
                return None  # a missing newline at the end of a file
            if line[0] in " -":
                if at >= len(old) - 1 or old[at] != line[1:]:
                    return None
                at += 1
            if line[0] in " +":
                new.append(line[1:])
    new += old[at:]
    data = "\n".join(new).encode("utf-8", "surrogateescape")
    if part.new is None and data:
        return None
    return File(data, before.executable)


def _git_apply(parts: list[FilePatch], read: Reader) -> dict[str, File | None]:
    touched = sorted({path for part in parts for path in part.names})
    with tempfile.TemporaryDirectory(prefix="crrl-patch-") as folder:
        root = Path(folder)
        for path in touched:
            file = read(path)
            if file is not None:
                _write(root / path, file)
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            cwd=root,
            input="".join(part.text for part in parts).encode("utf-8", "surrogateescape"),
            capture_output=True,
            env={
                "PATH": "/usr/bin:/bin",
                "GIT_CEILING_DIRECTORIES": str(root.parent),
                "GIT_CONFIG_NOSYSTEM": "1",  # core.autocrlf would change line ends
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "LC_ALL": "C",
            },
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise PatchError(done.stderr.decode("utf-8", "replace").strip()[:1000])
        return {path: read_file(root, path) for path in touched}


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.link is not None:
        path.symlink_to(file.link)
        return
    path.write_bytes(file.data)
    path.chmod(0o755 if file.executable else 0o644)


def read_file(root: Path, path: str) -> File | None:
    """One file below `root`; no symlink on the way is followed (a path through one does not exist)."""
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        *above, name = path.split("/")
        for part in above:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            return File(link=os.readlink(name, dir_fd=folder))
        if not stat.S_ISREG(info.st_mode):
            return None
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
            return File(file.read(), bool(info.st_mode & 0o100))
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        os.close(folder)


def reader(root: Path | None, files: Mapping[str, str]) -> Reader:
    """Read from a prepared tree, or from a task that carries its files."""
    if root is not None:
        return lambda path: read_file(root, path)
    return lambda path: File(files[path].encode()) if path in files else None
