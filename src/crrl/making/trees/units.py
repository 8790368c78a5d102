"""The tests of a test file, as its syntax tree shows them: `test("...")` and `it("...")`, Go's `TestX`, Rust's and
Java's test functions. Their names are what the ids of their tests end with, or have between slashes (subtests)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from tree_sitter import Node

from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.rewards.decoys.grammars import parser, walk

SCRIPT = re.compile(r"(?:test|it|specify)(?:\.(?:only|concurrent|sequential))?$")
GO = re.compile(r"Test([^a-z]|$)")


@dataclass(frozen=True)
class Unit:
    """`node`: the statement, with the attributes before it from `start`."""

    name: str
    node: Node
    start: int

    def has(self, test: str) -> bool:
        """Whether the id is its, or of a subtest."""
        own = test.partition("::")[2]
        if self.node.type == "method_declaration":  # JUnit 5 writes `adds()`, `adds(int)[2]`
            own = own.partition("(")[0]
        return own == self.name or own.startswith(f"{self.name}/") or own.endswith((f" {self.name}", f"::{self.name}"))


def units(path: str, data: bytes) -> list[Unit]:
    """In the order of the file. One that is named at run time (`test.each`, a template) has no unit."""
    suffix = PurePath(path).suffix
    found = []
    for node in walk(parser(suffix).parse(data).root_node):
        name = _named(suffix, node)
        if name:
            whole = node
            if node.type == "call_expression":
                while whole.parent is not None and whole.type != "expression_statement":
                    whole = whole.parent
            found.append(Unit(name, whole, min([whole.start_byte, *(n.start_byte for n in _before(whole))])))
    return found


def unit_at(found: list[Unit], line: int) -> Unit | None:
    """The innermost that holds the line."""
    holding = [unit for unit in found if unit.node.start_point.row < line <= unit.node.end_point.row + 1]
    return max(holding, key=lambda unit: unit.node.start_byte, default=None)


def _named(suffix: str, node: Node) -> str:
    if suffix == ".go":
        name = text(node.child_by_field_name("name")) if node.type == "function_declaration" else ""
        return name if GO.match(name) else ""
    if suffix == ".rs":
        marked = node.type == "function_item" and any(re.search(r"\btest\b", text(n)) for n in _before(node))
        return text(node.child_by_field_name("name")) if marked else ""
    if suffix == ".java":
        marks = [text(n) for n in node.children if n.type == "modifiers"] if node.type == "method_declaration" else []
        name = text(node.child_by_field_name("name"))
        old = name.startswith("test") and any(mark.split() == ["public"] for mark in marks)  # JUnit 3
        return name if old or any(re.search(r"@\w*Test\b", mark) for mark in marks) else ""
    if node.type != "call_expression" or not SCRIPT.match(text(node.child_by_field_name("function"))):
        return ""
    given = grammar.arguments(node)
    if not given or given[0].type not in ("string", "template_string") or "${" in text(given[0]):
        return ""
    return text(given[0])[1:-1].replace("\\'", "'").replace('\\"', '"')


def _before(node: Node) -> Iterator[Node]:
    """The attributes of Rust."""
    at = node.prev_named_sibling
    while at is not None and at.type == "attribute_item":
        yield at
        at = at.prev_named_sibling
