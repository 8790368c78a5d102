"""The words of generated programs: names, and English phrases for expressions."""

from __future__ import annotations

import random
from dataclasses import dataclass

NOUNS = [
    "items",
    "values",
    "nums",
    "data",
    "scores",
    "prices",
    "points",
    "ages",
    "sizes",
    "marks",
    "ranks",
    "temps",
    "rates",
    "votes",
    "sales",
    "costs",
    "times",
    "codes",
]
ITEMS = ["x", "v", "n", "item", "num", "val", "k", "y", "e", "it"]
RESULTS = ["total", "acc", "result", "out", "res", "s", "best", "cur"]
VERBS = ["get", "find", "calc", "make", "take", "build", "check", "compute", "do", "run", "scan", "pick"]
MODULES = ["stats", "utils", "calc", "core", "tools", "logic", "helpers", "maths", "app", "lists"]
TEXTS = ["words", "names", "lines", "keys", "tags", "labels", "parts"]
TEXT_ITEMS = ["word", "text", "name", "line", "tag", "label"]
WORDS = [
    "abc",
    "tree",
    "rot",
    "cat",
    "door",
    "echo",
    "bead",
    "to",
    "radar",
    "table",
    "code",
    "robot",
    "elite",
    "a",
    "Odd",
    "Tea",
    "crate",
]


@dataclass(frozen=True)
class Names:
    """The names of one program. `k` is a constant from 2 to 9 that its specification may mention."""

    function: str
    numbers: str
    texts: str
    x: str
    y: str
    result: str
    text: str
    k: int

    @classmethod
    def draw(cls, rng: random.Random) -> Names:
        while True:
            names = cls(
                function=f"{rng.choice(VERBS)}_{rng.choice(NOUNS + TEXTS)}",
                numbers=rng.choice(NOUNS),
                texts=rng.choice(TEXTS),
                x=rng.choice(ITEMS),
                y=rng.choice(ITEMS),
                result=rng.choice(RESULTS),
                text=rng.choice(TEXT_ITEMS),
                k=rng.randint(2, 9),
            )
            used = [names.numbers, names.texts, names.x, names.y, names.result, names.text]
            if len(set(used)) == len(used):
                return names


def predicate(rng: random.Random, x: str) -> tuple[str, str]:
    """(what is said of a number, the condition)."""
    k = rng.randint(2, 9)
    return rng.choice(
        [
            (f"greater than {k}", f"{x} > {k}"),
            (f"less than {k}", f"{x} < {k}"),
            (f"at least {k}", f"{x} >= {k}"),
            (f"at most {k}", f"{x} <= {k}"),
            ("even", f"{x} % 2 == 0"),
            ("odd", f"{x} % 2 == 1"),
            (f"equal to {k}", f"{x} == {k}"),
            (f"not equal to {k}", f"{x} != {k}"),
            (f"divisible by {k}", f"{x} % {k} == 0"),
            (f"not divisible by {k}", f"{x} % {k} != 0"),
        ]
    )


def mapping(rng: random.Random, x: str) -> tuple[str, str]:
    """(what is done to a number, the expression)."""
    k = rng.randint(2, 9)
    return rng.choice(
        [
            (f"plus {k}", f"{x} + {k}"),
            (f"minus {k}", f"{x} - {k}"),
            (f"times {k}", f"{x} * {k}"),
            (f"floor divided by {k}", f"{x} // {k}"),
            (f"modulo {k}", f"{x} % {k}"),
            ("squared", f"{x} * {x}"),
        ]
    )


def text_predicate(rng: random.Random, w: str) -> tuple[str, str]:
    """(what is said of a word, the condition)."""
    k = rng.randint(2, 6)
    c = rng.choice("abcdeort")
    return rng.choice(
        [
            (f"longer than {k}", f"len({w}) > {k}"),
            (f"shorter than {k}", f"len({w}) < {k}"),
            (f"starting with {c}", f"{w}.startswith('{c}')"),
            (f"ending with {c}", f"{w}.endswith('{c}')"),
            (f"containing {c}", f"'{c}' in {w}"),
            (f"not containing {c}", f"'{c}' not in {w}"),
            (f"with length {k}", f"len({w}) == {k}"),
        ]
    )


def text_mapping(rng: random.Random, w: str) -> tuple[str, str]:
    """(what is done to a word, the expression)."""
    k = rng.randint(1, 4)
    return rng.choice(
        [
            ("in upper case", f"{w}.upper()"),
            ("in lower case", f"{w}.lower()"),
            ("reversed", f"{w}[::-1]"),
            (f"cut to the first {k} characters", f"{w}[:{k}]"),
            (f"without the first {k} characters", f"{w}[{k}:]"),
            (f"repeated {k + 1} times", f"{w} * {k + 1}"),
        ]
    )
