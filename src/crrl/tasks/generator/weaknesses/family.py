"""`Family`, the registry that families enter by `@family`, and what their functions are written with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

VERBS = ("get", "find", "load", "show", "read", "make", "send", "save", "check", "list", "copy", "open")
THINGS = ("user", "name", "page", "file", "item", "order", "note", "key", "tag", "row", "post", "mail", "group", "host")
INPUTS = ("name", "value", "text", "query", "word", "arg", "title", "data", "term", "label", "field", "line")
TABLES = ("users", "items", "orders", "notes", "posts", "files", "hosts", "tags")
COLUMNS = ("id", "name", "owner", "state", "kind", "mail", "code")
PROGRAMS = ("ls", "cat", "ping", "host", "grep", "file", "wc", "stat", "du", "tar")
FOLDERS = ("data", "files", "static", "docs", "home", "logs", "pages")


@dataclass(frozen=True)
class Words:
    """The names of one function. `text` comes from outside, `other` does not; `size`: a number."""

    function: str
    text: str
    other: str
    table: str
    column: str
    program: str
    folder: str
    size: int

    @classmethod
    def draw(cls, rng: random.Random) -> Words:
        text, other = rng.sample(INPUTS, 2)
        return cls(
            function=f"{rng.choice(VERBS)}_{rng.choice(THINGS)}",
            text=text,
            other=other,
            table=rng.choice(TABLES),
            column=rng.choice(COLUMNS),
            program=rng.choice(PROGRAMS),
            folder=rng.choice(FOLDERS),
            size=rng.choice((8, 16, 24, 32, 64)),
        )


@dataclass(frozen=True)
class Body:
    """Two versions of a function without its first line, each line from its margin: with the weakness, and without."""

    parameters: str
    before: list[str]
    after: list[str]


Draw = Callable[[Words, random.Random], Body]


@dataclass(frozen=True)
class Family:
    """One way to make one mistake."""

    name: str
    cwe: str
    language: str
    draw: Draw


FAMILIES: dict[str, Family] = {}


def family(cwe: int, language: str) -> Callable[[Draw], Draw]:
    def enter(draw: Draw) -> Draw:
        FAMILIES[draw.__name__] = Family(draw.__name__, f"CWE-{cwe}", language, draw)
        return draw

    return enter
