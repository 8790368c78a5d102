"""Tests taken out of the files that an agent sees: they are put back where it is judged."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from crrl.making.source_file import SourceFile


def without_tests(tree: Path, tests: Iterable[str]) -> dict[str, bytes]:
    """Path -> the file without these test functions (`path::Class::function`); a class left empty goes, too.

    Raises UnreadableError."""
    by_file: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for test in tests:
        path, *names = test.split("::")
        by_file[path].add(tuple(names))
    files = {path: SourceFile.read(path, (tree / path).read_bytes()) for path in by_file}
    return {path: _without(files[path], names) for path, names in by_file.items()}


def _without(source: SourceFile, names: set[tuple[str, ...]]) -> bytes:
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

    visit(source.tree.body, ())
    return source.of([line for number, line in enumerate(source.lines, 1) if number not in gone])
