"""Mutants of real code: the operators of `mutation.py` and some that suit it, as edits of the text as it is written.

The rest of the file keeps its layout: only the text of the one expression or statement that changes is replaced, in one
line. Where that text is not laid out as Python's own unparser (or black) would, there is no mutant.
"""

from __future__ import annotations

import ast
import copy
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crrl.tasks import mutation
from crrl.tasks.mutation import Change, put, set_to, single_changes

COMPARE: dict[type, type] = {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.NotIn: ast.In}
OPERATE: dict[type, type] = {ast.Div: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult}
CALLS = {
    "append": "extend",
    "lstrip": "rstrip",
    "rstrip": "lstrip",
    "find": "rfind",
    "rfind": "find",
    "index": "rindex",
    "split": "rsplit",
    "rsplit": "split",
    "partition": "rpartition",
    "rpartition": "partition",
    "floor": "ceil",
    "ceil": "floor",
    "title": "capitalize",
    "capitalize": "title",
    "isalnum": "isalpha",
    "isdigit": "isalpha",
}


WEIGHTS = {**mutation.WEIGHTS, "returned": 1.0, "forgotten_condition": 3.0, "loop": 2.0, "forgotten_argument": 3.0}


@dataclass(frozen=True)
class Mutant:
    """One mutant of a file. `text`: the whole file; `line`: from 1; the lines are stripped."""

    kind: str
    line: int
    old_line: str
    new_line: str
    text: str


@dataclass(frozen=True)
class Function:
    """A function or method of a file. `name`: dotted, within the file; `first` to `last`: the lines of its body."""

    path: str
    name: str
    source: str
    node: ast.FunctionDef

    @property
    def first(self) -> int:
        documented = len(self.node.body) > 1 and ast.get_docstring(self.node, clean=False) is not None
        return self.node.body[1 if documented else 0].lineno

    @property
    def last(self) -> int:
        return self.node.end_lineno or self.first

    def mutants(self, rng: random.Random) -> Iterator[Mutant]:
        """All there are, each once, in an order drawn with `WEIGHTS`."""
        tree = ast.Module([self.node], [])
        changes = list(itertools.chain(single_changes(tree), _more(tree)))
        share = Counter(kind for _, kind, _ in changes)
        key = {i: rng.random() ** (share[kind] / WEIGHTS[kind]) for i, (_, kind, _) in enumerate(changes)}
        lines, seen = self.source.split("\n"), set()
        for place in sorted(key, key=key.__getitem__, reverse=True):
            index, kind, change = changes[place]
            changed = copy.deepcopy(tree)
            change(list(ast.walk(changed))[index])
            node, other = _smallest(tree, changed)
            edit = _edit(lines, node, other) if getattr(node, "lineno", 0) >= self.first else None
            if edit is None or edit in seen:
                continue
            seen.add(edit)
            line, new = edit
            text = "\n".join([*lines[: line - 1], new, *lines[line:]])
            if _parses(text):
                yield Mutant(kind, line, lines[line - 1].strip(), new.strip(), text)


def functions(path: str, source: str) -> list[Function]:
    """Those of a file, in its order; none of a file that does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    if "\r" in source or "\f" in source:  # lines are counted otherwise
        return []
    return [Function(path, name, source, node) for name, node in _functions(tree.body, "")]


def _functions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of the module and methods of its classes; what is nested in one is part of it."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try):
            yield from _functions(node.body, prefix)


def _more(tree: ast.Module) -> Iterator[tuple[int, str, Change]]:
    for index, node in enumerate(ast.walk(tree)):
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in COMPARE:
                yield index, "comparison", put("ops", 0, COMPARE[type(operator)]())
            case ast.BinOp(op=operator) if type(operator) in OPERATE:
                yield index, "operator", set_to("op", OPERATE[type(operator)]())
            case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.UnaryOp):
                yield index, "negation", _negate
            case ast.Call(func=ast.Attribute(attr=called)) if called in CALLS:
                yield index, "call", set_to("func.attr", CALLS[called])
            case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
                yield index, "returned", set_to("value", ast.Constant(None))
            case ast.BoolOp(values=[_, _]):
                for kept in (0, 1):
                    yield index, "forgotten_condition", _forget("values", 1 - kept)
            case ast.Break():
                yield index, "loop", set_to("__class__", ast.Continue)
            case ast.Continue():
                yield index, "loop", set_to("__class__", ast.Break)
        if isinstance(node, ast.Call) and node.keywords and all(k.arg for k in node.keywords):
            for position in range(len(node.keywords)):
                yield index, "forgotten_argument", _forget("keywords", position)


def _forget(name: str, position: int) -> Change:
    def change(node: Any) -> None:
        del getattr(node, name)[position]

    return change


def _negate(node: Any) -> None:
    node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)


def _smallest(old: ast.AST, new: ast.AST) -> tuple[ast.AST, ast.AST]:
    """The innermost pair of nodes with a position in the file outside of which the two trees are equal."""
    if type(old) is not type(new):
        return old, new
    differing: list[tuple[ast.AST, ast.AST]] = []
    for name in old._fields:
        for a, b in _pairs(getattr(old, name, None), getattr(new, name, None)):
            if isinstance(a, ast.AST) and isinstance(b, ast.AST):
                if ast.dump(a) != ast.dump(b):
                    differing.append((a, b))
            elif a != b:
                return old, new
    if len(differing) == 1 and hasattr(differing[0][0], "lineno") and not isinstance(differing[0][0], ast.keyword):
        return _smallest(*differing[0])
    return old, new


def _pairs(old: object, new: object) -> list[tuple[object, object]]:
    if isinstance(old, list) and isinstance(new, list):
        return list(zip(old, new, strict=True)) if len(old) == len(new) else [(old, new)]
    return [(old, new)]


def _edit(lines: list[str], node: ast.AST, changed: ast.AST) -> tuple[int, str] | None:
    """(line number, its new text): `node`'s text becomes `changed`'s, both being on one line."""
    if not isinstance(node, ast.expr | ast.stmt) or node.lineno != node.end_lineno:
        return None
    line = lines[node.lineno - 1].encode()
    before, text, after = (
        line[: node.col_offset],
        line[node.col_offset : node.end_col_offset],
        line[node.end_col_offset :],
    )
    for style in (str, _double_quoted):
        if style(ast.unparse(node)).encode() == text:
            new = style(ast.unparse(changed))
            if "\n" in new or new.encode() == text:
                return None
            return node.lineno, (before + new.encode() + after).decode()
    return None


def _double_quoted(text: str) -> str:
    return text.replace("'", '"')


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
