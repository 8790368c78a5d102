"""How many wrong tests, and how many copies, a patch has to meet before its answers are believed.

The patch that is bounded here answers by chance: it passes a test or fails it whatever is expected, by a coin for each
call, for the whole process, or by any pattern over the tests. It wins where it passes every real test and fails every
wrong one. Invariant: at most one such try in `1 / CHANCE` is believed, however its coins are weighted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

CHANCE = 1 / 1000
WRONG, REAL = 6, 5
"""Copies where one part alone can be made wrong: `WRONG` of them are, `REAL` are not. With the real run before them a
coin of weight p wins p^6 (1 - p)^6, and at most 1 + 5 (1 - p) times that since one copy may be repeated: under 0.00086.
"""
CROWD = 10
"""Expectations of one plain test in one run, at most (`beside`); where that is not enough, two runs share them."""


@cache
def copies(parts: int) -> int:
    """How many copies a patch faces, of tests of which `parts` are made wrong independently of each other.

    Each part is wrong in some of the copies, and in each copy some part is: a draw out of N. Who answers with the real
    pattern p of the time, as the real run needs, hits the draw at most (1 - p)^k / N of the time; one copy may be
    repeated, at any of its places. So k copies are won at most (k + 1) p (1 - p)^k / N of the time: at p = 1 / (k + 1),
    (k / (k + 1))^k / N. Who answers anything, at one test alone, is told always.
    """
    if parts < 2:
        return WRONG + REAL
    return next(k for k in range(2, WRONG + REAL) if (k / (k + 1)) ** k / draws(parts, k) <= CHANCE)


def draws(parts: int, number: int) -> int:
    """In how many ways each of `parts` can be wrong in some of `number` copies, and some part in each copy."""
    never = (math.comb(parts, n) * (2 ** (parts - n) - 1) ** number * (-1) ** n for n in range(parts))
    return sum(never)


def expectations(tests: int) -> int:
    """How many expectations, one of them right, each of `tests` plain tests gets in a run. One guess at a test is right
    once in that many."""
    alone = math.ceil(CHANCE ** (-1 / max(1, tests)) - 1e-9)
    return max(2, alone if alone <= CROWD else math.ceil(CHANCE ** (-1 / (2 * max(1, tests)))))


def runs(expected: Iterable[int]) -> int:
    """How many runs it takes. `expected`: the expectations that each test has got in one."""
    bits = sum(math.log2(number) for number in expected)
    return math.ceil(-math.log2(CHANCE) / bits - 1e-9) if bits else 1
