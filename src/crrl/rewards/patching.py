"""A patch onto a checkout, on the host's side: which files come out how. No symlink is followed.

`apply` is strict: every context line must be where the hunk says it is. git's own offset search, and all
that is not a plain change of text files, is left to `git apply`, in an empty folder that holds only the
touched files. Both ways give the same result where both apply (tested). Names are those of the file system: bytes that
are no UTF-8 are surrogates (`os.fsencode`). Binary differences of `sandbox/patch.py` are read line by line as well, so
that a byte that is no text hides nothing from those who look at what was added.
"""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNUSUAL = ("Binary files ", "old mode ", "new mode ", "similarity index ")
_MOVED = re.compile(r"^(?:rename|copy) (from|to) (.+)$")
_ESCAPE = re.compile(rb'\\([0-3][0-7]{2}|[abfnrtv"\\])')
_ESCAPES = dict(zip(b'abfnrtv"\\', b'\a\b\f\n\r\t\v"\\', strict=True))
_LITERAL = re.compile(r"^literal (\d+)$")
_READABLE = 0.7  # share of a binary file that is text: from here on it is read as such, else as an image or an archive
_LARGEST = 16 << 20  # of a side that is read


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
    """One file's part of a patch. `old` / `new` is None where the file is made or deleted. `readable`: its hunks are of
    text, or of what is nearly that."""

    old: str | None
    new: str | None
    hunks: list[tuple[int, list[str]]] = field(default_factory=list)  # first old line (1-based), body lines
    executable: bool = False
    unusual: bool = False
    readable: bool = True
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
        elif current is not None and line == "GIT binary patch":
            current.unusual = True
            at = _binary(current, lines, at + 1)
            continue
        elif current is not None and (moved := _MOVED.match(line)):
            current.unusual = True
            name = _unquoted(moved[2])
            current.old, current.new = (name, current.new) if moved[1] == "from" else (current.old, name)
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
    half = len(rest) // 2  # `a/x b/x`: both halves name the same file, unless it is renamed
    old, new = rest[:half], rest[half + 1 :]
    if rest[half : half + 1] == " " and _bare(_unquoted(old)) == _bare(_unquoted(new)):
        return FilePatch(_bare(_unquoted(old)), _bare(_unquoted(new)))
    match = re.match(r'("(?:[^"\\]|\\.)*"|a/.*) ("(?:[^"\\]|\\.)*"|b/.*)$', rest)
    if match is None:
        raise PatchError(f"unreadable header: {line[:200]}")
    return FilePatch(_bare(_unquoted(match[1])), _bare(_unquoted(match[2])), unusual=True)


def _name(text: str) -> str | None:
    name = text.split("\t")[0].rstrip("\r")
    return None if name == "/dev/null" else _bare(_unquoted(name))


def _bare(name: str) -> str:
    return name[2:] if name[:2] in ("a/", "b/") else name


def _unquoted(name: str) -> str:
    """A name as git writes it: in quotes where it holds one, or a backslash, or a control character."""
    if len(name) < 2 or name[0] != '"' or name[-1] != '"':
        return name

    def byte(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1], 8) if len(match[1]) == 3 else _ESCAPES[match[1][0]]])

    return os.fsdecode(_ESCAPE.sub(byte, name[1:-1].encode("utf-8", "surrogateescape")))


def _refuse_unsafe(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or "\0" in path or any(p in ("", ".", "..") or p.lower() == ".git" for p in parts):
        raise PatchError(f"the path {path[:200]!a} is refused")


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
        raise PatchError(f"corrupt hunk in {shown(file.path)}")
    file.hunks.append((first, body))
    return at


def _binary(file: FilePatch, lines: list[str], at: int) -> int:
    """Both sides where they are whole, as one hunk of the lines that only one of them has; where the part ends."""
    sides: list[bytes] = []
    while len(sides) < 2 and at < len(lines) and (match := _LITERAL.match(lines[at])):
        at += 1
        packed = bytearray()
        while at < len(lines) and lines[at]:
            length = ord(lines[at][0])
            try:
                chunk = base64.b85decode(lines[at][1:])
            except ValueError:
                raise PatchError(f"a damaged binary difference of {shown(file.path)}") from None
            packed += chunk[: length - 64 if length < 97 else length - 70]  # A-Z: 1 to 26, a-z: 27 to 52
            at += 1
        at += 1
        try:
            sides.append(zlib.decompressobj().decompress(packed, max(1, min(int(match[1]), _LARGEST))))  # 0: unlimited
        except (zlib.error, OverflowError):
            raise PatchError(f"a damaged binary difference of {shown(file.path)}") from None
    if len(sides) == 2:
        new, old = sides
        texts = [side.decode("utf-8", "replace").replace("\0", "\ufffd") for side in (old, new)]
        file.readable = all(text.count("\ufffd") <= (1 - _READABLE) * len(text) for text in texts)
        body = [*_only("-", *texts), *_only("+", *reversed(texts))]
        file.hunks.append((1, body))
    return at


def _only(sign: str, text: str, other: str) -> Iterator[str]:
    """The lines that the other text has not."""
    left = Counter(other.split("\n"))
    for line in text.split("\n"):
        left[line] -= 1
        if left[line] < 0:
            yield sign + line


def shown(path: str) -> str:
    """A name in what people read: no surrogates, no line breaks."""
    printable = path[:200].encode("utf-8", "replace").decode()
    return printable if printable.isprintable() else ascii(path[:200])


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
        raise PatchError(f"{shown(part.path)}: no such file")
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
