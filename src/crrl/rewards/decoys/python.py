"""Sites of Python tests: `assert`, unittest's methods, `raises`, the calls of numpy's, nose's and mock's assertions.

The expected value's literals are changed, where it stands (`python_values.py`). Only where there is none is each side
compared with something else (`python_unlike.py`), or the condition turned round: that leaves the right answer readable.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator

from crrl import python_syntax
from crrl.rewards.decoys import python_unlike
from crrl.rewards.decoys import tables as written_out
from crrl.rewards.decoys.python_values import NOT_EXPECTED, Function, Values, constants, name_of
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
SAME = re.compile(r"^(is_|almost_?)?(equals?|eq|same)(_to|_as)?$")  # methods that ask another object
NEAR = re.compile(r"approx|lmost|close|near", re.IGNORECASE)
LINES = frozenset({"fnmatch_lines", "fnmatch_lines_random", "re_match_lines", "re_match_lines_random"})  # of pytester
UNLIKELY = ("BufferError", "EOFError", "FloatingPointError", "ZeroDivisionError", "ProcessLookupError")
UNLIKELY_WARNINGS = ("BytesWarning", "UnicodeWarning", "ImportWarning")
AWAY = {"assertGreater": True, "assertGreaterEqual": True, "assertLess": False, "assertLessEqual": False}
"""What compares with a number: whether it is false of one far above."""
ORDER = ast.Lt | ast.LtE | ast.Gt | ast.GtE
Sources = dict[str, list[ast.expr]]
"""Name, or what of it is read -> the values that it stands for."""


def find(data: bytes, rng: random.Random) -> list[Site]:
    """What can be changed in a file. `rng`: draws the values, never the places. Not Python: nothing."""
    sites: list[Site] = []
    try:
        data.decode()
        tree = python_syntax.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return sites
    if b"\r" not in data.replace(b"\r\n", b"") and b"\f" not in data:
        finder = _Finder(data, rng, written_out.tables(tree))
        for unit, function in _functions(tree):
            sites += finder.search(unit, function)
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


class _Finder(Values):
    def search(self, unit: str, function: Function) -> Iterator[Site]:
        sources = self.sources(function)
        for node in ast.walk(function):
            if not isinstance(node, ast.Assert | ast.Call):
                continue
            self.far = any(NEAR.search(name_of(call)) for call in ast.walk(node) if isinstance(call, ast.Call))
            found = list(
                self._condition(node.test, sources) if isinstance(node, ast.Assert) else self._call(node, sources)
            )
            yield from (
                Site(unit, tuple(edits), isinstance(edits[0], Readable), function.lineno) for edits in found if edits
            )

    # Conditions -----------------------------------------------------------------------------------

    def _condition(self, test: ast.expr, sources: Sources) -> Iterator[list[Edit]]:
        """The ways of making a condition false that is true: one for each part that all depends on."""
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for part in test.values:
                yield from self._condition(part, sources)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = test.operand
            if isinstance(inner, ast.Compare) and [type(op) for op in inner.ops] == [ast.NotEq]:
                yield self._either(test, inner.left, inner.comparators[0])
            else:
                start = self.start(test)
                yield [Edit(start, start + len("not"), b"")]
        elif isinstance(test, ast.Compare):
            yield self._comparison(test, sources)
        elif isinstance(test, ast.Call):
            yield self._truth(test, sources) or self._negated(test)
        elif not (isinstance(test, ast.Constant) and test.value):  # `assert True` and the like test nothing
            yield self._negated(test)

    def _truth(self, call: ast.Call, sources: Sources) -> list[Edit]:
        """Of a call that gives the truth; [] where that is all that is known."""
        name, of = name_of(call), call.func.value if isinstance(call.func, ast.Attribute) else None
        each = call.args[0] if len(call.args) == 1 else None
        if name == "isinstance" and len(call.args) == 2:
            return [self._called(call, python_unlike.IS_INSTANCE)]
        if name in ("startswith", "endswith") and each is not None:
            return self._unlike(each)
        if SAME.match(name) and each is not None and of is not None:
            return [self._replaced(each, python_unlike.unlike(self.rng))]
        if name == "all":
            if isinstance(each, ast.GeneratorExp | ast.ListComp) and isinstance(each.elt, ast.Compare):
                return self._comparison(each.elt, sources)
            compared = each or of
            if isinstance(compared, ast.Compare) and [type(op) for op in compared.ops] == [ast.Eq]:
                sides = [compared.comparators[0], compared.left]
                return self.expected(sides, sources) or self._either(call, *sides[::-1])
            return []
        if name.startswith(("allclose", "array_equal", "isclose")) and len(call.args) > 1:
            return self.expected(call.args[1:], sources) or [self._called(call, python_unlike.compares(self.rng))]
        return []

    def _comparison(self, test: ast.Compare, sources: Sources) -> list[Edit]:
        """`a == b` becomes `a in UNLIKE or UNLIKE == b`, an order one with a number far away; else the opposite."""
        left, right, kind = test.left, test.comparators[0], test.ops[0]
        if isinstance(kind, ast.Eq) and (pair := _difference(left, right) or _difference(right, left)):
            return self._near(test, pair, sources)
        equal = isinstance(kind, ast.Eq) or (isinstance(kind, ast.Is) and constants(right))
        if equal and (edits := self.expected([*test.comparators, left], sources)):
            return edits
        if isinstance(kind, ast.In) and (edits := self._among(left, right)):
            return edits
        if isinstance(kind, ORDER):
            less = isinstance(kind, ast.Lt | ast.LtE)
            if pair := _difference(left if less else right):
                return self._near(test, pair, sources)
            if edits := self._beyond(right, above=not less) or self._beyond(left, above=less):
                return edits
        return self._turned(left, right) if len(test.ops) == 1 or isinstance(kind, ast.Eq) else self._negated(test)

    def _turned(self, left: ast.expr, right: ast.expr) -> list[Edit]:
        """The operator between them."""
        gap_start = self.end(left)
        gap = self.data[gap_start : self.start(right)].decode()
        found = OPERATOR.search(gap)
        if found is None:
            return []
        word = " ".join(found[0].split())
        start = gap_start + len(gap[: found.start()].encode())
        end = start + len(found[0].encode())
        if word != "==":
            return [Edit(start, end, OPPOSITE[word].encode())]
        other = python_unlike.unlike(self.rng)
        return [Readable(start, end, f"in {other} or {other} ==".encode())]

    def _near(self, test: ast.expr, pair: tuple[ast.expr, ast.expr], sources: Sources) -> list[Edit]:
        """`abs(a - b) < c`, `a - b == 0`."""
        self.far = True
        return self.expected([*pair[::-1]], sources) or self._either(test, *pair)

    def _either(self, whole: ast.expr, one: ast.expr, two: ast.expr) -> list[Edit]:
        return [self._replaced(whole, python_unlike.either(self._text(one), self._text(two), self.rng))]

    def _among(self, one: ast.expr, held: ast.expr) -> list[Edit]:
        """`one in held`: all that is written out is something else."""
        if isinstance(one, ast.Constant):
            return self._unlike(one)
        items = held.elts if isinstance(held, ast.List | ast.Tuple | ast.Set) else []
        edits = [self._unlike(item) for item in items]
        return [edit for each in edits for edit in each] if all(edits) else []

    def _unlike(self, value: ast.expr) -> list[Edit]:
        text = python_unlike.like(value.value, self.rng) if isinstance(value, ast.Constant) else ""
        return [Edit(self.start(value), self.end(value), text.encode())] if text else []

    def _beyond(self, value: ast.expr, *, above: bool) -> list[Edit]:
        number = value.operand if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub) else value
        if not isinstance(number, ast.Constant) or type(number.value) not in (int, float):
            return []
        text = python_unlike.beyond(number.value, self.rng, above=above)  # type: ignore[arg-type]
        return [Edit(self.start(value), self.end(value), text.encode())]

    def _negated(self, test: ast.expr) -> list[Edit]:
        return [Edit(self.start(test), self.end(test), f"not ({self._text(test)})".encode())]

    def _text(self, node: ast.expr) -> str:
        return self.data[self.start(node) : self.end(node)].decode()

    def _called(self, call: ast.Call, text: str) -> Edit:
        """Another function."""
        return self._replaced(call.func, text)

    def _replaced(self, node: ast.expr, text: str) -> Edit:
        return Readable(self.start(node), self.end(node), text.encode())

    # Calls ----------------------------------------------------------------------------------------

    def _call(self, call: ast.Call, sources: Sources) -> Iterator[list[Edit]]:
        name, given = name_of(call), call.args
        if name in RAISES:
            if given:
                yield self._other_exception(given[0], name)
        elif name in ("assertTrue", "assert_") and given:
            yield from self._condition(given[0], sources)
        elif name == "assertFalse" and given:
            yield self._renamed(call, METHODS[name])
        elif name in METHODS or name in ("assertCountEqual", "eq_"):
            yield self._method(call, name, sources)
        elif name in LINES and given:
            yield self.expected(given[:1], sources)
        elif name.startswith(("assert_", "assert")) and name not in (
            "assert_not_called",
            "assertLogs",
            "assert_called",
        ):
            told = [*reversed(given), *(k.value for k in call.keywords if k.arg not in NOT_EXPECTED)]
            edits = self.expected(told, sources)
            yield edits or (self._compares_otherwise(call) if EQUAL.search(name) and len(given) > 1 else [])

    def _method(self, call: ast.Call, name: str, sources: Sources) -> list[Edit]:
        """Of unittest, with two values."""
        if len(call.args) > 1:
            one, two = call.args[:2]
            if "Not" not in name and ("Equal" in name or name == "eq_") and name not in AWAY:
                if pair := _difference(one, two) or _difference(two, one):
                    return self.expected([*pair[::-1]], sources) or [self._called(call, self._of_pair(*pair))]
                return self.expected([two, one], sources) or self._compares_otherwise(call)
            edits = self._among(one, two) if name == "assertIn" else []
            if name in AWAY:
                edits = self._beyond(two, above=AWAY[name]) or self._beyond(one, above=not AWAY[name])
            if name == "assertIsInstance":
                edits = [self._called(call, python_unlike.ASSERTS_INSTANCE)]
            if edits:
                return edits
        return self._renamed(call, METHODS[name]) if name in METHODS else []

    def _of_pair(self, one: ast.expr, two: ast.expr) -> str:
        return f"(lambda *c, **d: 1 / bool({python_unlike.either(self._text(one), self._text(two), self.rng)}))"

    def _compares_otherwise(self, call: ast.Call) -> list[Edit]:
        """As `_comparison`, of what compares its first two arguments, whatever it is called."""
        return [self._called(call, python_unlike.compares(self.rng))]

    def _other_exception(self, node: ast.expr, name: str) -> list[Edit]:
        start, end = self.start(node), self.end(node)
        pool = UNLIKELY_WARNINGS if "arns" in name or "Warn" in name else UNLIKELY
        said = self.data[start:end].decode()
        return [Edit(start, end, self.rng.choice([other for other in pool if other not in said] or pool[:1]).encode())]

    def _renamed(self, call: ast.Call, name: str) -> list[Edit]:
        if not isinstance(call.func, ast.Attribute):
            return []
        end = self.end(call.func)
        return [Edit(end - len(call.func.attr.encode()), end, name.encode())]


def _difference(value: ast.expr, zero: ast.expr | None = None) -> tuple[ast.expr, ast.expr] | None:
    """The two of `abs(a - b)`; with `zero`, if it is that, of `a - b` and of what is rounded, too."""
    if zero is not None and not (
        isinstance(zero, ast.Constant) and type(zero.value) in (int, float) and not zero.value
    ):
        return None
    inner, wrapped = value, 0
    while isinstance(inner, ast.Call) and name_of(inner) in ("abs", "fabs", "round") and inner.args:
        inner, wrapped = inner.args[0], wrapped + 1
    if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub) and (wrapped or zero is not None):
        return inner.left, inner.right
    return None
