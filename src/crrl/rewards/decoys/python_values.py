"""Expected values in Python tests: the literals that say them, wherever they stand, and where that is in the file.

In the assertion, in the variable that it compares with, in the rows of `parametrize` or of a loop, in the module's
table that these go through; never what is an input, too.
"""

from __future__ import annotations

import ast
import random
from collections import Counter

from crrl.rewards.decoys import tables as written_out
from crrl.rewards.decoys.literals import altered
from crrl.rewards.decoys.sites import Edit

NOT_EXPECTED = frozenset({"msg", "message", "abs", "rel", "atol", "rtol", "decimal", "places", "delta", "err_msg"})
PLAIN = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)
CONTAINERS = frozenset({"set", "list", "tuple", "dict", "frozenset", "approx", "Decimal", "Fraction", "OrderedDict"})
MAKERS = frozenset({"array", "date", "datetime", "timedelta", "time", "bytes", "bytearray", "float", "int", "str"})
EMPTY = {ast.List: "[{}]", ast.Tuple: "({},)", ast.Dict: "{{{}: 0}}"}
ITEM = ast.Subscript | ast.Attribute
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Values:
    """Of one file. `data`: its bytes; `rng`: draws the values, never the places; `tables`: of the module, by name."""

    def __init__(self, data: bytes, rng: random.Random, tables: dict[str, ast.expr]) -> None:
        self.data, self.rng, self.tables = data, rng, tables
        self.far = False
        """Whether what is looked at is compared with a tolerance."""
        self.lines = [0]
        for line in data.splitlines(keepends=True) if b"\r" in data else data.split(b"\n"):
            self.lines.append(self.lines[-1] + len(line) + (b"\r" not in data))

    def sources(self, function: Function) -> dict[str, list[ast.expr]]:
        """Name, or what of it is read -> the values that it stands for."""
        return {**self._assigned(function), **self._columns(function), **self._looped(function)}

    def expected(self, sides: list[ast.expr], sources: dict[str, list[ast.expr]]) -> list[Edit]:
        """Edits that change an expected value, the plainest of the sides first; [] where there is no literal."""
        for side in sides:
            if is_plain(side) and (edits := self.changed(side)):
                return edits
        for side in sides:
            if isinstance(side, ast.Name | ITEM) and (values := sources.get(ast.unparse(side))):
                edits = [edit for value in values for edit in self.changed(value)]
                if edits and all(map(self.changed, values)):
                    return edits
        for side in sides:
            if not _computes(side) and (edits := self.changed(side)):
                return edits
        return []

    def changed(self, value: ast.expr) -> list[Edit]:
        """One literal inside `value` becomes another."""
        form = EMPTY.get(type(value))
        if form is not None and not getattr(value, "elts", None) and not getattr(value, "values", None):
            text = form.format(self.rng.randint(1, 9))
            return [Edit(self.start(value), self.end(value), text.encode())]
        found = constants(value)
        if not found:
            return []
        constant = self.rng.choice(found)
        text = repr(altered(constant.value, self.rng, far=self.far))  # type: ignore[arg-type]
        return [Edit(self.start(constant), self.end(constant), text.encode())]

    def _assigned(self, function: Function) -> dict[str, list[ast.expr]]:
        """Variables that the function assigns once, from something plain, and reads once."""
        names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        stored = Counter(node.id for node in names if isinstance(node.ctx, ast.Store))
        once = {name for name, times in stored.items() if times == 1 and _reads(function)[name] == 1}
        return {
            node.targets[0].id: [node.value]
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in once
            and is_plain(node.value)
        }

    def _columns(self, function: Function) -> dict[str, list[ast.expr]]:
        """Values of each parameter of `parametrize`."""
        found: dict[str, list[ast.expr]] = {}
        for call in function.decorator_list:
            if not isinstance(call, ast.Call) or name_of(call) != "parametrize" or len(call.args) != 2:
                continue
            found |= self._by_name(function, written_out.names(call.args[0]), call.args[1])
        return found

    def _looped(self, function: Function) -> dict[str, list[ast.expr]]:
        """Values of each variable of a loop over rows that are written out, where it is no other loop's."""
        found: dict[str, list[ast.expr]] = {}
        names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        stored = Counter(node.id for node in names if isinstance(node.ctx, ast.Store))
        for node in ast.walk(function):
            if isinstance(node, ast.For):
                targets = node.target.elts if isinstance(node.target, ast.Tuple | ast.List) else [node.target]
                called = [target.id if isinstance(target, ast.Name) else "" for target in targets]
                columns = self._by_name(function, called, node.iter)
                found |= {name: values for name, values in columns.items() if stored[name] == 1}
        return found

    def _by_name(self, function: Function, names: list[str], table: ast.expr) -> dict[str, list[ast.expr]]:
        """Name, or what of it is read -> its values in all rows, where it is read once and they are plain."""
        rows = written_out.rows(table, len(names), self.tables) or [None]
        if any(row is None for row in rows):
            return {}
        found: dict[str, list[ast.expr]] = {}
        for at, name in enumerate(names):
            column, reads = [row[at] for row in rows if row is not None], _reads(function)[name]
            if reads == 1:
                found[name] = column
            parts = [
                node for node in ast.walk(function) if isinstance(node, ITEM) and written_out.is_name(node.value, name)
            ]
            if len(parts) == reads:  # and nowhere the whole row
                items = {ast.unparse(node): [written_out.item(row, node) for row in column] for node in parts}
                once = Counter(map(ast.unparse, parts))
                found |= {
                    text: list(filter(None, values))
                    for text, values in items.items()
                    if all(values) and once[text] == 1
                }
        return {text: column for text, column in found.items() if all(map(is_plain, column))}

    # Places ---------------------------------------------------------------------------------------

    def start(self, node: ast.expr) -> int:
        return self.lines[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.lines[node.end_lineno - 1] + node.end_col_offset


def name_of(call: ast.Call) -> str:
    """The last part of what is called; "" where that has no name."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def is_plain(value: ast.expr) -> bool:
    """Only literals, and containers and numbers made of them."""
    if isinstance(value, ast.Call):
        return name_of(value) in CONTAINERS and all(map(is_plain, value.args))
    return all(
        isinstance(node, (*PLAIN, ast.expr_context)) or (isinstance(node, ast.Call) and is_plain(node))
        for node in [value, *ast.iter_child_nodes(value)]
    ) and all(is_plain(node) for node in ast.iter_child_nodes(value) if isinstance(node, ast.expr))


def _reads(function: Function) -> Counter[str]:
    """How often each name is read. What is an input, too, is not changed: nobody knows what it would give then."""
    names = (node for node in ast.walk(function) if isinstance(node, ast.Name))
    return Counter(node.id for node in names if isinstance(node.ctx, ast.Load))


def _computes(value: ast.expr) -> bool:
    """Whether the code under test may have a part in it: calls, but for those of types."""
    names = (name_of(node) for node in ast.walk(value) if isinstance(node, ast.Call))
    return any(name not in CONTAINERS | MAKERS and not name[:1].isupper() for name in names)


def constants(value: ast.expr) -> list[ast.Constant]:
    """Literals that can be changed, in their order; not those of format strings, lambdas, subscripts, tolerances."""
    found: list[ast.Constant] = []

    def look(node: ast.AST) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str | bytes):
            found.append(node)
        elif isinstance(node, ast.Subscript):
            look(node.value)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                look(node.func.value)
            for argument in [*node.args, *(k.value for k in node.keywords if k.arg not in NOT_EXPECTED)]:
                look(argument)
        elif isinstance(node, ast.Dict):
            for part in node.values:
                look(part)
        elif not isinstance(node, ast.JoinedStr | ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp):
            for child in ast.iter_child_nodes(node):
                look(child)

    look(value)
    return found
