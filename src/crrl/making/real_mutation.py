"""Mutants of real code, as edits of the text as it is written (`operators.py` says which).

The rest of the file keeps its layout, byte for byte: only the text of the one expression or statement that changes is
replaced, in one line; or the lines of a case or statement go. Where that text is not laid out as Python's own unparser
(or black) would, there is no mutant.
"""

from __future__ import annotations

import ast
import copy
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crrl.making.operators import FunctionLike, changes
from crrl.making.source_file import Edit, SourceFile, UnreadableError

CASE_LINES = 3  # of a case that is left out
BRANCHES = (ast.If, ast.Try, ast.TryStar, ast.With, ast.For, ast.While, ast.Match)  # of a module or a class
WITHOUT_PLACE = (ast.arguments, ast.comprehension, ast.match_case, ast.withitem)  # and parts that have one
UNDONE = ("clear", "pop", "discard", "remove", "invalidate", "reset", "update", "cache_clear", "append", "add")


@dataclass(frozen=True)
class Mutant:
    """One mutant of a function. The lines are stripped; `new_line` is "" where there is none."""

    kind: str
    edit: Edit
    old_line: str
    new_line: str

    @property
    def line(self) -> int:
        return self.edit.first


@dataclass(frozen=True)
class Function:
    """A function or method of a file. `name`: dotted, within the file; `first` to `last`: the lines of its body."""

    source: SourceFile
    name: str
    node: FunctionLike

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def line(self) -> int:
        return self.node.lineno

    @property
    def starts(self) -> int:
        return min([self.line, *(decorator.lineno for decorator in self.node.decorator_list)])

    @property
    def first(self) -> int:
        documented = len(self.node.body) > 1 and ast.get_docstring(self.node, clean=False) is not None
        return self.node.body[1 if documented else 0].lineno

    @property
    def last(self) -> int:
        return self.node.end_lineno or self.first

    def mutants(self, rng: random.Random, weights: Mapping[str, float]) -> Iterator[Mutant]:
        """All there are, each once, in an order drawn with `weights`; kinds of no weight are left out."""
        tree = ast.Module([self.node], [])
        offered = [(kind, (index, change)) for index, kind, change in changes(self.node)]
        removed = [(kind, edit) for kind, edit in self._removals()]
        kinds = [kind for kind, _ in (*offered, *removed)]
        share = Counter(kinds)
        key = {i: rng.random() ** (share[k] / weights[k]) for i, k in enumerate(kinds) if weights.get(k, 0) > 0}
        seen: set[Edit] = set()
        for place in sorted(key, key=key.__getitem__, reverse=True):
            if place < len(offered):
                index, change = offered[place][1]
                changed = copy.deepcopy(tree)
                change(list(ast.walk(changed))[index])
                edit = self._edit(*_smallest(tree, changed))
                if edit is not None and kinds[place] == "dropped":
                    edit = Edit(edit.first, edit.last, ())  # and no `pass` in its place
            else:
                edit = removed[place - len(offered)][1]
            if edit is None or edit in seen:
                continue
            seen.add(edit)
            if (mutant := self._mutant(kinds[place], edit)) is not None:
                yield mutant

    def _mutant(self, kind: str, edit: Edit) -> Mutant | None:
        try:
            SourceFile.read(self.path, self.source.with_edits([edit]))
        except (UnicodeEncodeError, UnreadableError):
            return None
        old = self.source.bare[edit.first - 1].strip()
        return Mutant(kind, edit, old, edit.new[0].strip() if edit.new else "")

    def _removals(self) -> Iterator[tuple[str, Edit]]:
        """A case that ends early, and the upkeep of an object's state, gone with their lines."""
        for node in ast.walk(self.node):
            if not isinstance(node, ast.stmt) or node is self.node or node.lineno < self.first:
                continue
            text = self.source.bare[node.lineno - 1].strip()
            last = node.end_lineno or node.lineno
            if isinstance(node, ast.If):
                last = node.body[-1].end_lineno or node.lineno
                branch = text.startswith("elif ") or (text.startswith("if ") and not node.orelse)
                if branch and last - node.lineno < CASE_LINES and not isinstance(node.body[0], ast.Raise):
                    yield "dropped_case", Edit(node.lineno, last, ())
            elif last == node.lineno and self.node.name != "__init__" and _keeps_state(node):
                yield "stale_state", Edit(node.lineno, last, ())

    def _edit(self, node: ast.AST, changed: ast.AST) -> Edit | None:
        """`node`'s text becomes `changed`'s, on one line of the body, or among the defaults of the signature."""
        if not isinstance(node, ast.expr | ast.stmt) or node.lineno != node.end_lineno:
            return None
        if node.lineno < self.first and not any(node is default for default in _defaults(self.node)):
            return None
        line = self.source.bare[node.lineno - 1].encode()
        before, text = line[: node.col_offset], line[node.col_offset : node.end_col_offset]
        after = line[node.end_col_offset :]
        for style in (str, _double_quoted):
            if style(ast.unparse(node)).encode() == text:
                new = style(ast.unparse(changed))
                if "\n" in new or new.encode() == text:
                    return None
                return Edit(node.lineno, node.lineno, ((before + new.encode() + after).decode(),))
        return None


def functions(path: str, data: bytes) -> list[Function]:
    """Those of a file, in its order. Raises UnreadableError."""
    return functions_of(SourceFile.read(path, data))


def functions_of(source: SourceFile) -> list[Function]:
    return [Function(source, name, node) for name, node in _functions(source.tree.body, "")]


def _functions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, FunctionLike]]:
    """Functions of the module and methods of its classes; what is nested in one is part of it."""
    for node in body:
        if isinstance(node, FunctionLike):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, BRANCHES):
            inside = [
                part for block in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())) for part in block.body
            ]
            after = [*getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]
            parts = [*getattr(node, "body", ()), *inside, *after]
            yield from _functions(parts, prefix)


def _defaults(function: FunctionLike) -> Iterator[ast.expr]:
    yield from function.args.defaults
    yield from (default for default in function.args.kw_defaults if default is not None)


def _keeps_state(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"))]):
            return True
        case ast.AugAssign(target=ast.Attribute(value=ast.Name(id="self"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=called, value=ast.Attribute()))):
            return called in UNDONE
        case ast.Delete(targets=[ast.Subscript(value=ast.Attribute())]):
            return True
    return False


def _smallest(old: ast.AST, new: ast.AST) -> tuple[ast.AST, ast.AST]:
    """The innermost pair of nodes with a position in the file outside of which the two trees are equal."""
    found = old, new
    while type(old) is type(new):
        differing: list[tuple[ast.AST, ast.AST]] = []
        for name in old._fields:
            for a, b in _pairs(getattr(old, name, None), getattr(new, name, None)):
                if isinstance(a, ast.AST) and isinstance(b, ast.AST):
                    if ast.dump(a) != ast.dump(b):
                        differing.append((a, b))
                elif a != b:
                    return found
        if len(differing) != 1:
            return found
        old, new = differing[0]
        if hasattr(old, "lineno") and not isinstance(old, ast.keyword):
            found = old, new
        elif not isinstance(old, WITHOUT_PLACE):  # an operator, a keyword: its owner is replaced
            return found
    return found


def _pairs(old: object, new: object) -> list[tuple[object, object]]:
    if isinstance(old, list) and isinstance(new, list):
        return list(zip(old, new, strict=True)) if len(old) == len(new) else [(old, new)]
    return [(old, new)]


def _double_quoted(text: str) -> str:
    return text.replace("'", '"')
