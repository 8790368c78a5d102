"""Tests taken out of the files that an agent sees: they are put back where it is judged."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def without_tests(tree: Path, tests: Iterable[str]) -> dict[str, str]:
    """Path -> the file's text without these test functions (`path::Class::function`); a class left empty goes, too."""
    by_file: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for test in tests:
        path, *names = test.split("::")
        by_file[path].add(tuple(names))
    return {path: _without((tree / path).read_text(), names) for path, names in by_file.items()}


def _without(source: str, names: set[tuple[str, ...]]) -> str:
    gone: set[int] = set()

    def visit(body: list[ast.stmt], prefix: tuple[str, ...]) -> bool:
        """Mark the lines that go; whether nothing is left."""
        left = False
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own = (*prefix, node.name)
                goes = own in names or (isinstance(node, ast.ClassDef) and visit(node.body, own))
                if goes:
                    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    gone.update(range(first, (node.end_lineno or first) + 1))
                    continue
            left = True
        return not left

    visit(ast.parse(source).body, ())
    return "\n".join(line for number, line in enumerate(source.split("\n"), 1) if number not in gone)
