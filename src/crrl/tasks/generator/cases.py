"""Test cases of generated programs, and running generated code under limits, in this process.

Only code that this package generated runs here (programs and their mutants); an agent's code always runs in a sandbox.
Mutants may loop for ever or double a value at each turn, so lines and sizes are limited.
"""

from __future__ import annotations

import copy
import random
import sys
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from crrl.tasks.generator.families.vocabulary import WORDS

MAX_LINES = 160
BUILTINS = {
    name: getattr(__import__("builtins"), name)
    for name in [
        "len",
        "sum",
        "max",
        "min",
        "range",
        "any",
        "all",
        "sorted",
        "enumerate",
        "abs",
        "list",
        "dict",
        "set",
        "str",
        "int",
        "bool",
        "tuple",
        "zip",
        "reversed",
    ]
}


@dataclass(frozen=True)
class Case:
    arguments: list[Any]
    expected: Any


@dataclass(frozen=True)
class Outcome:
    """The outcome of one call: its `value`, the name of the exception that it `raised`, or `stopped` by a limit."""

    value: Any = None
    raised: str = ""
    stopped: bool = False

    def equals(self, expected: Any) -> bool:
        return not self.raised and not self.stopped and bool(self.value == expected)


class _Stop(Exception):
    pass


def draw_argument(rng: random.Random, kind: str) -> Any:
    """`i` number, `p` positive number, `L`/`N` lists of numbers (`N`: four or more), `E` may be empty, `s` word,
    `S` words, `M` rows of numbers."""
    match kind:
        case "i":
            return rng.randint(-3, 20)
        case "p":
            return rng.randint(1, 200)
        case "L" | "N" | "E":
            sizes = {"L": range(3, 8), "N": range(4, 8), "E": (0, 0, 3, 5)}[kind]
            return [rng.randint(-3, 12) for _ in range(rng.choice(sizes))]
        case "s":
            return rng.choice(WORDS)
        case "S":
            return [rng.choice(WORDS) for _ in range(rng.randint(3, 6))]
        case "M":
            return [[rng.randint(-3, 12) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(2, 3))]
    raise ValueError(f"unknown kind of argument {kind!r}")


def call(code: CodeType, function: str, arguments: list[Any]) -> Outcome:
    """Define and call once, under the limits; arguments are copied."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        lines += 1
        if lines > MAX_LINES:
            raise _Stop
        if lines > 20 and event == "line":
            for value in frame.f_locals.values():  # values that double per turn end before one operation hangs
                if (isinstance(value, int) and value.bit_length() > 4096) or (
                    isinstance(value, str | list | dict) and len(value) > 10_000
                ):
                    raise _Stop
        return trace

    copied = copy.deepcopy(arguments)  # before tracing starts: copying is not the program's work
    namespace: dict[str, Any] = {"__builtins__": BUILTINS}
    exec(code, namespace)  # noqa: S102 - our own generated code, see above
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return Outcome(value=namespace[function](*copied))
    except _Stop:
        return Outcome(stopped=True)
    except Exception as error:
        return Outcome(raised=type(error).__name__)
    finally:
        sys.settrace(before)


def failing(source: str, function: str, cases: list[Case]) -> list[tuple[int, Outcome]]:
    """(index of the case, what happened instead) for each case that fails."""
    code = compile(source, "<generated>", "exec")
    outcomes = [call(code, function, case.arguments) for case in cases]
    return [(i, o) for i, (o, c) in enumerate(zip(outcomes, cases, strict=True)) if not o.equals(c.expected)]
