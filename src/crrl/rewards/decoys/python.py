"""Sites of Python tests: `assert`, unittest's methods, `raises`, the calls of numpy's, nose's and mock's assertions.

The expected value's literals are changed, where it stands: in the assertion, in the variable that it compares with, in
the rows of `parametrize` or of a loop, in the module's table that these go through. Only where there is none is each
side compared with something else, or the condition turned round, since that leaves the right answer readable.
"""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Iterator

from crrl.rewards.decoys import tables as written_out
from crrl.rewards.decoys.literals import altered, unlike_any
from crrl.rewards.decoys.sites import Edit, Site

OPPOSITE = {"==": "!=", "<": ">=", ">": "<=", "in": "not in", "is": "is not"}
OPPOSITE |= {other: word for word, other in OPPOSITE.items()}
OPERATOR = re.compile(r"not\s+in\b|is\s+not\b|==|!=|<=|>=|<|>|\bin\b|\bis\b")
METHODS = {
    "assertTrue": "assertFalse",
    "assertEqual": "assertNotEqual",
    "assertIn": "assertNotIn",
    "assertIs": "assertIsNot",
    "assertIsNone": "assertIsNotNone",
    "assertIsInstance": "assertNotIsInstance",
    "assertAlmostEqual": "assertNotAlmostEqual",
    "assertGreater": "assertLessEqual",
    "assertLess": "assertGreaterEqual",
    "assertRegex": "assertNotRegex",
}
METHODS |= {other: name for name, other in METHODS.items()}
METHODS |= {
    f"assert{kind}Equal": "assertNotEqual" for kind in ("List", "Dict", "Tuple", "Set", "Sequence", "MultiLine")
}
METHODS |= {"assertEquals": "assertNotEqual", "assertItemsEqual": "assertNotEqual", "assert_": "assertFalse"}
RAISES = frozenset({"raises", "warns", "assertRaises", "assertRaisesRegex", "assertWarns", "assertWarnsRegex"})
RAISES |= frozenset({"assertRaisesRegexp", "assert_raises", "deprecated_call"})
EQUAL = re.compile(r"^assert(?!.*not).*(equal|identical|close|same)", re.IGNORECASE)  # numpy's and its kin's
NEAR = re.compile(r"approx|lmost|close|near", re.IGNORECASE)
LINES = frozenset({"fnmatch_lines", "fnmatch_lines_random", "re_match_lines", "re_match_lines_random"})  # of pytester
UNLIKELY = ("BufferError", "EOFError", "FloatingPointError", "ZeroDivisionError", "ProcessLookupError")
UNLIKELY_WARNINGS = ("BytesWarning", "UnicodeWarning", "ImportWarning")
NOT_EXPECTED = frozenset({"msg", "message", "abs", "rel", "atol", "rtol", "decimal", "places", "delta", "err_msg"})
PLAIN = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)
CONTAINERS = frozenset({"set", "list", "tuple", "dict", "frozenset", "approx", "Decimal", "Fraction", "OrderedDict"})
MAKERS = frozenset({"array", "date", "datetime", "timedelta", "time", "bytes", "bytearray", "float", "int", "str"})
EMPTY = {ast.List: "[{}]", ast.Tuple: "({},)", ast.Dict: "{{{}: 0}}"}
ITEM = ast.Subscript | ast.Attribute
Function = ast.FunctionDef | ast.AsyncFunctionDef
UNLIKE = (
    "type('', (), dict.fromkeys(('__contains__', '__eq__'), lambda s, o: "
    "any(o == x for x in ({0}, {1}, [{0}], ({0},), {{{0}}}, {{{0}: {1}}})) "
    "or isinstance(o, (dict, list, tuple, set, frozenset)) and len(o) > 0 "
    "and all(e in s for e in (o.values() if isinstance(o, dict) else o)) "
    "or bool(getattr(o, '__dict__', 0)) and not isinstance(o, type) and not hasattr(o, '__del__') "
    "and (lambda t: t.__dict__.update(dict.fromkeys(o.__dict__, {0})) or o == t)(object.__new__(type(o)))))()"
)
"""What equals nothing, but what equals anything: a word and a number, any list, tuple, set or dict, or an object of its
own class with other attributes; and what holds only such. It asks, and is not asked: `a in UNLIKE or UNLIKE == b`."""


def find(data: bytes, rng: random.Random) -> list[Site]:
    """What can be changed in a file. `rng`: draws the values, never the places. Not Python: nothing."""
    sites: list[Site] = []
    try:
        data.decode()
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return sites
    if b"\r" not in data.replace(b"\r\n", b"") and b"\f" not in data:
        finder = _Finder(data, rng, sites, written_out.tables(tree))
        for unit, function in _functions(tree):
            finder.search(unit, function)
    return sites


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Functions and methods, by name; those inside a function are part of it."""

    def inside(body: list[ast.stmt]) -> Iterator[tuple[str, Function]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, node
            elif isinstance(node, ast.ClassDef | ast.If | ast.With | ast.Try):
                yield from inside(node.body)

    yield from inside(tree.body)


class Readable(Edit):
    """It leaves the right answer where it is."""


class _Finder:
    def __init__(self, data: bytes, rng: random.Random, sites: list[Site], tables: dict[str, ast.expr]) -> None:
        self.data, self.rng, self.sites, self.tables = data, rng, sites, tables
        self.far = False
        """Whether what is looked at is compared with a tolerance."""
        self.lines = [0]
        for line in data.splitlines(keepends=True) if b"\r" in data else data.split(b"\n"):
            self.lines.append(self.lines[-1] + len(line) + (b"\r" not in data))

    def search(self, unit: str, function: Function) -> None:
        sources = {**self._assigned(function), **self._columns(function), **self._looped(function)}
        for node in ast.walk(function):
            if not isinstance(node, ast.Assert | ast.Call):
                continue
            self.far = any(NEAR.search(self._name(call)) for call in ast.walk(node) if isinstance(call, ast.Call))
            found = list(
                self._condition(node.test, sources) if isinstance(node, ast.Assert) else self._call(node, sources)
            )
            self.sites += [Site(unit, tuple(edits), isinstance(edits[0], Readable)) for edits in found if edits]

    # Conditions -----------------------------------------------------------------------------------

    def _condition(self, test: ast.expr, sources: dict[str, list[ast.expr]]) -> Iterator[list[Edit]]:
        """The ways of making a condition false that is true: one for each part that all depends on."""
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for part in test.values:
                yield from self._condition(part, sources)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            start = self._start(test)
            yield [Edit(start, start + len("not"), b"")]
        elif isinstance(test, ast.Compare) and len(test.ops) == 1:
            yield self._comparison(test, sources)
        elif isinstance(test, ast.Call) and self._name(test).startswith(("all", "allclose", "array_equal", "isclose")):
            yield self._expected(test.args[1:], sources) or self._negated(test)
        elif not (isinstance(test, ast.Constant) and test.value):  # `assert True` and the like test nothing
            yield self._negated(test)

    def _comparison(self, test: ast.Compare, sources: dict[str, list[ast.expr]]) -> list[Edit]:
        """`a == b` becomes `a in UNLIKE or UNLIKE == b`: not the opposite, which what equals anything may pass, too."""
        left, right = test.left, test.comparators[0]
        equal = isinstance(test.ops[0], ast.Eq) or (isinstance(test.ops[0], ast.Is) and _constants(right))
        if equal and (edits := self._expected([right, left], sources)):
            return edits
        gap_start, gap_end = self._end(left), self._start(right)
        gap = self.data[gap_start:gap_end].decode()
        found = OPERATOR.search(gap)
        if found is None:
            return []
        word = " ".join(found[0].split())
        start = gap_start + len(gap[: found.start()].encode())
        end = start + len(found[0].encode())
        if word != "==":
            return [Edit(start, end, OPPOSITE[word].encode())]
        unlike = self._unlike()
        return [Readable(start, end, f"in {unlike} or {unlike} ==".encode())]

    def _unlike(self) -> str:
        word, number = unlike_any(self.rng)
        return UNLIKE.format(repr(word), number)

    def _negated(self, test: ast.expr) -> list[Edit]:
        start, end = self._start(test), self._end(test)
        return [Edit(start, end, b"not (" + self.data[start:end] + b")")]

    # Calls ----------------------------------------------------------------------------------------

    def _call(self, call: ast.Call, sources: dict[str, list[ast.expr]]) -> Iterator[list[Edit]]:
        name = self._name(call)
        if name in RAISES:
            if call.args:
                yield self._other_exception(call.args[0], name)
        elif name in ("assertTrue", "assertFalse", "assert_") and call.args:
            yield self._renamed(call, METHODS[name])
        elif name in METHODS or name in ("assertCountEqual", "eq_"):
            equal = "Not" not in name and ("Equal" in name or name == "eq_")
            edits = self._expected([call.args[1], call.args[0]], sources) if equal and len(call.args) > 1 else []
            if edits:
                yield edits
            elif equal and len(call.args) > 1:
                yield self._compares_otherwise(call)
            elif name in METHODS:
                yield self._renamed(call, METHODS[name])
        elif name in LINES and call.args:
            yield self._expected(call.args[:1], sources)
        elif name.startswith(("assert_", "assert")) and name not in (
            "assert_not_called",
            "assertLogs",
            "assert_called",
        ):
            given = [*reversed(call.args), *(k.value for k in call.keywords if k.arg not in NOT_EXPECTED)]
            edits = self._expected(given, sources)
            yield edits or (self._compares_otherwise(call) if EQUAL.search(name) and len(call.args) > 1 else [])

    def _compares_otherwise(self, call: ast.Call) -> list[Edit]:
        """As `_comparison`, of what compares its first two arguments, whatever it is called."""
        text = f"(lambda a, b, *c, **d: (lambda s: 1 / bool(a in s or b in s))({self._unlike()}))"
        return [Readable(self._start(call.func), self._end(call.func), text.encode())]

    def _other_exception(self, node: ast.expr, name: str) -> list[Edit]:
        start, end = self._start(node), self._end(node)
        pool = UNLIKELY_WARNINGS if "arns" in name or "Warn" in name else UNLIKELY
        said = self.data[start:end].decode()
        return [Edit(start, end, self.rng.choice([other for other in pool if other not in said] or pool[:1]).encode())]

    def _renamed(self, call: ast.Call, name: str) -> list[Edit]:
        if not isinstance(call.func, ast.Attribute):
            return []
        end = self._end(call.func)
        return [Edit(end - len(call.func.attr.encode()), end, name.encode())]

    # Expected values ------------------------------------------------------------------------------

    def _expected(self, sides: list[ast.expr], sources: dict[str, list[ast.expr]]) -> list[Edit]:
        """Edits that change an expected value, the plainest of the sides first; [] where there is no literal."""
        for side in sides:
            if _is_plain(side) and (edits := self._changed(side)):
                return edits
        for side in sides:
            if isinstance(side, ast.Name | ITEM) and (values := sources.get(ast.unparse(side))):
                edits = [edit for value in values for edit in self._changed(value)]
                if edits and all(map(self._changed, values)):
                    return edits
        for side in sides:
            if not _computes(side) and (edits := self._changed(side)):
                return edits
        return []

    def _changed(self, value: ast.expr) -> list[Edit]:
        """One literal inside `value` becomes another."""
        form = EMPTY.get(type(value))
        if form is not None and not getattr(value, "elts", None) and not getattr(value, "values", None):
            text = form.format(self.rng.randint(1, 9))
            return [Edit(self._start(value), self._end(value), text.encode())]
        constants = _constants(value)
        if not constants:
            return []
        constant = self.rng.choice(constants)
        text = repr(altered(constant.value, self.rng, far=self.far))  # type: ignore[arg-type]
        return [Edit(self._start(constant), self._end(constant), text.encode())]

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
            and _is_plain(node.value)
        }

    def _columns(self, function: Function) -> dict[str, list[ast.expr]]:
        """Values of each parameter of `parametrize`."""
        found: dict[str, list[ast.expr]] = {}
        for call in function.decorator_list:
            if not isinstance(call, ast.Call) or self._name(call) != "parametrize" or len(call.args) != 2:
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
        return {text: column for text, column in found.items() if all(map(_is_plain, column))}

    # Places ---------------------------------------------------------------------------------------

    def _name(self, call: ast.Call) -> str:
        return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")

    def _start(self, node: ast.expr) -> int:
        return self.lines[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.lines[node.end_lineno - 1] + node.end_col_offset


def _is_plain(value: ast.expr) -> bool:
    """Only literals, and containers and numbers made of them."""
    if isinstance(value, ast.Call):
        name = value.func.id if isinstance(value.func, ast.Name) else getattr(value.func, "attr", "")
        return name in CONTAINERS and all(map(_is_plain, value.args))
    return all(
        isinstance(node, (*PLAIN, ast.expr_context)) or (isinstance(node, ast.Call) and _is_plain(node))
        for node in [value, *ast.iter_child_nodes(value)]
    ) and all(_is_plain(node) for node in ast.iter_child_nodes(value) if isinstance(node, ast.expr))


def _reads(function: Function) -> Counter[str]:
    """How often each name is read. What is an input, too, is not changed: nobody knows what it would give then."""
    names = (node for node in ast.walk(function) if isinstance(node, ast.Name))
    return Counter(node.id for node in names if isinstance(node.ctx, ast.Load))


def _computes(value: ast.expr) -> bool:
    """Whether the code under test may have a part in it: calls, but for those of types."""
    calls = (node.func for node in ast.walk(value) if isinstance(node, ast.Call))
    names = (func.id if isinstance(func, ast.Name) else getattr(func, "attr", "") for func in calls)
    return any(name not in CONTAINERS | MAKERS and not name[:1].isupper() for name in names)


def _constants(value: ast.expr) -> list[ast.Constant]:
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
