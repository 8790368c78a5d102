"""The issue of a fault in Go or JavaScript: the first call of a failing test that goes wrong, as `issue.py` tells it.

What leads to the call is quoted from the test where the call alone does not say it: a method of an object that the test
makes, an argument of which only the source is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from textwrap import dedent, indent

from tree_sitter import Node

from crrl.making.issue import INLINE_CHARS, LEAST_CHARS, OPAQUE, STRING, Told, issue
from crrl.making.steps import SHOWN_CHARS, SHOWN_LINES
from crrl.making.tracing import Call, Difference, Trace, differences
from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.making.trees.scope import UNKNOWN_ARGUMENT, top_level_names
from crrl.making.trees.units import Unit, unit_at, units
from crrl.rewards.decoys.grammars import parser, walk


def tell(
    wrong: Mapping[str, Trace], right: Mapping[str, Trace], failing: Sequence[str], files: Mapping[str, bytes],
    others: int, given_away: Sequence[str],
) -> tuple[Told, str, str] | None:  # fmt: skip
    """The issue, the failing test it tells of, and the type of what its call raises. `wrong`, `right`: name of a test
    -> its calls; `files`: the test files; `others`: how many more tests fail."""
    told = []
    for name in wrong.keys() & right.keys():
        for found in differences(wrong[name], right[name]):
            path = found.wrong.path
            unit = unit_at(units(path, files[path]), found.wrong.line)
            tests = [test for test in failing if unit is None or unit.has(test)]
            if not tests:
                break
            if not (test := _shown(tests, unit, found.wrong)):
                continue
            if (text_ := _issue(found, unit, files[path], test, others, given_away)) is not None:
                told.append((text_, test, found.wrong.error[0] if found.wrong.error else ""))
                break
    return min(told, key=lambda one: (not one[0].value, len(one[0].text), one[1]), default=None)


def _shown(tests: Sequence[str], unit: Unit | None, call: Call) -> str:
    """The test that the issue names: one of several subtests is any of them, so their test is named. "" where it is
    any of several."""
    if unit is None:  # its name is made at run time, most often of what the call is given
        values = {word.lower() for _, value in call.args for word in re.findall(r"\w+", value)}
        said = {test: len(values & set(re.findall(r"\w+", test.partition("::")[2].lower()))) for test in tests}
        best = max(tests, key=lambda test: said[test])
        unique = len(tests) == 1 or (said[best] and list(said.values()).count(said[best]) == 1)
        return best if unique else ""
    if len(tests) == 1:
        return tests[0]
    inner = [test for test in tests if not any(other.startswith(f"{test}/") for other in tests)]
    return inner[0] if len(inner) == 1 else min(tests, key=len)


def _issue(
    found: Difference, unit: Unit | None, data: bytes, test: str, others: int, given_away: Sequence[str]
) -> Told | None:
    shown = f"{found.wrong.path}::{test.partition('::')[2]}"
    if found.wrong.property:
        maker = _made_by(found.wrong.name, unit)
        return _seen(found, maker, _steps(found.wrong.line, unit, data), shown, others, given_away)
    wrong, right = (replace(call, args=_named(call)) for call in (found.wrong, found.right))
    args = found.wrong.args
    unclear = any(name == UNKNOWN_ARGUMENT for name, _ in args) or _opaque(*(value for _, value in args))
    known = _is_told(wrong) or _names(wrong) <= _top_level(wrong.path, data)
    if unclear or not known or found.what not in ("returned", "error"):
        if not (steps := _steps(wrong.line, unit, data)):
            return None
    else:
        steps = ""
    return issue(replace(found, wrong=wrong, right=right), shown, None, others, given_away, steps)


def _seen(found: Difference, maker: str, steps: str, test: str, others: int, given_away: Sequence[str]) -> Told | None:
    """Of a value that an assertion looks at. `maker`: the function that a variable has it from."""
    name, got, want = found.wrong.name, found.wrong.returned, found.right.returned
    if got is None or want is None or not steps or _opaque(got, want):
        return None
    short = len(got) <= INLINE_CHARS and len(want) <= INLINE_CHARS
    title = f"`{name}` is {got} instead of {want}" if short else f"`{name}` is wrong"
    title = f"`{maker}`: {title}" if maker else title
    more = f" {others} other test{'s fail' if others > 1 else ' fails'}, too." if others else ""
    path, _, own = test.partition("::")
    text_ = (
        f"{title}\n\nAfter\n\n{indent(steps, '    ')}\n\n`{name}` is\n\n    {got}\n\nIt should be\n\n    {want}\n\n"
        f"Seen in `{own}` ({path}).{more}\n"
    )
    return None if any(len(line) >= LEAST_CHARS and line in text_ for line in given_away) else Told(text_, True)


def _made_by(name: str, unit: Unit | None) -> str:
    for node in walk(unit.node) if unit is not None and name.isidentifier() else ():
        if node.type in grammar.DECLARED and text(node.child_by_field_name(grammar.DECLARED[node.type])) == name:
            value = node.child_by_field_name("value") or node.child_by_field_name("right")
            calls = [n for n in walk(value) if n.type in grammar.CALLS] if value is not None else []
            return grammar.called(calls[0]) if calls else ""
    return ""


def _opaque(*values: str) -> bool:
    return any(OPAQUE.search(STRING.sub("''", value)) for value in values)


def _named(call: Call) -> tuple[tuple[str, str], ...]:
    return tuple(("*" if name == UNKNOWN_ARGUMENT else name, value) for name, value in call.args)


def _is_told(call: Call) -> bool:
    """Whether the receiver is told by its value."""
    own = dict(call.args).get("self")
    return own is not None and own != call.name.rpartition(".")[0]


def _names(call: Call) -> set[str]:
    """Of the variables in what it is called by."""
    return set(re.findall(r"(?<![\w.'\"])[A-Za-z_$][\w$]*", call.name))


def _top_level(path: str, data: bytes) -> frozenset[str]:
    return top_level_names(parser(PurePath(path).suffix).parse(data).root_node)


def _steps(line: int, unit: Unit | None, data: bytes) -> str:
    """What the test does up to the call, or as much of it as is short: its body, the block, the statement."""
    if unit is None:
        return ""
    lines = data.decode("utf-8", "replace").split("\n")
    for block in sorted((n for n in walk(unit.node) if n.type in grammar.BLOCKS), key=lambda n: n.start_byte):
        inside = [n for n in _statements(block) if "comment" not in n.type]
        holding = next((n for n in inside if n.start_point.row < line <= n.end_point.row + 1), None)
        if holding is None:
            continue
        for first in (inside[0], holding):
            shown = "\n".join(lines[first.start_point.row : holding.end_point.row + 1]).replace("\t", "    ")
            if shown.count("\n") < SHOWN_LINES and len(shown) < SHOWN_CHARS:
                return dedent(shown).rstrip()
    return ""


def _statements(block: Node) -> list[Node]:
    listed = [n for n in block.named_children if n.type == "statement_list"]
    return listed[0].named_children if listed else block.named_children
