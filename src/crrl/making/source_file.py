"""A source file, byte for byte: its lines as the parser counts them, whatever its encoding and line ends.

What is not changed comes back as it was: Latin-1, a byte order mark, CRLF, tabs and form feeds included. Diffs are text
(UTF-8) because tasks are; of a file in another encoding a diff shows as many lines around the change as are UTF-8, too.
"""

from __future__ import annotations

import ast
import codecs
import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from crrl import python_syntax
from crrl.tasks.diffs import between

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # not splitlines: a form feed ends no line


class UnreadableError(ValueError):
    """Python itself cannot read the file: no syntax, encoding, or too deeply nested."""


@dataclass(frozen=True)
class Edit:
    """Lines `first` to `last` (from 1) become `new`, without line ends."""

    first: int
    last: int
    new: tuple[str, ...]


@dataclass(frozen=True)
class TextFile:
    """`encoding`: what the file is in; `errors`: how bytes that are not are kept; `lines`: with their ends."""

    path: str
    data: bytes
    encoding: str
    lines: list[str]
    errors: str = field(default="strict", kw_only=True)

    @cached_property
    def bare(self) -> list[str]:
        """The lines without their ends."""
        return [line.rstrip("\r\n") for line in self.lines]

    def with_edits(self, edits: Sequence[Edit]) -> bytes:
        """The file with edits made that do not touch; new lines take the line end of the first they replace. The last
        line of a file still ends as it did.

        Raises UnicodeEncodeError where the encoding has no such character."""
        lines = list(self.lines)
        for edit in sorted(edits, key=lambda edit: edit.first, reverse=True):
            old = lines[edit.first - 1]
            end = _end(old) or _end(lines[max(0, edit.first - 2)]) or "\n"
            new = [line + end for line in edit.new]
            if new and edit.last == len(lines) and not lines[-1].endswith(("\r", "\n")):
                new[-1] = edit.new[-1]
            lines[edit.first - 1 : edit.last] = new
        return self.of(lines)

    def of(self, lines: Sequence[str]) -> bytes:
        """A file of these lines in the same encoding, its byte order mark kept."""
        plain = "utf-8" if self.encoding == "utf-8-sig" else self.encoding
        mark = codecs.BOM_UTF8 if self.data.startswith(codecs.BOM_UTF8) else b""
        return mark + "".join(lines).encode(plain, self.errors)


@dataclass(frozen=True)
class SourceFile(TextFile):
    """A Python file, in the encoding that it says. `tree`: positions count in `lines`."""

    tree: ast.Module

    @staticmethod
    def read(path: str, data: bytes) -> SourceFile:
        """Raises UnreadableError."""
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
            tree = python_syntax.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError, LookupError) as error:
            raise UnreadableError(f"{path}: {type(error).__name__}: {error}") from None
        found = SourceFile(path, data, encoding, LINE.findall(text), tree)
        if found.of(found.lines) != data:  # one that has several ways to write the same
            raise UnreadableError(f"{path}: {encoding} would not give back its bytes")
        return found


def _end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def diff(path: str, old: bytes, new: bytes) -> str | None:
    """The git diff between two states of a file; None where the change itself is not UTF-8."""
    texts = [data.decode("utf-8", "surrogateescape") for data in (old, new)]
    for context in (3, 2, 1):
        made = between(path, *texts, context=context)
        try:
            made.encode()
        except UnicodeEncodeError:
            continue
        return made
    return None
