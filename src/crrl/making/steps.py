"""What a test does before the call that goes wrong, as somebody would write it who has not seen the test.

Every name in it is explained: what the test file imports or defines in a few lines comes before it, parameters come
with their values, what a set-up method leaves in `self` comes with its lines, assertions of unittest become plain ones.
Where a name cannot be explained (a fixture, a long helper) there are no steps.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import dedent

from crrl.making.source_file import SourceFile

SHOWN_LINES, SHOWN_CHARS = 14, 1200
HELPER_LINES, SET_UP_LINES = 8, 6
SET_UPS = ("setUp", "setup", "setup_method")
PATCHES = ("monkeypatch", "mocker", "mock", "patch", "environ", "chdir", "seed")
KNOWN = ("monkeypatch", "tmp_path")  # fixtures of pytest's own that need no explanation
PLAIN = {  # of unittest, as what is compared
    **{"assertEqual": "==", "assertNotEqual": "!=", "assertIs": "is", "assertIsNot": "is not"},
    **{
        "assertIn": "in",
        "assertNotIn": "not in",
        "assertEquals": "==",
        "assertListEqual": "==",
        "assertDictEqual": "==",
    },
    **{"assertLess": "<", "assertLessEqual": "<=", "assertGreater": ">", "assertGreaterEqual": ">="},
}
FunctionLike = ast.FunctionDef | ast.AsyncFunctionDef
OPERATORS: dict[str, tuple[str, type[ast.operator | ast.cmpop]]] = {  # method -> its sign, and what the syntax tree has
    **{"__eq__": ("==", ast.Eq), "__ne__": ("!=", ast.NotEq), "__lt__": ("<", ast.Lt), "__le__": ("<=", ast.LtE)},
    **{"__gt__": (">", ast.Gt), "__ge__": (">=", ast.GtE), "__add__": ("+", ast.Add), "__sub__": ("-", ast.Sub)},
    **{"__mul__": ("*", ast.Mult), "__truediv__": ("/", ast.Div), "__floordiv__": ("//", ast.FloorDiv)},
    **{
        "__mod__": ("%", ast.Mod),
        "__and__": ("&", ast.BitAnd),
        "__or__": ("|", ast.BitOr),
        "__xor__": ("^", ast.BitXor),
    },
}


class UnexplainedError(Exception):
    """A name that only the test's surroundings explain."""


def leading_to(source: SourceFile, test: str, line: int, params: Mapping[str, str], opaque: re.Pattern[str]) -> str:
    """The test's body up to the statement in that line, or that statement; "" where neither can be told. `params`: of
    a parametrised test, their values as written; those that `opaque` finds something in are no values."""
    found = _find(source, test)
    if found is None or not found[0].lineno <= line <= (found[0].end_lineno or 0):
        return ""
    function, owner = found
    if _fixtures(function, owner, params):
        return ""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if not body:
        return ""
    place = next((n for n, node in enumerate(body) if line <= (node.end_lineno or node.lineno)), len(body) - 1)
    given = {name: value for name, value in params.items() if not opaque.search(value)}
    for first in (0, place):
        try:
            text = _Steps(source, function, owner, given).of(body[first : place + 1])
        except UnexplainedError:
            continue
        if text.count("\n") < SHOWN_LINES and len(text) < SHOWN_CHARS:
            return text
    return ""


def call_in(source: SourceFile, test: str, line: int, name: str, is_property: bool) -> str:
    """The only call of that name in the test's line, as it is written there, or operator of that method; "" where there
    is none, or several different ones."""
    found = _find(source, test)
    if found is None:
        return ""
    calls = {
        ast.unparse(node)
        for node in ast.walk(found[0])
        if getattr(node, "lineno", 0) == line and _calls(node, name, is_property)
    }
    return re.sub(r"\bself\.(?=\w)", "", calls.pop()) if len(calls) == 1 else ""


def name_in(source: SourceFile, test: str, line: int) -> str:
    """What the only call in the test's line calls, builtins and the test framework apart, if that has a name of its
    own; "" where there is none, or several."""
    found = _find(source, test)
    called = [
        node.func
        for node in ast.walk(found[0] if found is not None else ast.Module([], []))
        if isinstance(node, ast.Call) and node.lineno == line and not _of_framework(node.func)
    ]
    return called[0].id if len(called) == 1 and isinstance(called[0], ast.Name) else ""


def _of_framework(called: ast.expr) -> bool:
    if isinstance(called, ast.Name):
        return hasattr(builtins, called.id) or called.id in ("raises", "warns", "approx")
    return isinstance(called, ast.Attribute) and (_asserts(called) or ast.unparse(called.value) == "pytest")


def _calls(node: ast.AST, name: str, is_property: bool) -> bool:
    match node:
        case ast.Subscript(ctx=ast.Load()):
            return name == "__getitem__"
        case ast.BinOp(op=operator) | ast.Compare(ops=[operator]):
            return name in OPERATORS and isinstance(operator, OPERATORS[name][1])
        case ast.Call(func=ast.Call(func=ast.Name(id="getattr"))):
            return True
        case ast.Call(func=ast.Name(id=called)) | ast.Call(func=ast.Attribute(attr=called)):
            return called == name or f"__{called}__" == name
        case ast.Attribute(attr=read, ctx=ast.Load()) | ast.Assign(targets=[ast.Attribute(attr=read)]):
            return is_property and read == name
    return False


def patches(source: SourceFile, test: str, params: Mapping[str, str]) -> bool:
    """Whether the test changes what is around the call, itself or by a fixture that it does not look at: the call
    alone tells less than half."""
    found = _find(source, test)
    if found is None:
        return False
    function, owner = found
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(function)}
    arguments = {argument.arg for argument in function.args.args}
    return not (names | arguments).isdisjoint(PATCHES) or _fixtures(function, owner, params)


def _fixtures(function: FunctionLike, owner: ast.ClassDef | None, params: Mapping[str, str]) -> bool:
    """Whether fixtures do something that the test does not look at."""
    marks = [*function.decorator_list, *(owner.decorator_list if owner is not None else ())]
    if any(getattr(node, "attr", "") == "usefixtures" for mark in marks for node in ast.walk(mark)):
        return True
    used = {node.id for part in function.body for node in ast.walk(part) if isinstance(node, ast.Name)}
    return not {argument.arg for argument in function.args.args} <= {"self", *KNOWN, *params, *used}


def _find(source: SourceFile, test: str) -> tuple[FunctionLike, ast.ClassDef | None] | None:
    body: Sequence[ast.stmt] = source.tree.body
    owner: ast.ClassDef | None = None
    for name in (name.partition("[")[0] for name in test.split("::")[1:]):
        node = next((n for n in body if getattr(n, "name", "") == name), None)
        if isinstance(node, ast.ClassDef):
            owner, body = node, node.body
        elif isinstance(node, FunctionLike):
            return node, owner
    return None


class _Steps:
    """`given`: values of the test's parameters."""

    def __init__(
        self, source: SourceFile, function: FunctionLike, owner: ast.ClassDef | None, given: Mapping[str, str]
    ) -> None:
        self.source, self.owner, self.given = source, owner, given
        every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        self.arguments = {argument.arg for argument in every} - {"self", "cls"}
        self.imports: dict[str, str] = {}
        self.before: dict[str, str] = {}  # name -> the lines that explain it, in order

    def of(self, body: Sequence[ast.stmt]) -> str:
        """Raises UnexplainedError."""
        fields = self._fields(body)
        lines = self._text(fields) + self._text(body)
        for name in sorted(_free([*fields, *body])):
            self._explain(name)
        text = "\n".join([*self.imports.values(), *self.before.values(), *lines])
        return re.sub(r"\bself\.(?=\w)", "", text)

    def _fields(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        """The lines of a set-up method, if `self` is more than what asserts."""
        used = {node.attr for statement in body for node in ast.walk(statement) if _is_field(node)}  # type: ignore[attr-defined]
        used -= {name for name in used if name.startswith(("assert", "fail"))}
        if not used:
            return []
        for method in self.owner.body if self.owner is not None else ():
            if not isinstance(method, ast.FunctionDef) or not (method.name in SET_UPS or method.decorator_list):
                continue
            if method.args.args[1:] or (method.end_lineno or 0) - method.lineno > SET_UP_LINES:
                continue
            stored = {t.attr for t in ast.walk(method) if _is_field(t) and isinstance(t.ctx, ast.Store)}  # type: ignore[attr-defined]
            if used <= stored:
                return [node for node in method.body if not _is_text(node)]
        raise UnexplainedError

    def _text(self, body: Sequence[ast.stmt]) -> list[str]:
        """Assertions as plain ones, the rest as it is written."""
        found: list[str] = []
        for node in body:
            if (plain := _plain(node)) is not None:
                found.append(plain)
                continue
            if any(_asserts(part) for part in ast.walk(node)):
                raise UnexplainedError  # inside a loop, or one that has no plain form
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            found += dedent("\n".join(self.source.bare[first - 1 : node.end_lineno])).split("\n")
        return found

    def _explain(self, name: str) -> None:
        if name in self.imports or name in self.before or name == "self":
            return
        if name in self.given:
            self.before[name] = f"{name} = {self.given[name]}"
            return
        if name in KNOWN:
            return
        if name in self.arguments:
            raise UnexplainedError
        for node in self.source.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name.partition(".")[0]) == name:
                        self.imports[name] = _import(node, alias)
                        return
            elif name in _defined(node):
                if (node.end_lineno or node.lineno) - node.lineno >= HELPER_LINES:
                    raise UnexplainedError
                self.before[name] = ""  # it may call itself
                for other in sorted(_free([node])):
                    self._explain(other)
                del self.before[name]
                self.before[name] = "\n".join(self._text([node]))
                return
        if not hasattr(builtins, name):
            raise UnexplainedError


def _is_field(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Yield)


def _asserts(node: ast.AST) -> bool:
    return _is_field(node) and node.attr.startswith(("assert", "fail"))  # type: ignore[attr-defined]


def _plain(node: ast.stmt) -> str | None:
    """An assertion of unittest as a statement of Python; None for anything else."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call) or not _asserts(node.value.func):
        return None
    name, arguments = node.value.func.attr, [ast.unparse(a) for a in node.value.args]  # type: ignore[attr-defined]
    if name in PLAIN and len(arguments) >= 2:
        return f"assert {arguments[0]} {PLAIN[name]} {arguments[1]}"
    if name in ("assertTrue", "assertFalse", "assertIsNone", "assertIsNotNone") and arguments:
        told = {"assertTrue": "", "assertFalse": "", "assertIsNone": " is None", "assertIsNotNone": " is not None"}[
            name
        ]
        return f"assert {'not ' if name == 'assertFalse' else ''}{arguments[0]}{told}"
    if name == "assertRaises" and len(arguments) >= 2:
        return f"{arguments[1]}({', '.join(arguments[2:])})  # raises {arguments[0]}"
    return None


def _free(body: Sequence[ast.AST]) -> set[str]:
    """Names that are read and not set there."""
    names = [node for part in body for node in ast.walk(part) if isinstance(node, ast.Name)]
    stored = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for part in body:
        for node in ast.walk(part):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    stored.add(node.name)
                case ast.arg():
                    stored.add(node.arg)
                case ast.ExceptHandler(name=str(name)):
                    stored.add(name)
                case ast.alias():
                    stored.add(node.asname or node.name.partition(".")[0])
    return {node.id for node in names} - stored


def _defined(node: ast.stmt) -> Iterator[str]:
    """Names that a statement of the module defines by itself."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    """One name of it. Raises UnexplainedError for one that is relative to the tests."""
    if isinstance(node, ast.ImportFrom) and node.level:
        raise UnexplainedError
    one = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
    return ast.unparse(one)
