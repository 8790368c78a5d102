"""Where a test file can be made wrong: spans of its bytes, and what stands there instead. All else stays as it is."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tree_sitter import Node


@dataclass(frozen=True)
class Edit:
    """Bytes `start` to `end` become `text`."""

    start: int
    end: int
    text: bytes


@dataclass(frozen=True)
class Site:
    """One assertion, or the data that one reads.

    Args:
        unit: the test it belongs to, by the name that its ids contain; a helper's own name; "" outside of any.
        edits: make it wrong.
        readable: the right answer still stands in the tests. Such a site is used where a test has no other.
        at: where its test begins: namesakes in one file (of two classes, suites, modules) are told apart by it.
    """

    unit: str
    edits: tuple[Edit, ...]
    readable: bool = False
    at: int = 0


class Finder(Protocol):
    """What `trees` finds in a file of any language."""

    data: bytes
    rng: random.Random

    def function(self, node: Node) -> Node: ...
    def literals(self, node: Node) -> list[Node]: ...
    def altered(self, leaf: Node) -> Edit: ...
    def from_names(self, at: Node, side: Node) -> list[Edit]: ...
    def expected(self, at: Node, sides: list[Node]) -> list[Edit]: ...
    def condition(self, condition: Node) -> list[Edit]: ...
    def negated(self, node: Node) -> list[Edit]: ...
    def replaced(self, node: Node, text: bytes) -> Edit: ...
    def text(self, node: Node) -> bytes: ...
    def field(self, node: Node, name: str) -> bytes: ...


def rewritten(data: bytes, edits: Iterable[Edit]) -> bytes:
    """`data` with the edits made. Of two that overlap, the first in the file is made."""
    parts, at = [], 0
    for edit in sorted(set(edits), key=lambda edit: (edit.start, edit.end)):
        if edit.start >= at:
            parts += [data[at : edit.start], edit.text]
            at = edit.end
    return b"".join([*parts, data[at:]])
