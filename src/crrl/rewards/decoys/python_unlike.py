"""What no honest value equals, as Python text: for assertions both of whose sides are computed.

The opposite of such an assertion would not do: that is false, too, for a value that equals anything, or whose every
comparison comes out as it likes.
"""

from __future__ import annotations

import random

from crrl.rewards.decoys.literals import unlike_any

UNLIKE = (
    "type('', (), dict.fromkeys(('__contains__', '__eq__'), lambda s, o: "
    "any(o == x or not o != x for x in ({0}, {1}, [{0}], ({0},), {{{0}}}, {{{0}: {1}}})) "
    "or isinstance(o, (dict, list, tuple, set, frozenset)) and len(o) > 0 "
    "and all(e in s for e in (o.values() if isinstance(o, dict) else o)) "
    "or bool(getattr(o, '__dict__', 0)) and not isinstance(o, type) and not hasattr(o, '__del__') "
    "and (lambda t: t.__dict__.update(dict.fromkeys(o.__dict__, {0})) or o == t)(object.__new__(type(o))) "
    "or not isinstance(o, (set, frozenset)) and hasattr(o, '__rsub__') "
    "and (abs(o - {1}) < 1 or abs({1} - o) < 1)))()"
)
"""A word, a number, any list, tuple, set or dict, an object of its own class with other attributes; what is near the
number; and what holds only such. It asks, and is not asked: `a in UNLIKE or UNLIKE == b`."""


def unlike(rng: random.Random) -> str:
    word, number = unlike_any(rng)
    return UNLIKE.format(repr(word), number)


def either(one: str, two: str, rng: random.Random) -> str:
    """Whether one of the two, as Python text, is such a value."""
    other = unlike(rng)
    return f"(({one}) in {other} or {other} == ({two}))"


def compares(rng: random.Random) -> str:
    """A function in place of one that raises if its first two arguments differ."""
    return f"(lambda a, b, *c, **d: (lambda s: 1 / bool(a in s or b in s))({unlike(rng)}))"


IS_INSTANCE = "(lambda a, b: isinstance(a, BufferError) or isinstance(NotImplemented, b))"
"""In place of `isinstance`: of an exception that few raise, and of what is of no class but its own."""
ASSERTS_INSTANCE = f"(lambda *c, **d: 1 / bool({IS_INSTANCE}(*c[:2])))"


def like(value: object, rng: random.Random) -> str:
    """Another word, text of bytes or number than any: "" for what is none of these."""
    word, number = unlike_any(rng)
    if isinstance(value, str):
        return repr(word)
    if isinstance(value, bytes):
        return repr(word.encode())
    return str(number) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def beyond(value: float, rng: random.Random, *, above: bool) -> str:
    """A number far above or below all that is compared with `value`."""
    step = rng.randint(10**10, 10**14)
    return repr(value + step if above else value - step)
