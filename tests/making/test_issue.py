"""Issues come from the call that goes wrong: traced for real, told with values, or not told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crrl.making import tracing
from crrl.making.issue import Told, issue
from crrl.making.source_file import SourceFile
from crrl.making.tracing import Trace, differences

PLUGIN = Path(tracing.__file__).with_name("trace_plugin.py")
CODE = """def double(x, *rest, by=2, **more):
    return _scaled(x, by)


def _scaled(x, by):
    return [n * by for n in x]


def countdown(n):
    while n > 0:
        yield n
        n -= 1


def sort(values):
    values.sort()


def check(n):
    if n < 0:
        raise ValueError("below zero")
    return n


class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def top(self):
        return self.items[-1]

    def __len__(self):
        return len(self.items)

    @property
    def last(self):
        return len(self.items) - 1

    @last.setter
    def last(self, place):
        del self.items[place + 1 :]


class Named:
    def __init__(self, name):
        self.name = name
        self.known = {}

    def __repr__(self):
        return f"<named '{self.name}'>"

    def __getitem__(self, key):
        return self.known.get(key)


class Loose(dict):
    def __eq__(self, other):
        return {k.lower(): v for k, v in self.items()} == {k.lower(): v for k, v in other.items()}

    __hash__ = None


def tag(text):
    return "<b>" + text + "</b>"


def once(function):
    def wrapper(*given):
        return function(*given) + 1 - 1

    return wrapper


def shape(kind):
    return (lambda x: x) if kind == "plain" else (lambda x: [x])


def each(function, values):
    return [function(value) for value in values]


WIDTH = 1


def size(box):
    return WIDTH if box is None else box.width


def padded(text, width=4, fill=".", *, left=False):
    return text.rjust(width, fill) if left else text.ljust(width, fill)


class Letter:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return "~" + self.name


def name_of(letter):
    return letter.name


class Entry:
    def __init__(self, path, line):
        self.name = path

    def __repr__(self):
        return f"Entry({self.name!r})"


def key_of(zone):
    return zone._key


class Zone:
    def __init__(self, path, key=None):
        self.path, self._key = path, key

    def __repr__(self):
        return f"Zone({self.path!r})"


def registered(cls, name="x"):
    return f"{cls} {name}"


def larger(self, other):
    return max(self, other)


def first(keys):
    return next(iter(keys))


class _Alias:
    def __repr__(self):
        return "alias"

    def __getitem__(self, key):
        return key * 2


alias = _Alias()


class Tag:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<tag-{self.name} @ {id(self)}>"

    def __eq__(self, other):
        return self.name == other.name


def tags():
    return [Tag("a"), Tag("b")]


class Half:
    def __init__(self, n):
        self.n = n

    def __repr__(self):
        return f"Half({self.n})"

    def __add__(self, other):
        return Half(self.n + other.n)

    def __eq__(self, other):
        return self.n == other.n if type(other) is Half else NotImplemented

    def __hash__(self):
        return self.n

    @staticmethod
    def of(*numbers):
        return Half(len(numbers))
"""
TESTS = """import unittest
import m
import pytest
from m import Entry, Half, Letter, Loose, Named, Stack, check, countdown, double, each, first, key_of, larger, name_of
from m import Tag, Zone, once, padded, registered, shape, size, sort, tag, tags

WORD = "x"


def same(result, expected):
    assert result == expected


@pytest.mark.parametrize("given, expected", [([1, 2], [2, 4])])
def test_double(given, expected):
    same(double(given), expected)


def test_reversed_sides():
    assert [3] == double([1], "x", by=3, colour="red")


def test_countdown():
    assert list(countdown(3)) == [3, 2, 1]


def test_sort():
    values = [2, 1]
    sort(values)
    assert values == [1, 2]


def test_check():
    with pytest.raises(ValueError):
        check(-1)


def test_crash():
    assert check(5) == 5


def test_top():
    stack = Stack()
    stack.push("a")
    stack.push("b")
    assert stack.top() == "b"


@pytest.mark.parametrize("method", ["top"])
def test_named_at_run_time(method):
    stack = Stack()
    stack.push("a")
    stack.push("b")
    assert getattr(stack, method)() == "b"


def test_twice_in_a_line():
    stack = Stack()
    stack.push("a")
    stack.push("b")
    assert [stack.top(), stack.top()] == ["b", "b"]


def test_two_in_a_line():
    stack, other = Stack(), Stack()
    stack.push("a")
    stack.push("b")
    other.push("b")
    assert [stack.top(), other.top()] == ["b", "b"]


def test_push():
    stack = Stack()
    stack.push("a")
    assert stack.items == ["a"]


def test_len():
    stack = Stack()
    stack.push("a")
    assert len(stack) == 1


def test_property():
    stack = Stack()
    stack.push("a")
    assert stack.last == 0


def test_setter():
    stack = Stack()
    stack.push("a")
    stack.push("b")
    stack.last = 0
    assert stack.items == ["a"]


def test_add():
    assert (Half(1) + Half(2)).n == 3


def test_defaults():
    assert padded("a") == "a..."


def test_named_after_a_default():
    assert padded("a", fill="-", left=True) == "---a"


def test_letter():
    assert name_of(Letter("t")) == "t"


def test_repr_that_is_no_call():
    entry = Entry("a", 3)
    assert name_of(entry) == "a"


def test_function_whose_first_parameter_is_self():
    assert larger(2, 3) == 3


def test_function_whose_first_parameter_is_cls():
    assert registered("a", "b") == "a b"


def test_repr_that_tells_of_something_else():
    zone = Zone("a", "b")
    assert key_of(zone) == "b"


def test_repr_with_an_object_as_a_word():
    entry = Entry("<io object>", 3)
    assert name_of(entry) == "<io object>"


def test_keys():
    assert first({"a": 1}.keys()) == "a"


@pytest.mark.parametrize("keys", [{"a": 1}.keys()])
def test_keys_of_a_table(keys):
    assert first(keys) == "a"


def test_repr_that_is_a_call():
    assert padded(str(first([Half(2)]))) == "Half(2)"


def test_halves_are_equal():
    assert Half(1) == Half(1)


def test_static():
    assert Half.of(7, 8).n == 2


class TestNamed(unittest.TestCase):
    def setUp(self):
        self.named = Named(WORD)
        self.named.known["a"] = 1

    def test_known(self):
        self.assertEqual(self.named["a"], 1)


class TestParams:
    @pytest.fixture(autouse=True)
    def setup(self):
        self.named = Named("y")

    @pytest.mark.parametrize("key, value", [("b", None)])
    def test_absent(self, key, value):
        assert self.named[key] == value


@pytest.fixture
def named():
    return Named("z")


def test_of_a_fixture(named):
    assert named["c"] is None


def test_loose():
    assert Loose(A=1) == Loose(a=1)


def test_patched(monkeypatch):
    monkeypatch.setattr(m, "WIDTH", 4)
    assert size(None) == 4


@pytest.fixture
def wider(monkeypatch):
    monkeypatch.setattr(m, "WIDTH", 6)


def test_of_a_fixture_for_what_it_does(wider):
    assert size(None) == 6


@pytest.mark.usefixtures("wider")
def test_of_a_mark():
    assert size(None) == 6


def test_private():
    assert m._scaled([1], 2) == [2]


def test_private_class():
    assert m.alias[4] == 8


def test_equal():
    assert Tag("a") == Tag("a")


def test_tags():
    assert tags() == [Tag("a"), Tag("b")]


def test_tag():
    assert tag("x") == "<b>x</b>"


def inc(n):
    return n + 1


def test_each():
    assert each(inc, [1, 2]) == [2, 3]


class Box:
    def __init__(self, width):
        self.width = width

    def __repr__(self):
        return f"Box({self.width})"


def test_wrapped():
    called = once(inc)
    assert called(1) == 2


def test_wrapped_twice():
    assert once(once(inc))(1) == 2


def test_shape():
    assert shape("list")(3) == [3]


def test_size():
    box = Box(3)
    assert size(box) == 3


def test_long():
    assert tag("y" * 900) == "<b>" + "y" * 900 + "</b>"
"""


FREEZES = """import gc


def pytest_collection_finish():
    gc.freeze()
"""
TEST_IDS: dict[str, str] = {}  # by the last of their names


def traced(root: Path, code: str) -> dict[str, Trace]:
    (root / "tests").mkdir(parents=True)
    (root / "m.py").write_text(code)
    (root / "tests/test_m.py").write_text(TESTS)
    (root / "conftest.py").write_text(FREEZES)
    (root / "crrl_trace.py").write_text(PLUGIN.read_text())
    run = [sys.executable, "-m", "pytest", "-q", "-p", "crrl_trace", "-p", "no:cacheprovider"]
    env = os.environ | {"CRRL_TRACE": str(root / "out.json"), "PYTHONPATH": str(root)}
    env["CRRL_FAULTS"] = json.dumps([["m.py", 5]])
    subprocess.run(run, cwd=root, env=env, capture_output=True, check=False)
    found = json.loads((root / "out.json").read_text())
    TEST_IDS.update({id.rpartition("::")[2]: id for id in found})
    return {id.rpartition("::")[2]: tracing._trace(one) for id, one in found.items()}


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    return traced(tmp_path_factory.mktemp("right"), CODE)


def told(
    right: dict[str, Trace], tmp_path: Path, old: str, new: str, test: str, given_away: tuple[str, ...] = ()
) -> Told | None:
    assert old in CODE
    wrong = traced(tmp_path / "wrong", CODE.replace(old, new))
    source = SourceFile.read("tests/test_m.py", TESTS.encode())
    for found in differences(wrong[test], right[test]):
        if text := issue(found, TEST_IDS[test], source, 0, given_away, params=right[test].params):
            return text
    return None


CASES = {  # test -> fault, and what the issue says
    "test_double[given0-expected0]": ("n * by", "n + by", ["\n    double([1, 2])\n", "[3, 4]", "[2, 4]"]),
    "test_reversed_sides": ("n * by", "n + by", ["double([1], 'x', by=3, colour='red')", "[4]", "[3]"]),
    "test_countdown": ("n > 0", "n > 1", ["countdown(3)", "[3, 2]", "[3, 2, 1]"]),
    "test_sort": ("values.sort()", "values.reverse", ["leaves `values` wrong", "[2, 1]", "[1, 2]"]),
    "test_check": ("n < 0", "n < -1", ["check(-1)", "raises no ValueError", "-1"]),
    "test_crash": ("return n\n", "return n + ''\n", ["`check` raises TypeError", "check(5)", "should return\n\n    5"]),
    "test_top": ("[-1]", "[0]", ['stack.push("b")', "stack.top()", "'a'", "'b'"]),
    "test_push": ("self.items.append(item)", "self.items.append(None)", ["Stack.items", "[None]", "['a']"]),
    "test_len": ("len(self.items)", "len(self.items) - 1", ["`len(Stack)` gives 0 instead of 1", "\n    len(stack)\n"]),
    "test_property": ("len(self.items) - 1", "len(self.items)", ["\n    stack.last\n", "`Stack.last` gives 1"]),
    "test_setter": ("place + 1", "place", ["\n    stack.last = 0\n", "[]", "['a']"]),
    "test_known": (
        ".known.get(key)",
        ".name",
        [
            'from m import Named\n    WORD = "x"\n    named = Named(WORD)\n    named.known["a"] = 1\n',
            "    assert named['a'] == 1\n\nthe call",
            "\n    named['a']\n",
            "\n    'x'\n",
            "\n    1\n",
        ],
    ),
    "test_absent[b-None]": (
        ".known.get(key)",
        ".name",
        [
            "key = 'b'\n    value = None",
            'named = Named("y")\n    assert named[key] == value',
            "named[key]",
            "gives 'y'",
        ],
    ),
    "test_loose": (" == {k.lower(): v for", " is {k.lower(): v for", ["Loose({'A': 1}) == Loose({'a': 1})"]),
    "test_tag": ('"</b>"', '"<b>"', ["tag('x')", "gives '<b>x<b>' instead of '<b>x</b>'"]),
    "test_each": (
        "[function(value)",
        "[value",
        ["def inc(n):\n        return n + 1", "\n    each(inc, [1, 2])\n", "[2, 3]"],
    ),
    "test_patched": (
        "WIDTH if",
        "2 * WIDTH if",
        ["import m\n", 'monkeypatch.setattr(m, "WIDTH", 4)', "size(None)", "8 instead of 4"],
    ),
    "test_private_class": ("key * 2", "key * 3", ["`alias[4]` gives 12 instead of 8"]),
    "test_equal": (
        "== other.name",
        "!= other.name",
        ["\n    Tag('a') == Tag('a')\n", "False", "True", 'assert Tag("a") == Tag("a")'],
    ),
    "test_tags": ('[Tag("a"), Tag("b")]', '[Tag("a")]', ["tags()", "gives [<tag-a>] instead of [<tag-a>, <tag-b>]"]),
    "test_size": ("box.width", "2 * box.width", ["class Box:", "box = Box(3)", "\n    size(box)\n", "6 instead of 3"]),
    "test_wrapped": (
        "+ 1 - 1",
        "+ 1",
        ["`called` gives 3 instead of 2", "called = once(inc)\n", "\n    called(1)\n"],
    ),
    "test_add": ("self.n + other.n", "self.n", ["Half(1) + Half(2)", "Half(1)", "Half(3)"]),
    "test_named_at_run_time[top]": (
        "[-1]",
        "[0]",
        ["method = 'top'\n", "\n    getattr(stack, method)()\n", "`Stack.top` gives 'a' instead of 'b'"],
    ),
    "test_twice_in_a_line": ("[-1]", "[0]", ["\n    stack.top()\n", "'a'", "'b'"]),
    "test_defaults": ('width=4, fill="."', 'width=4, fill=" "', ["\n    padded('a')\n", "'a   '", "'a...'"]),
    "test_named_after_a_default": (
        "text.rjust",
        "text.center",
        ["\n    padded('a', fill='-', left=True)\n", "'---a'"],
    ),
    "test_letter": ("letter.name", "letter.name * 2", ["\n    name_of(Letter('t'))\n", "gives 'tt' instead of 't'"]),
    "test_repr_that_is_no_call": (
        "return letter.name",
        "return letter.name * 2",
        ['    entry = Entry("a", 3)\n', "\n    name_of(entry)\n", "gives 'aa' instead of 'a'"],
    ),
    "test_function_whose_first_parameter_is_self": ("max(self", "min(self", ["\n    larger(2, 3)\n"]),
    "test_function_whose_first_parameter_is_cls": (
        "{cls} {name}",
        "{name} {name}",
        ["`registered` gives 'b b'", "\n    registered('a', 'b')\n"],
    ),
    "test_repr_that_tells_of_something_else": (
        "return zone._key",
        "return zone.path",
        ['    zone = Zone("a", "b")\n', "\n    key_of(zone)\n"],
    ),
    "test_repr_with_an_object_as_a_word": (
        "return letter.name",
        "return letter.name * 2",
        ["    entry = Entry(", "\n    name_of(entry)\n"],
    ),
    "test_keys": (
        "next(iter(keys))",
        "str(keys)[0]",
        ["\n    first({'a': 1}.keys())\n"],
    ),
    "test_repr_that_is_a_call": ("next(iter(keys))", "keys", ["\n    first([Half(2)])\n"]),
    "test_static": (
        "len(numbers)",
        "numbers[0]",
        ["\n    Half.of(7, 8)\n", "`Half.of` gives Half(7) instead of Half(2)"],
    ),
}


@pytest.mark.parametrize("test", CASES)
def test_the_first_call_that_comes_out_otherwise_is_told(right: dict[str, Trace], tmp_path: Path, test: str) -> None:
    old, new, says = CASES[test]
    text = told(right, tmp_path, old, new, test)
    assert text is not None
    for part in says:
        assert part in text.text, text.text
    assert "_scaled" not in text.text and "pytest" not in text.text.replace("tests/", "")
    assert text.value is (test != "test_crash")


def test_what_nobody_can_say_is_not_told(right: dict[str, Trace], tmp_path: Path) -> None:
    """An object that only a fixture explains, what fixtures do unseen, a private function, one of two objects."""
    assert told(right, tmp_path / "object", ".known.get(key)", ".name", "test_of_a_fixture") is None
    for test in ("test_of_a_fixture_for_what_it_does", "test_of_a_mark"):
        assert told(right, tmp_path / test, "WIDTH if", "2 * WIDTH if", test) is None
    assert told(right, tmp_path / "twice", "+ 1 - 1", "+ 1", "test_wrapped_twice") is None
    assert told(right, tmp_path / "shape", 'kind == "plain"', "kind", "test_shape") is None
    assert told(right, tmp_path / "private", "n * by", "n + 2 * by", "test_private") is None
    assert (
        told(right, tmp_path / "asks", "is Half else", "is int else", "test_halves_are_equal") is None
    )  # Python sees False
    assert told(right, tmp_path / "two", "[-1]", "[0]", "test_two_in_a_line") is None  # of which of them?


def test_a_value_that_is_cut_short_is_not_told_as_one(right: dict[str, Trace], tmp_path: Path) -> None:
    assert told(right, tmp_path, '"<b>" +', '"<i>" +', "test_long") is None


def test_how_deep_the_fault_lies(right: dict[str, Trace]) -> None:
    assert right["test_reversed_sides"].depth == 1  # double, then _scaled
    assert right["test_sort"].depth is None


def test_a_text_that_gives_the_repair_away_is_none(right: dict[str, Trace], tmp_path: Path) -> None:
    assert told(right, tmp_path, "[-1]", "[0]", "test_top", ('stack.push("b")',)) is None


def test_what_shows_no_value_is_not_told() -> None:
    """Two objects of which only the class is known."""
    right = tracing.Call("make", "m.py", 1, (("x", "1"),), returned="<m.A object>")
    wrong = tracing.Call("make", "m.py", 1, (("x", "1"),), returned="<m.B object>")
    assert issue(tracing.Difference(wrong, right, "returned"), "t.py::t", None, 0, ()) is None
