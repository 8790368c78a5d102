"""A patch onto a checkout, on the host's side: which files come out how. No symlink is followed.

`apply` is strict: every context line must be where the hunk says it is. git's own offset search, and all
that is not a plain change of text files, is left to `git apply`, in an empty folder that holds only the
touched files. Both ways give the same result where both apply (tested).
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNUSUAL = (
    "GIT binary patch",
    "Binary files ",
    "rename ",
    "copy ",
    "old mode ",
    "new mode ",
    "similarity index ",
)


class PatchError(Exception):
    """The patch does not apply."""


@dataclass(frozen=True)
class File:
    """A regular file (`data`, `executable`) or a symlink (`link`)."""

    data: bytes = b""
    executable: bool = False
    link: str | None = None


@dataclass
class FilePatch:
    """One file's part of a patch. `old` / `new` is None where the file is made or deleted."""

    old: str | None
    new: str | None
    hunks: list[tuple[int, list[str]]] = field(default_factory=list)  # first old line (1-based), body lines
    executable: bool = False
    unusual: bool = False
    text: str = ""

    @property
    def path(self) -> str:
        return self.new or self.old or ""


Reader = Callable[[str], File | None]


def parse(patch: str) -> list[FilePatch]:
    """Split a git or plain unified diff into files. Raises PatchError."""
    files: list[FilePatch] = []
    lines = patch.split("\n")
    at, start, current = 0, 0, None
    pending: FilePatch | None = None

    def close(end: int) -> None:
        if current is not None:
            current.text = "\n".join(lines[start:end]) + "\n"

    while at < len(lines):
        line = lines[at]
        if line.startswith("diff --git "):
            close(at)
            start, current = at, _header(line)
            pending = current
            files.append(current)
        elif line.startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ "):
            if pending is None:
                close(at)
                start, current = at, FilePatch(None, None)
                files.append(current)
            assert current is not None
            current.old, current.new = _name(line[4:]), _name(lines[at + 1][4:])
            pending = None
            at += 1
        elif current is not None and line.startswith("@@ "):
            at = _hunk(current, lines, at)
            continue
        elif current is not None and line.startswith(_UNUSUAL):
            current.unusual = True
        elif current is not None and line.startswith(("new file mode ", "deleted file mode ")):
            mode = line.rsplit(" ", 1)[1]
            current.unusual = current.unusual or mode not in ("100644", "100755")
            current.executable = mode == "100755"
            if line.startswith("new"):
                current.old = None
            else:
                current.new = None
        at += 1
    close(len(lines))
    if patch.strip() and not files:
        raise PatchError("not a unified diff")
    for file in files:
        for path in (file.old, file.new):
            if path is not None:
                _refuse_unsafe(path)
        if not file.path:
            raise PatchError("a part of the patch names no file")
    return files


def _header(line: str) -> FilePatch:
    rest = line[len("diff --git ") :]
    half = len(rest) // 2  # `a/x b/x`: both halves name the same file, unless renamed or quoted
    old, new = rest[:half], rest[half + 1 :]
    if rest[half : half + 1] == " " and old.startswith("a/") and new.startswith("b/") and old[2:] == new[2:]:
        return FilePatch(old[2:], new[2:])
    match = re.match(r"a/(.*) b/(.*)$", rest)
    if match is None:
        raise PatchError(f"unreadable header: {line[:200]}")
    return FilePatch(match[1], match[2], unusual=True)


def _name(text: str) -> str | None:
    name = text.split("\t")[0].rstrip("\r")
    if name == "/dev/null":
        return None
    if name.startswith('"'):
        raise PatchError(f"quoted file names are not supported: {name[:200]}")
    return name[2:] if name[:2] in ("a/", "b/") else name


def _refuse_unsafe(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or "\0" in path or any(p in ("", ".", "..") or p.lower() == ".git" for p in parts):
        raise PatchError(f"the path {path[:200]!r} is refused")


def _hunk(file: FilePatch, lines: list[str], at: int) -> int:
    match = _HUNK.match(lines[at])
    if match is None:
        raise PatchError(f"unreadable hunk: {lines[at][:200]}")
    old_left = int(match[2]) if match[2] is not None else 1
    new_left = int(match[4]) if match[4] is not None else 1
    first, body = int(match[1]) + (1 if old_left == 0 else 0), []
    at += 1
    while at < len(lines) and (old_left > 0 or new_left > 0 or lines[at].startswith("\\")):
        line = lines[at] or " "
        if line[0] not in " +-\\":
            break
        old_left -= line[0] in " -"
        new_left -= line[0] in " +"
        body.append(line)
        at += 1
    if old_left != 0 or new_left != 0:
        raise PatchError(f"corrupt hunk in {file.path}")
    file.hunks.append((first, body))
    return at


def apply(patch: str, read: Reader, keep: Callable[[str], bool]) -> dict[str, File | None]:
    """The patched files: path -> content, None where deleted. Files for which `keep(path)` stay as they are.

    Raises PatchError.
    """
    parts = [p for p in parse(patch) if not any(keep(path) for path in (p.old, p.new) if path is not None)]
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
        raise PatchError(f"{part.path}: no such file")
    if b"\r" in before.data:
        return None
    old = before.data.decode("utf-8", "surrogateescape").split("\n")
    new: list[str] = []
    at = 0
    for first, body in part.hunks:
        if first - 1 < at:
            return None
        new += old[at : first - 1]
        at = first - 1
        for place, line in enumerate(body):
            if line[0] == "\\" or (place + 1 < len(body) and body[place + 1][0] == "\\"):
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
    touched = sorted({path for part in parts for path in (part.old, part.new) if path is not None})
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
            env={"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(root.parent), "LC_ALL": "C"},
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
