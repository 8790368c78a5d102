"""The one reader of unified diffs: of policies, of corpora, of our own sandbox (`sandbox/patch.py`).

`parse` splits a git or plain diff into files and hunks, and loses nothing: `FilePatch.pieces` are all of its lines.
Names are those of the file system: bytes that are no UTF-8 are surrogates (`os.fsdecode`). Binary differences with both
sides whole are read line by line as well, so that a byte that is no text hides nothing from those who look at what was
added. (The package `unidiff` leaves quoted names as they are, and modes and binary differences unread.)
"""

from __future__ import annotations

import base64
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_HUNK = re.compile(r"^@@ -(\d+(?:,\d+)?) \+(\d+(?:,\d+)?) @@(.*)$", re.DOTALL)
_UNUSUAL = ("Binary files ", "old mode ", "new mode ", "similarity index ")
_MOVED = re.compile(r"^(?:rename|copy) (from|to) (.+)$")
_ESCAPE = re.compile(rb'\\([0-3][0-7]{2}|[abfnrtv"\\])')
_ESCAPES = dict(zip(b'abfnrtv"\\', b'\a\b\f\n\r\t\v"\\', strict=True))
_LITERAL = re.compile(r"^literal (\d+)$")
_READABLE = 0.7  # share of a binary file that is text: from here on it is read as such, else as an image or an archive
_LARGEST = 16 << 20  # of a side that is read


class PatchError(ValueError):
    """It is no patch, or it does not apply."""


@dataclass(frozen=True)
class Hunk:
    """`old`, `new`: where it lies, as written (`12,3`). `section`: the rest of its first line. `body`: its lines with
    their signs; an empty line of context is one space."""

    old: str
    new: str
    section: str
    body: list[str]

    @property
    def first(self) -> int:
        """Its first old line, from 1; of a hunk without old lines, the line that it comes before."""
        start, _, count = self.old.partition(",")
        return int(start) + (count == "0")


@dataclass
class FilePatch:
    """One file's part of a patch.

    Args:
        old, new: its names; None where the file is made or deleted.
        pieces: its lines in order, those of hunks as a `Hunk`.
        binary: lines that only one side of a binary difference has, with their signs.
        unusual: more than text changes: a mode, a link, a new name, binary contents.
        readable: `lines` are text, or nearly that.
        text: as it was written.
    """

    old: str | None
    new: str | None
    pieces: list[str | Hunk] = field(default_factory=list)
    binary: list[str] = field(default_factory=list)
    executable: bool = False
    unusual: bool = False
    readable: bool = True
    text: str = ""

    @property
    def path(self) -> str:
        return self.new or self.old or ""

    @property
    def names(self) -> list[str]:
        return [name for name in dict.fromkeys((self.old, self.new)) if name is not None]

    @property
    def hunks(self) -> list[Hunk]:
        return [piece for piece in self.pieces if isinstance(piece, Hunk)]

    @property
    def lines(self) -> list[str]:
        """Of all hunks and of the binary difference, with their signs."""
        return [line for hunk in self.hunks for line in hunk.body] + self.binary


def parse(patch: str) -> list[FilePatch]:
    """The files of a git or plain unified diff; what stands before the first is prose. Raises PatchError."""
    files: list[FilePatch] = []
    lines = patch.removesuffix("\n").split("\n")
    at, start = 0, 0
    current: FilePatch | None = None
    named = False  # by its `---` and `+++`: a further pair starts another file

    def close(end: int) -> None:
        if current is not None:
            current.text = "\n".join(lines[start:end]) + "\n"

    while at < len(lines):
        line, begin = lines[at], at
        if line.startswith("diff --git "):
            close(at)
            start, current, named = at, _header(line), False
            files.append(current)
            at += 1
        elif line.startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ "):
            if current is None or named:
                close(at)
                start, current = at, FilePatch(None, None)
                files.append(current)
            current.old, current.new = _name(line[4:]), _name(lines[at + 1][4:])
            named = True
            at += 2
        elif line.startswith("@@ ") and (current is not None or _HUNK.match(line)):
            if current is None:
                raise PatchError("a hunk before any file name")
            hunk, at = _hunk(current, lines, at)
            current.pieces.append(hunk)
            continue
        elif current is None:
            at += 1
        elif line == "GIT binary patch":
            current.unusual = True
            at = _binary(current, lines, at + 1)
        else:
            _extended_header(current, line)
            at += 1
        if current is not None:
            current.pieces += lines[begin:at]
    close(len(lines))
    if patch.strip() and not files:
        raise PatchError("not a unified diff")
    if any(not file.path for file in files):
        raise PatchError("a part of the patch names no file")
    return files


def _header(line: str) -> FilePatch:
    rest = line[len("diff --git ") :]
    half = len(rest) // 2  # `a/x b/x`: both halves name the same file, unless it is renamed
    old, new = rest[:half], rest[half + 1 :]
    if rest[half : half + 1] == " " and bare(_unquoted(old)) == bare(_unquoted(new)):
        return FilePatch(bare(_unquoted(old)), bare(_unquoted(new)))
    match = re.match(r'("(?:[^"\\]|\\.)*"|a/.*) ("(?:[^"\\]|\\.)*"|b/.*)$', rest)
    if match is None:
        raise PatchError(f"unreadable header: {line[:200]}")
    return FilePatch(bare(_unquoted(match[1])), bare(_unquoted(match[2])), unusual=True)


def _extended_header(file: FilePatch, line: str) -> None:
    if moved := _MOVED.match(line):
        file.unusual = True
        name = _unquoted(moved[2])
        file.old, file.new = (name, file.new) if moved[1] == "from" else (file.old, name)
    elif line.startswith(_UNUSUAL):
        file.unusual = True
    elif line.startswith(("new file mode ", "deleted file mode ")):
        mode = line.rsplit(" ", 1)[1]
        file.unusual = file.unusual or mode not in ("100644", "100755")
        file.executable = mode == "100755"
        if line.startswith("new"):
            file.old = None
        else:
            file.new = None


def _name(text: str) -> str | None:
    name = text.split("\t")[0].rstrip("\r")
    return None if name == "/dev/null" else bare(_unquoted(name))


def bare(name: str) -> str:
    """Without git's `a/` or `b/`."""
    return name[2:] if name[:2] in ("a/", "b/") else name


def _unquoted(name: str) -> str:
    """A name as git writes it: in quotes where it holds one, or a backslash, or a control character."""
    if len(name) < 2 or name[0] != '"' or name[-1] != '"':
        return name

    def byte(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1], 8) if len(match[1]) == 3 else _ESCAPES[match[1][0]]])

    return os.fsdecode(_ESCAPE.sub(byte, name[1:-1].encode("utf-8", "surrogateescape")))


def _hunk(file: FilePatch, lines: list[str], at: int) -> tuple[Hunk, int]:
    """The hunk that begins at `at`, and where it ends."""
    match = _HUNK.match(lines[at])
    if match is None:
        raise PatchError(f"unreadable hunk: {lines[at][:200]}")
    old_left, new_left = (int(place.partition(",")[2] or 1) for place in match.groups()[:2])
    body: list[str] = []
    begin, at = at, at + 1
    while at < len(lines) and (old_left > 0 or new_left > 0 or lines[at].startswith("\\")):
        line = lines[at] or " "
        if line[0] not in " +-\\":
            break
        old_left -= line[0] in " -"
        new_left -= line[0] in " +"
        body.append(line)
        at += 1
    if old_left != 0 or new_left != 0:
        raise PatchError(f"{shown(file.path)}: a hunk is cut short: {shown(lines[begin])}")
    return Hunk(match[1], match[2], match[3], body), at


def _binary(file: FilePatch, lines: list[str], at: int) -> int:
    """Reads both sides where they are whole. Where the part ends."""
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
        file.binary = [*_only("-", *texts), *_only("+", *reversed(texts))]
    return min(at, len(lines))


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
