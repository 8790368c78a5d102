"""Which names of a test file mean the same everywhere in it, and which are made in a function."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.rewards.decoys.grammars import walk

UNKNOWN_ARGUMENT = "?"
"""The name of an argument in a `Call` of which only the source is known."""


def local_names(root: Node) -> frozenset[str]:
    """Variables and parameters of functions."""
    return frozenset(text(name) for node in walk(root) for name in _declares(node) if name.type == "identifier")


def top_level_names(root: Node) -> frozenset[str]:
    """Those that no function makes."""
    return frozenset(text(n) for n in walk(root) if n.type in ("identifier", "package_identifier")) - local_names(root)


def _declares(node: Node) -> Iterator[Node]:
    """In functions."""
    if node.type == "formal_parameters":
        yield from walk(node)
    elif node.type == "arrow_function" and (single := node.child_by_field_name("parameter")) is not None:
        yield single
    elif node.type in grammar.DECLARED and not _at_top(node):
        for field in node.children_by_field_name(grammar.DECLARED[node.type]):
            yield from walk(field)


def _at_top(node: Node) -> bool:
    at = node.parent
    while at is not None:
        if at.type in grammar.BLOCKS or at.type in grammar.CLOSURES or at.type in grammar.FUNCTIONS:
            return False
        at = at.parent
    return True
