"""Bodies masked: one function's body goes, and every other byte stays."""

from __future__ import annotations

import ast
import random

import pytest

from crrl.making.outcomes import Refused
from crrl.making.real_mutation import functions
from crrl.making.spec_mask import Masked, masked

SOURCE = '''"""Module."""
import functools


@functools.cache
def plain(a, b=1):  # kept
    # type: (int, int) -> int
    """Adds.

    >>> plain(1)
    2
    """

    # gone
    total = a + b
    return total  # gone
    # gone, too


# kept: of the module
async def waits(x):
    """Waits."""
    await x
    return 1


def gives(xs):
    for x in xs:
        yield x * 2


async def gives_later(xs):
    async for x in xs:
        yield x


def one(x): return x + 1
def two(x): "Doubles."; y = x; return y * 2
def three(x): yield x + 1


class Box:
    @property
    def size(self):
        """Of it."""
        return len(self.items)

    @size.setter
    def size(self, value):
        """Cut."""
        self.items = self.items[:value]

    def stub(self):
        """Nothing."""

    def other_stub(self): ...

    def plain_value(self):
        return self.items

    def outer(self, depth):
        """Nested."""
        @functools.wraps(self)
        def inner(x):
            yield x
        return inner(depth)
'''
EXPECTED = {
    "plain": '    """\n\n    raise NotImplementedError\n\n\n# kept: of the module\n',
    "waits": '    """Waits."""\n    raise NotImplementedError\n\n\ndef gives(',
    "gives": "def gives(xs):\n    raise NotImplementedError\n    yield\n\n\nasync",
    "gives_later": "def gives_later(xs):\n    raise NotImplementedError\n    yield\n",
    "one": "def one(x): raise NotImplementedError\ndef two",
    "two": 'def two(x): "Doubles."; raise NotImplementedError\ndef three',
    "three": "def three(x): raise NotImplementedError; yield\n",
    "Box.size": '        """Of it."""\n        raise NotImplementedError\n\n    @size.setter\n',
    "Box.outer": '        """Nested."""\n        raise NotImplementedError\n',
}


def found(text: str | bytes, name: str, place: int = 0) -> Masked | Refused:
    data = text.encode() if isinstance(text, str) else text
    return masked([f for f in functions("m.py", data) if f.name == name][place])


def made(text: str | bytes, name: str, place: int = 0) -> Masked:
    one = found(text, name, place)
    assert isinstance(one, Masked), one
    return one


@pytest.mark.parametrize("name", EXPECTED)
def test_the_body_goes_and_nothing_else(name: str) -> None:
    one = made(SOURCE, name)
    text = one.data.decode()
    assert EXPECTED[name] in text, text
    ast.parse(text)
    before, after = SOURCE.splitlines(), text.splitlines()
    first, last = one.edit.first, one.edit.last
    assert before[: first - 1] == after[: first - 1] and before[last:] == after[first - 1 + len(one.edit.new) :]
    assert not any("gone" in line for line in text.splitlines()) or name != "plain"


def test_of_a_property_getter_and_setter_are_two() -> None:
    getter, setter = made(SOURCE, "Box.size"), made(SOURCE, "Box.size", 1)
    assert b"self.items[:value]" in getter.data and b"len(self.items)" not in getter.data
    assert b"self.items[:value]" not in setter.data and b"len(self.items)" in setter.data
    assert getter.fault.name != setter.fault.name and setter.head.startswith("@size.setter\ndef size(self, value):")


def test_what_a_specification_is_made_of() -> None:
    one = made(SOURCE, "plain")
    assert one.head.startswith("@functools.cache\ndef plain(a, b=1):  # kept\n    # type: (int, int) -> int\n")
    assert one.doc.startswith("Adds.\n\n>>> plain(1)") and one.parameters == ("a", "b")
    assert one.body == ("total = a + b", "return total  # gone")
    assert made(SOURCE, "two").head == 'def two(x): "Doubles."' and made(SOURCE, "two").body == ("y = x; return y * 2",)


@pytest.mark.parametrize(
    ("name", "why"), [("Box.stub", "no body"), ("Box.other_stub", "no body"), ("Box.plain_value", "plain statement")]
)
def test_what_has_no_body_is_refused(name: str, why: str) -> None:
    one = found(SOURCE, name)
    assert isinstance(one, Refused) and why in one.reason


STUBS = """import abc, typing
from typing import overload

class A(abc.ABC):
    @abc.abstractmethod
    def needed(self):
        "Needed."
        raise NotImplementedError("x")

    @overload
    def many(self, x: int) -> int: ...
    @typing.overload
    def many(self, x: str) -> str:
        "Of a text."
        return x
    def many(self, x):
        return x * 2
    def __add__(self, other):
        return NotImplemented
"""


def test_overloads_and_abstract_methods_are_refused_and_what_they_stand_for_is_not() -> None:
    assert isinstance(found(STUBS, "A.needed"), Refused) and isinstance(found(STUBS, "A.__add__"), Refused)
    first, second, third = (found(STUBS, "A.many", place) for place in range(3))
    assert isinstance(first, Refused) and isinstance(second, Refused)
    assert isinstance(third, Masked) and third.data.decode().count("@overload") == 1
    assert b"    def many(self, x):\n        raise NotImplementedError\n" in third.data


LAYOUTS = {
    "crlf": SOURCE.replace("\n", "\r\n").encode(),
    "bom": b"\xef\xbb\xbf" + SOURCE.encode(),
    "latin-1": b"# -*- coding: latin-1 -*-\n# M\xfcller\n" + SOURCE.replace("Of it.", "M\xfcller.").encode("latin-1"),
    "tabs": SOURCE.replace("    ", "\t").encode(),
    "form feed": SOURCE.replace("\n\n\nclass", "\n\x0c\nclass").encode(),
    "no line end": SOURCE.rstrip("\n").encode(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_byte_for_byte_whatever_the_layout(layout: str) -> None:
    """What is put in place of the body is all that is new, and putting the body back gives the file."""
    data = LAYOUTS[layout]
    for function in functions("m.py", data):
        one = masked(function)
        if isinstance(one, Refused):
            continue
        mark = b"\xef\xbb\xbf" if layout == "bom" else b""
        lines = [function.source.of([line]).removeprefix(mark) for line in function.source.lines]
        head, tail = mark + b"".join(lines[: one.edit.first - 1]), b"".join(lines[one.edit.last :])
        after = one.data
        assert after.startswith(head) and after.endswith(tail) and data.startswith(head) and data.endswith(tail)
        new = after[len(head) : len(after) - len(tail)]
        end = b"\r\n" if layout == "crlf" else b"\n"
        assert b"raise NotImplementedError" in new and (new.endswith(end) or not tail)
        assert new.count(b"\n") == new.count(end) and after.endswith(b"\n") == data.endswith(b"\n")


def test_a_generator_at_the_end_of_a_file_without_a_line_end() -> None:
    assert made("def f(x):\n    yield x + 1", "f").data == b"def f(x):\n    raise NotImplementedError\n    yield"
    assert made("def f(x): yield x + 1", "f").data == b"def f(x): raise NotImplementedError; yield"


def test_masked_functions_of_the_standard_library_read_as_they_did() -> None:
    """`masked` itself refuses what does not; here it must refuse nothing for it."""
    import argparse
    import asyncio.tasks
    import contextlib
    import statistics

    rng = random.Random(0)
    for module in (argparse, asyncio.tasks, contextlib, statistics):
        with open(module.__file__, "rb") as file:
            data = file.read()
        for function in rng.sample(functions("m.py", data), 12):
            one = masked(function)
            assert isinstance(one, Masked) or one.reason != "cannot be masked", function.name
