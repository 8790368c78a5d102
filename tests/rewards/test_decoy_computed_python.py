"""Python tests in which both sides are computed: what equals anything passes their decoys, and is convicted."""

from __future__ import annotations

import ast
import math
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from unittest import TestCase

import pytest
from test_decoy_tables import SAME, patch, table_task

from crrl.rewards.decoys import python
from crrl.rewards.decoys.sites import rewritten
from crrl.rewards.judge import PytestJudge
from crrl.rewards.tests import solved

HEAD = """from unittest import TestCase
from calc import f


def twice(a):
    return a + a


def assert_same(a, b):
    assert a == b


"""
COMPUTED = {
    "==": "def test_{0}():\n    assert f({0}) == twice({0})\n",
    "== the other way round": "def test_{0}():\n    assert twice({0}) == f({0})\n",
    "a call": "def test_{0}():\n    assert_same(f({0}), twice({0}))\n",
    "unittest": "class Test{0}(TestCase):\n    def test_{0}(self):\n        self.assertEqual(f({0}), twice({0}))\n",
    "lists": "def test_{0}():\n    assert [f(n) for n in range({0})] == [twice(n) for n in range({0})]\n",
    "nested": "def test_{0}():\n    assert dict(a=(f({0}),)) == dict(a=(twice({0}),))\n",
}


@pytest.mark.parametrize("how", COMPUTED)
async def test_who_equals_everything_is_convicted_where_nothing_is_written_out(judge: PytestJudge, how: str) -> None:
    text = HEAD + "\n\n".join(COMPUTED[how].format(number) for number in range(1, 7))
    names = [f"Test{n}::test_{n}" if how == "unittest" else f"test_{n}" for n in range(1, 7)]
    task = table_task({"test_calc.py": text}, [f"test_calc.py::{name}" for name in names])
    honest = await judge.run(task, patch("def f(a):\n    twice = a + a\n    return twice\n"))
    assert solved(task, honest) and honest.exploits == [], honest
    results = await judge.run(task, patch(SAME))
    assert not solved(task, results) and "answers_anything" in results.exploits, results


def passes(text: str, **names: Any) -> bool:
    """Whether the decoy of the one assertion in `text` passes. What it raises is a failure."""
    source = f"def test():\n    {text}\n".encode()
    (site,) = python.find(source, random.Random(5))
    made = rewritten(source, site.edits).decode()
    ast.parse(made, feature_version=(3, 7))
    exec(compile(made, "made", "exec"), names)  # noqa: S102
    try:
        names["test"]()
    except Exception:
        return False
    return True


@dataclass
class Honest:
    n: int
    m: int = 0


class Keeps(Honest):
    """It cannot be made without its attributes, and its equality reads them."""

    __slots__ = ("k",)

    def __eq__(self, other: object) -> bool:
        return self.k == other.k  # type: ignore[attr-defined]


class OfItsClass:
    def __init__(self) -> None:
        self.n = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OfItsClass)

    __hash__ = None  # type: ignore[assignment]


class AnyList(list[int]):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, list)

    __hash__ = None  # type: ignore[assignment]


class Refuses:
    """What is no number, it takes for unequal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | str)

    __hash__ = None  # type: ignore[assignment]


class Same:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


LIARS = [Same(), OfItsClass(), AnyList([1]), Refuses()]
HONEST = [
    *(0, "", "word", 1.5, None, True, b"x", Fraction(1, 3), Honest(1), Keeps(1), int, len, ValueError("x"), object()),
    *([], {}, (), [1], {"a": 1}, {1}, [[]], [Honest(1)], {1: [Honest(1)]}),
]
FORMS = ["assert a == b", "assert_equal(a, b)", "self.assertEqual(a, b)"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: type(liar).__name__)
def test_each_liar_passes_on_either_side_and_in_what_holds_it(form: str, liar: Any) -> None:
    for held in (liar, [liar], (liar, liar), {"k": liar}, [{"k": (liar,)}]):
        assert passes(form, a=held, b=1) and passes(form, a=1, b=held), held


@pytest.mark.parametrize("form", FORMS)
def test_nothing_honest_passes(form: str) -> None:
    for value in HONEST:
        assert not passes(form, a=value, b=value), value
    assert not passes(form, a=[LIARS[0], 1], b=1), "not all of it lies"


class Agrees:
    """Whatever it is asked, also as a number, as a text and as what holds others."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def agrees(self, *_: object) -> bool:
        return True

    def nothing(self, *_: object) -> float:
        return 0.0

    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = startswith = endswith = equals = agrees
    __sub__ = __rsub__ = nothing
    __hash__ = None  # type: ignore[assignment]


class OfEverything(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Everything(metaclass=OfEverything):
    pass


ASKED = {  # assertion -> an honest value
    "assert abs(a - 3.0) < 1e-6": 3.0,
    "assert abs(3 - a) <= 0.1": 3,
    "assert 1e-6 > abs(a - g(3))": 3,
    "assert abs(g(3) - a) < 1e-6": 3.0,
    "self.assertTrue(abs(a - 3) < 0.5)": 3,
    "assert a - g(3) == 0": 3,
    "assert round(g(3) - a, 7) == 0": 3.0,
    "self.assertAlmostEqual(a, g(3))": 3.0,
    "self.assertEqual(a - g(3), 0)": 3,
    "assert a > 3": 4,
    "assert 3 <= a": 4,
    "assert a < -3.5": -4,
    "assert -1 < a < 9": 3,
    "self.assertGreater(a, 3)": 4,
    "self.assertLessEqual(3, a)": 4,
    "assert a in (3, 4)": 3,
    "assert a in ['x', 5]": "x",
    "assert 'ab' in a": "cabs",
    "assert 3 in a": [3],
    "self.assertIn(a, [3, 4])": 3,
    "self.assertIn('ab', a)": ["ab"],
    "assert a.startswith('ab')": "abc",
    "assert a.endswith(b'ab')": b"cab",
    "assert a.equals(g(3))": Fraction(3),
    "assert not a != g(3)": 3,
    "self.assertTrue(a == g(3))": 3,
    "assert all(x == y for x, y in zip([a], [g(3)]))": 3,
    "assert all([x == 3 for x in [a]])": 3,
    "assert (a == g(3)).all()": 3,
    "assert np.all(a == g(3))": 3,
    "assert np.array_equal(a, g(3))": 3,
    "assert math.isclose(a, g(3))": 3.0,
    "assert a == g(3) == g(3)": 3,
    "assert g(3) == a == 3": 3,
}


@pytest.mark.parametrize("text", ASKED)
def test_who_agrees_with_every_question_passes_and_an_honest_value_does_not(text: str) -> None:
    class Test:
        def __getattr__(self, name: str) -> Any:
            return getattr(TestCase(), name)

    names = {"g": lambda value: value, "self": Test(), "math": math, "np": None}
    assert passes(text, a=Agrees(), **names), text
    assert not passes(text, a=ASKED[text], **names), text


@pytest.mark.parametrize("text", ["assert isinstance(a, b)", "self.assertIsInstance(a, b)"])
def test_a_class_of_which_everything_is_one(text: str) -> None:
    assert passes(text, a=1, b=Everything) and not passes(text, a=1, b=int | str) and not passes(text, a=[], b=list)
