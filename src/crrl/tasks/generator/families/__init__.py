"""Families of small programs, each a function that draws one program from its family.

A family returns a `Program`: what the function returns, said in one line (it becomes the docstring after
"Return "), its parameters, its body, and the kinds of arguments it takes. To add a family: one function with
`@family` in `numbers.py`, `lists.py` or `texts.py`.

`SFT` families are those whose repairs the warm start is shown; of `RL` families it sees random edits only; `UNSEEN`
families appear in no training data of any kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from crrl.tasks.generator.families.vocabulary import Names


@dataclass(frozen=True)
class Program:
    """Args:
    returns: what comes after "Return " in the docstring, without the full stop.
    parameters, body: of the function; body lines are indented from its margin by four spaces a level.
    kinds: one letter per argument, see `cases.draw_argument`.
    """

    returns: str
    parameters: str
    body: list[str]
    kinds: str


Draw = Callable[[Names, random.Random], Program]
FAMILIES: dict[str, Draw] = {}


def family(draw: Draw) -> Draw:
    FAMILIES[draw.__name__] = draw
    return draw


UNSEEN = ["last_if", "comp_reduce", "count_texts", "dict_map"]
RL = [
    "product_if",
    "filter_map",
    "none_if",
    "while_sum_if",
    "range_list",
    "branch_assign",
    "stride_if",
    "sort_if",
]

from crrl.tasks.generator.families import lists, numbers, texts  # noqa: E402, F401  (they register themselves)

SFT = [name for name in FAMILIES if name not in UNSEEN and name not in RL]
