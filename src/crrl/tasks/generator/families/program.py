"""`Program`, and the registry that families enter by `@family`."""

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
