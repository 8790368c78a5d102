"""The tree-sitter grammars, by a file's suffix. They come with their packages: nothing is loaded at run time."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from tree_sitter import Language, Node, Parser

GRAMMARS: dict[str, tuple[str, str]] = {
    ".java": ("tree_sitter_java", "language"),
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs"), ("tree_sitter_javascript", "language")),
    **dict.fromkeys((".ts", ".mts", ".cts"), ("tree_sitter_typescript", "language_typescript")),
    ".tsx": ("tree_sitter_typescript", "language_tsx"),
    ".go": ("tree_sitter_go", "language"),
    ".rs": ("tree_sitter_rust", "language"),
    **dict.fromkeys((".cpp", ".cc", ".cxx", ".hpp", ".h"), ("tree_sitter_cpp", "language")),
}


@cache
def parser(suffix: str) -> Parser:
    module, language = GRAMMARS[suffix]
    made: Callable[[], Any] = getattr(importlib.import_module(module), language)
    return Parser(Language(made()))


def walk(node: Node) -> Iterator[Node]:
    """`node` and what is below it, in the order of the text."""
    waiting = [node]
    while waiting:
        at = waiting.pop()
        yield at
        waiting.extend(reversed(at.children))
