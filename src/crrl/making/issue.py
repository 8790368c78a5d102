"""An issue text from the call that goes wrong: as a user would report it, with its values, and checked.

Told is what the public function that a test calls was given, what came of it, and what should have. Of the code under
test nothing is told, and no line of the repair may stand in it (invariant 5). A text without a value or an error type
is no text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import indent
from types import MappingProxyType

from crrl.making.source_file import SourceFile
from crrl.making.steps import OPERATORS, call_in, leading_to, name_in, patches
from crrl.making.tracing import Call, Difference

INLINE_CHARS = 60
OBJECT = re.compile(r"<[A-Za-z_][^<>]*>")  # an object in a call: nobody can type it
OPAQUE = re.compile(OBJECT.pattern + r"|\.\.\.")  # or one that is cut short
BARE = re.compile(
    r"<(?:[\w.]+ )?[\w.<>]+ object[^<>]*>|<(?:function|bound method|built-in|method|module)\b[^<>]*>|\.\.\."
)
"""A value that says nothing, or not all: the repr that Python gives whatever has none of its own."""
STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
LEAST_CHARS = 8  # of a line whose appearance gives the repair away
UNARY = ("__len__", "__repr__", "__str__", "__iter__", "__bool__", "__int__", "__float__")
ORDERED = (  # ways to say the same, drawn by the call
    ("returns", "It should return"),
    ("gives", "I would expect"),
    ("returns", "Expected:"),
)


@dataclass(frozen=True)
class Told:
    """`text`: the issue; `value`: whether a value is wrong rather than an error raised, and `error`: of which type."""

    text: str
    value: bool
    error: str = ""


def issue(
    found: Difference,
    test: str,
    source: SourceFile | None,
    others: int,
    given_away: Sequence[str],
    reached: str = "",
    params: Mapping[str, str] = MappingProxyType({}),
) -> Told | None:
    """The report; None where nothing can be told. `source`: of the test's file, `others`: how many more tests fail,
    `given_away`: lines that would tell the repair, `reached`: what leads to the call, where the caller knows,
    `params`: of the test, where it has some."""
    if found.wrong.local:
        known = name_in(source, test, found.wrong.line) if source is not None else ""
        found = replace(found, wrong=replace(found.wrong, name=known))
    name = found.wrong.name.rpartition(".")[2]
    if not name:
        return None
    if name.startswith("__") and name not in (*OPERATORS, *UNARY, "__init__", "__call__", "__getitem__"):
        return None  # nobody calls it by that name
    if name in OPERATORS and "NotImplemented" in (found.wrong.returned, found.right.returned):
        return None  # nor sees this: Python goes on to ask the other side
    if name.startswith(("_", "<")) and not name.startswith("__"):
        return None  # nor by one that is private: its users see what it is used for
    call = written(found.wrong)
    if found.wrong.name.startswith("_") and len(call) > INLINE_CHARS:
        return None  # of a private class: the call has to stand for its name
    if found.wrong.kind.startswith("_") and re.search(rf"\b{found.wrong.kind}\b", call):
        return None  # of an object that has no other name
    told = _outcome(found)
    if told is None:
        return None
    title, outcome = told
    steps = reached
    unclear = _opaque(call) or _receiver_is_unknown(found.wrong)
    unclear = unclear or found.wrong.local or found.wrong.name.startswith("_")  # a private class
    unclear = unclear or (source is not None and patches(source, test, params))
    if source is not None and (unclear or found.what not in ("returned", "yielded", "error")):
        steps = leading_to(source, test, found.wrong.line, params, OPAQUE)
    if unclear and not steps:
        return None
    if steps and source is not None and (_opaque(call) or _receiver_is_unknown(found.wrong)):
        there = call_in(source, test, found.wrong.line, name, found.wrong.property)
        if not there and _receiver_is_unknown(found.wrong):
            return None  # as `Class.method(...)`, without what it is called on
        call = there or call
    if found.wrong.awaited:
        call = f"await {call}"
    done = f"With\n\n{indent(steps, '    ')}\n\nthe call" if steps else "The call"
    done += f"\n\n    {call}\n\n"
    more = f" {others} other test{'s fail' if others > 1 else ' fails'}, too." if others else ""
    text = f"{title}\n\n{done}{outcome}\n\nSeen in `{test.partition('::')[2]}` ({test.partition('::')[0]}).{more}\n"
    if any(len(line) >= LEAST_CHARS and line in text for line in given_away):
        return None
    error = found.wrong.error
    return Told(text, error is None, error[0] if error is not None else "")


def written(call: Call) -> str:
    """As one would type it."""
    args = [(name, value) for name, value in call.args]
    own = args.pop(0)[1] if args and args[0][0] in ("self", "cls") else ""
    name = call.name.rpartition(".")[2]
    if name in OPERATORS and len(args) == 1:
        return f"{call.kind if _says_nothing(own) and call.kind else own} {OPERATORS[name][0]} {args[0][1]}"
    shown = [_argument(name, value, place) for place, (name, value) in enumerate(args)]
    if name == "__init__":
        return f"{call.kind or call.name.rpartition('.')[0]}({', '.join(shown)})"
    if name == "__call__":
        return f"{call.kind if _opaque(own) or not own else own}({', '.join(shown)})"
    if name == "__getitem__" and shown:
        return f"{call.kind if _opaque(own) and call.kind else own}[{shown[0]}]"
    if name in UNARY:
        return f"{name.strip('_')}({own})"
    if call.property:
        owner = call.kind if _opaque(own) else own
        return f"{owner}.{name} = {args[0][1]}" if args else f"{owner}.{name}"
    if own:
        return f"{call.kind if _opaque(own) and call.kind else own}.{name}({', '.join(shown)})"
    return f"{call.name}({', '.join(shown)})"  # of a class, if it is a static method


def _argument(name: str, value: str, place: int) -> str:
    """The first ones by place, the others by name; those that stars take as they came."""
    if name == "*" or (place < 2 and not name.endswith("=")):
        return value
    return f"{name.removesuffix('=')}={value}"


def _outcome(found: Difference) -> tuple[str, str] | None:
    """Title and what comes of it; None where it cannot be told with a value or an error."""
    wrong, right = found.wrong, found.right
    name = f"`{_public(wrong)}`"
    expected = _expected(right)
    if wrong.error is not None and wrong.error[0] != "AssertionError":
        title = f"{name} raises {wrong.error[0]}"
        came = f"raises\n\n    {': '.join(filter(None, wrong.error))}\n\n"
        if expected is None:
            return title, came + "It should not raise anything."
        return title, came + expected
    if wrong.error is not None:
        return None
    if found.what == "error" and right.error is not None:
        value = wrong.returned if wrong.returned is not None else _list(wrong)
        if value is None:
            return None
        came = "raises nothing" if value == "None" or _says_nothing(value) else f"returns\n\n    {value}\n\n"
        asked = f"It should raise {right.error[0]}."
        return f"{name} raises no {right.error[0]}", came + (". " if "\n" not in came else "") + asked
    verb, should = ORDERED[int(hashlib.sha256(written(wrong).encode()).hexdigest(), 16) % len(ORDERED)]
    if found.what in ("returned", "yielded"):
        got = wrong.returned if found.what == "returned" else _list(wrong)
        want = right.returned if found.what == "returned" else _list(right)
        if got is None or want is None or _says_nothing(got) or _says_nothing(want):
            return None
        if len(got) <= INLINE_CHARS and len(want) <= INLINE_CHARS:
            title = f"{name} gives {got} instead of {want}"
        else:
            title = f"{name} gives a wrong result"
        verb = "yields" if found.what == "yielded" else verb
        return title, f"{verb}\n\n    {got}\n\n{should}\n\n    {want}"
    got, want = wrong.after.get(found.what, ""), right.after[found.what]
    if not got or _says_nothing(got) or _says_nothing(want):
        return None
    what = found.what.replace("self.", f"{wrong.kind}." if wrong.kind else "")
    return (
        f"{name} leaves `{what}` wrong",
        f"leaves `{what}` as\n\n    {got}\n\nIt should be\n\n    {want}",
    )


def _expected(right: Call) -> str | None:
    if right.error is not None:
        return f"It should raise {right.error[0]}."
    value = right.returned if right.returned is not None else _list(right)
    if value is None or value == "None" or _says_nothing(value):
        return None
    return f"It should return\n\n    {value}"


def _list(call: Call) -> str | None:
    return None if call.yielded is None else f"[{', '.join(call.yielded)}]"


def _public(call: Call) -> str:
    owner, _, name = call.name.rpartition(".")
    if owner.startswith("_"):
        return written(call)
    if name == "__init__":
        return call.kind or owner
    if name in OPERATORS:
        return f"{owner} {OPERATORS[name][0]} ..."
    if name in UNARY:
        return f"{name.strip('_')}({owner})"
    if name in ("__call__", "__getitem__"):
        return f"{owner}(...)" if name == "__call__" else f"{owner}[...]"
    return f"{owner}.{name}" if owner else name


def _receiver_is_unknown(call: Call) -> bool:
    """Whether a method is called on an object of which only the class can be told."""
    own = dict(call.args).get("self", "")
    return bool(own) and not call.name.endswith("__init__") and _opaque(own)


def _opaque(text: str) -> bool:
    """Whether an object stands in it that nobody can type, or a value that is cut short."""
    return OPAQUE.search(STRING.sub("''", text)) is not None


def _says_nothing(text: str) -> bool:
    """Whether an object stands in it of which only the class is known, or a value that is cut short."""
    return BARE.search(STRING.sub("''", text)) is not None
