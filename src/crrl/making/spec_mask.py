"""A function without its body: what a task of `crrl tasks spec` starts from.

The body becomes one statement that raises; signature, decorators, docstring and everything around stay byte for byte
(`source_file.py`). Comments among the body's lines are of the body. What was a generator stays one. A function that has
no body to speak of, or whose file would not read the same otherwise, is refused, with the reason.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from textwrap import dedent

from crrl.making.operators import FunctionLike
from crrl.making.outcomes import Refused
from crrl.making.real_mutation import Function, Mutant, functions, functions_of
from crrl.making.screening import Fault
from crrl.making.screening import Function as AnyFunction
from crrl.making.source_file import Edit, SourceFile, UnreadableError

RAISES = "raise NotImplementedError"
TYPE_COMMENT = re.compile(r"\s*#\s*type:")
BLANK, COMMENT = re.compile(r"\s*\Z"), re.compile(r"\s*#")


@dataclass(frozen=True)
class Masked:
    """Args:
    doc: its docstring, or comment before it, without indentation.
    head: signature, decorators and docstring as they stand, without indentation.
    body: the lines that went, stripped, without those that are only a comment.
    raises: what stands in place of the body.
    parameters: names, `self` left out. raised: names of what the body raises. texts: in the body.
    """

    function: AnyFunction
    edit: Edit
    doc: str
    head: str
    body: tuple[str, ...]
    raises: str = RAISES
    parameters: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def fault(self) -> Fault:
        """As `screening.py` has it."""
        return Fault(self.function, Mutant("masked", self.edit, "\n".join(self.body), self.raises))

    def with_body(self, statement: str) -> Fault:
        """With another statement in place of the one that raises."""
        new = tuple(line.replace(self.raises, statement) for line in self.edit.new)
        return replace(self, edit=replace(self.edit, new=new)).fault

    @property
    def data(self) -> bytes:
        """The file without the body."""
        return self.function.source.with_edits([self.edit])


def masked(function: Function) -> Masked | Refused:
    """Of Python."""
    node, source = function.node, function.source
    documented = ast.get_docstring(node, clean=False) is not None
    body = node.body[1:] if documented else node.body
    if any(_name(mark) == "overload" for mark in node.decorator_list):
        return Refused("no body", "an overload")
    if not body or all(_is_stub(statement) for statement in body):
        return Refused("no body", "a stub")
    if len(body) == 1 and _is_plain(body[0]):
        return Refused("body of one plain statement", "returns a name, an attribute or a constant, or sets one")
    edit, before = _edit(source, node, body)
    doc = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
    gone, head = source.bare[edit.first - 1 : edit.last], source.bare[function.starts - 1 : edit.first - 1]
    if before.strip():  # in the line of the signature, or of the docstring
        gone = [gone[0][len(before) :], *gone[1:]]
        head = [*head, before.rstrip().rstrip(";")]
    found = Masked(
        function, edit, doc, dedent("\n".join(head)).strip("\n"),
        tuple(line.strip() for line in gone if not BLANK.match(line) and not COMMENT.match(line)),
        RAISES, tuple(_parameters(node)), tuple(dict.fromkeys(_raised(body))), tuple(dict.fromkeys(_texts(body))),
    )  # fmt: skip
    return found if _same_otherwise(function, found) else Refused("cannot be masked", f"{function.path}:{node.lineno}")


def _edit(source: SourceFile, node: FunctionLike, body: list[ast.stmt]) -> tuple[Edit, str]:
    """And what stands before the body in its first line."""
    start = body[0]
    marks = getattr(start, "decorator_list", ())
    line = min([start.lineno, *(mark.lineno for mark in marks)])
    text = source.bare[line - 1]
    before = text[: len(text) - len(text.lstrip())] if marks else text.encode()[: start.col_offset].decode()
    first, last = line, max(node.end_lineno or line, line)
    if not before.strip():  # comments before it, and after it as deep as it
        while COMMENT.match(source.bare[first - 2]) and not TYPE_COMMENT.match(source.bare[first - 2]):
            first -= 1
        last = _with_comments(source.bare, last, len(before.expandtabs()))
    new = [f"{before}{RAISES}"]
    if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in _own(body)):
        new = [f"{before}{RAISES}", f"{before}yield"] if not before.strip() else [f"{before}{RAISES}; yield"]
    return Edit(first, last, tuple(new)), before


def _with_comments(lines: list[str], last: int, depth: int) -> int:
    """The last line with the comments that follow it, as long as they are indented as the body is."""
    at = last
    while at < len(lines) and (COMMENT.match(lines[at]) or BLANK.match(lines[at])):
        at += 1
        line = lines[at - 1].expandtabs()
        if COMMENT.match(line):
            if len(line) - len(line.lstrip()) < depth:
                break
            last = at
    return last


def _same_otherwise(function: Function, found: Masked) -> bool:
    """Whether the file reads as it did, but for this body."""
    try:
        there = functions(function.path, found.data)
    except (UnreadableError, UnicodeEncodeError):
        return False
    here = functions_of(function.source)
    if [one.name for one in here] != [one.name for one in there]:
        return False
    for old, new in zip(here, there, strict=True):
        own = (old.node.lineno, old.node.col_offset) == (function.node.lineno, function.node.col_offset)
        if _dump(old.node, own) != _dump(new.node, own):
            return False
    return True


def _dump(node: FunctionLike, without_body: bool) -> str:
    parts: list[ast.AST | None] = [node.args, node.returns, *node.decorator_list]
    if not without_body:
        parts += node.body
    said = ast.get_docstring(node, clean=False)
    return repr([type(node), said, *(ast.dump(part) for part in parts if part is not None)])


def _own(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What is in the function itself: not in those nested in it."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, FunctionLike | ast.Lambda | ast.ClassDef):
            todo += ast.iter_child_nodes(node)


def _is_stub(node: ast.stmt) -> bool:
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=ast.Name(id="NotImplementedError") | ast.Call(func=ast.Name(id="NotImplementedError"))):
            return True
        case ast.Return(value=ast.Name(id="NotImplemented")):
            return True
    return False


def _is_plain(node: ast.stmt) -> bool:
    value = getattr(node, "value", None)
    while isinstance(value, ast.Attribute):
        value = value.value
    simple = value is None or isinstance(value, ast.Name | ast.Constant)
    return isinstance(node, ast.Return | ast.Assign | ast.AnnAssign) and simple


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _parameters(node: FunctionLike) -> Iterator[str]:
    args = node.args
    for argument in (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg):
        if argument is not None and argument.arg not in ("self", "cls"):
            yield argument.arg


def _raised(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Raise) and node.exc is not None:
                yield _name(node.exc)


def _texts(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
