"""Languages whose failures are told by what their assertions say: Rust's `assert_eq!`, JUnit's `assertEquals`.

The frameworks print both sides of an equality. Which of them came and which should have, their own words do not say for
sure: the syntax tree does. The side that is written out is the right one; the other is called by its text.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tree_sitter import Node

from crrl.making.tracing import Call, Trace
from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.making.trees.toolchain import Boxes, Toolchain
from crrl.making.trees.units import unit_at, units
from crrl.rewards.decoys.grammars import parser, walk
from crrl.rewards.decoys.rust import CONSTRUCTORS
from crrl.rewards.decoys.trees import EXPECTED, MAKERS

EQUALITIES = ("assertEquals", "assertArrayEquals")
TRUTHS = ("assertTrue", "assertFalse")
LONGEST = 80  # of what is compared, to be its name


@dataclass(frozen=True)
class Failure:
    """`values`: what stood on both sides of the assertion in `line` of the test file `path`."""

    path: str
    line: int
    values: tuple[str, str]


class Asserted(Toolchain):
    @abstractmethod
    async def failures(self, boxes: Boxes, changed: Mapping[str, bytes], suite: str) -> Sequence[Failure]:
        """Of the suite's tests on the changed tree."""

    async def compared(
        self, boxes: Boxes, changed: Mapping[str, bytes], suite: str, known: frozenset[str]
    ) -> tuple[dict[str, Trace], dict[str, Trace]]:
        wrong: dict[str, Trace] = {}
        right: dict[str, Trace] = {}
        for failure in await self.failures(boxes, changed, suite):
            data = (self.tree / failure.path).read_bytes()
            found = sides(failure.path, data, failure.line, known)
            unit = unit_at(units(failure.path, data), failure.line)
            if found is None or unit is None:
                continue
            name, expected_first = found
            want, got = failure.values if expected_first else failure.values[::-1]
            for traces, value in ((wrong, got), (right, want)):
                call = Call(name, failure.path, failure.line, (), returned=value, property=True)
                traces.setdefault(unit.name, Trace((call,)))
        return wrong, right


def sides(path: str, data: bytes, line: int, known: frozenset[str]) -> tuple[str, bool] | None:
    """What is compared, by its text, and whether what is expected stands first; None where nobody can say."""
    if (parts := compared_at(path, data, line)) is None:
        return None
    said = [_said(data, part) for part in parts]
    if len(parts) == 1:  # to be true, or false
        return (said[0], True) if len(said[0]) <= LONGEST else None
    written = [_written(part) for part in parts]
    if written[0] == written[1]:
        written = [_is_expected(part, known) for part in parts]
    actual = said[1] if written[0] else said[0]
    return (actual, written[0]) if written[0] != written[1] and len(actual) <= LONGEST else None


def compared_at(path: str, data: bytes, line: int) -> list[list[Node]] | None:
    """Both sides of the equality that stands in this line, or what has to be true or false; None where none does."""
    for node in walk(parser(PurePath(path).suffix).parse(data).root_node):
        if node.start_point.row + 1 <= line <= node.end_point.row + 1 and (parts := _compared(node)):
            return parts
    return None


def _compared(node: Node) -> list[list[Node]] | None:
    if node.type == "macro_invocation" and text(node.child_by_field_name("macro")) in ("assert_eq", "debug_assert_eq"):
        parts: list[list[Node]] = [[]]
        for token in node.named_children[-1].children[1:-1]:
            parts.append([]) if token.type == "," else parts[-1].append(token)
        return parts[:2] if len(parts) > 1 and parts[0] and parts[1] else None
    if node.type != "method_invocation":
        return None
    name, given = text(node.child_by_field_name("name")), grammar.arguments(node)
    if name in TRUTHS:
        return [[one] for one in given if one.type != "string_literal"][:1] or None
    if name in EQUALITIES:
        if len(given) == 3 and given[0].type == "string_literal" and given[2].type != "string_literal":
            given = given[1:]  # JUnit 4 has the message first
        return [[given[0]], [given[1]]] if len(given) > 1 else None
    return None


def _said(data: bytes, part: Sequence[Node]) -> str:
    """In one line; white space in a text stays as it is."""
    return re.sub(r"\s*\n\s*", " ", data[part[0].start_byte : part[-1].end_byte].decode("utf-8", "replace"))


def _written(part: Sequence[Node]) -> bool:
    """Whether it is all there as it is written: literals, and what collections are made by."""
    return {name.encode() for name in _names(part)} <= CONSTRUCTORS | {maker.encode() for maker in MAKERS}


def _is_expected(part: Sequence[Node], known: frozenset[str]) -> bool:
    names = list(_names(part))
    return not known & set(names) and any(EXPECTED.search(name.encode()) for name in names)


def _names(part: Sequence[Node]) -> Iterator[str]:
    return (text(n) for top in part for n in walk(top) if n.type == "identifier")
