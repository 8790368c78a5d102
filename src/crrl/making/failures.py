"""What pytest printed of failing tests (`--tb=short`), and an issue text made of one: as a user would report it.

Invariant 5: of the traceback only the test's own lines are told, never those of the code under test.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import dedent, indent

HEAD = re.compile(r"^_{3,} (.+?) _{3,}$", re.MULTILINE)
FRAME = re.compile(r"^(\S+?):(\d+): in (\S+)$")
SHOWN_LINES = 12
SHOWN_CHARS = 1200


@dataclass(frozen=True)
class Failure:
    """Args:
    name: of the test, as pytest's heading has it (`TestA.test_b[c]`).
    path, line: of the test's own frame that failed.
    said: pytest's explanation (its E lines), the first of which is the exception.
    """

    name: str
    path: str
    line: int
    said: list[str]


def failures(output: str, tests: frozenset[str]) -> Iterator[Failure]:
    """Those in the output that are whole. `tests`: paths of test files."""
    body = output.partition("= FAILURES =")[2].partition("= short test summary")[0]
    parts = HEAD.split(body)[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        own: tuple[str, int] | None = None
        said: list[str] = []
        for line in text.splitlines():
            if frame := FRAME.match(line):
                if frame[1] in tests:
                    own = frame[1], int(frame[2])
            elif line.startswith("E "):
                said.append(line[1:].removeprefix("   ").rstrip())
        if own is not None and said:
            yield Failure(name, *own, said)


def issue(failure: Failure, sources: Mapping[str, str], others: int) -> str:
    """The report: what was done, what should have come of it and what did. `sources`: texts of the test files;
    `others`: how many more tests fail."""
    done, statement = _done(failure, sources[failure.path])
    first = failure.said[0].strip()
    expected = _expected(first, statement)
    if expected is None:
        told = f"It ends with:\n\n{indent(_short(failure.said), '    ')}"
    else:
        told = expected + f"\n\nIn full:\n\n{indent(_short(failure.said), '    ')}" * (len(failure.said) > 1)
    title = _title(statement, first)
    more = f" {others} other test{'s fail' if others > 1 else ' fails'}, too." if others else ""
    return (
        f"{title}\n\nThis does not do what it should:\n\n{indent(done, '    ')}\n\n{told}\n\n{_seen(failure)}{more}\n"
    )


def _seen(failure: Failure) -> str:
    return f"Seen in `{failure.name}` ({failure.path})."


def _done(failure: Failure, source: str) -> tuple[str, str]:
    """The test's body up to the statement that failed (that statement alone where it is long), and the statement."""
    lines = source.split("\n")
    tree = ast.parse(source)
    holding = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= failure.line <= (n.end_lineno or 0)]
    plain = [n for n in holding if not isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    statement = max(plain, key=lambda n: (n.lineno, -(n.end_lineno or 0)), default=None)
    if statement is None:
        return lines[failure.line - 1].strip(), lines[failure.line - 1].strip()
    last = statement.end_lineno or failure.line
    if hasattr(statement, "body"):  # the head of a block failed
        last = failure.line
    text = dedent("\n".join(lines[statement.lineno - 1 : last]))
    around = [n for n in holding if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    if around:
        whole = dedent("\n".join(lines[max(around, key=lambda n: n.lineno).body[0].lineno - 1 : last]))
        if whole.count("\n") < SHOWN_LINES and len(whole) < SHOWN_CHARS:
            return whole, text
    return text[:SHOWN_CHARS], text


def _expected(said: str, statement: str) -> str | None:
    """Expected and got, where the exception tells them apart."""
    said = said.removeprefix("AssertionError: ")
    match = re.match(r"assert (.+) == (.+)$", said)
    if match is None and "assertEqual" in statement:
        match = re.match(r"(.+) != (.+?)(?: : .*)?$", said)
    if match:
        got, expected = (match[2], match[1]) if _called_on_the_right(statement) else (match[1], match[2])
        return f"Expected `{expected}`, got `{got}`."
    if match := re.match(r"Failed: DID NOT RAISE <class '(?:.*\.)?(\w+)'>", said):
        return f"Expected a {match[1]}, and nothing is raised."
    return None


def _called_on_the_right(statement: str) -> bool:
    """Whether the right side of the comparison is what calls the code: `assert 3 == f(1)`."""
    try:
        (node,) = ast.parse(statement).body
    except (SyntaxError, ValueError):
        return False
    sides: list[ast.expr] = []
    if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
        sides = [node.test.left, *node.test.comparators]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        sides = node.value.args
    calls = [any(isinstance(n, ast.Call) for n in ast.walk(side)) for side in sides[:2]]
    return calls == [False, True]


def _title(statement: str, said: str) -> str:
    """Names what is called, and how it goes wrong."""
    try:
        calls = [n for n in ast.walk(ast.parse(statement)) if isinstance(n, ast.Call)]
    except SyntaxError:
        calls = []
    names = [n for call in calls if (n := _called(call)) and not re.match(r"(assert|raises|len|list|sorted|next)", n)]
    what = f"`{names[0]}`" if names else "The library"
    raised = re.match(r"([A-Za-z_.]*(?:Error|Exception|Exit|Iteration|Warning))\b", said)
    if raised and raised[1] != "AssertionError":
        return f"{what} raises {raised[1].rpartition('.')[2]}"
    return f"{what} raises no error" if "DID NOT RAISE" in said else f"{what} gives a wrong result"


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _short(lines: list[str]) -> str:
    text = "\n".join(lines[:SHOWN_LINES])
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " ..."
