"""Sites of JSON that tests read their cases from: expected values, told by their name or as `[input, expected]`.

Inputs stay as they are: nobody knows what they would give.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

from crrl.rewards.decoys.literals import other
from crrl.rewards.decoys.sites import Edit, Site

NAMED = re.compile(r'"\w*(?:expected|output|want|result)\w*"\s*:\s*', re.IGNORECASE)
ROW = re.compile(r"^[ \t]*\[[ \t]*", re.MULTILINE)
COMMA = re.compile(r"\s*,\s*")
CLOSED = re.compile(r"\s*\]\s*(?:,\s*)?$", re.MULTILINE)
DECODER = json.JSONDecoder()


def find(unit: str, data: bytes, rng: random.Random) -> list[Site]:
    """One site, at which every expected value is another; none where there are none. `unit`: the file's name."""
    try:
        text = data.decode()
        spans = [*_named(text), *_rows(text)]
        spans = [span for span in spans if span[2] not in ([], {})] or spans  # what would be in there, nobody knows
        edits = tuple(
            Edit(len(text[:start].encode()), len(text[:end].encode()), json.dumps(other(value, rng)).encode())
            for start, end, value in spans
        )
    except (ValueError, RecursionError):
        return []
    return [Site(unit, edits)] if edits else []


def _named(text: str) -> Iterator[tuple[int, int, object]]:
    for found in NAMED.finditer(text):
        value, end = DECODER.raw_decode(text, found.end())
        yield found.end(), end, value


def _rows(text: str) -> Iterator[tuple[int, int, object]]:
    """The second values of lines `[input, expected]`."""
    for found in ROW.finditer(text):
        try:
            _, end = DECODER.raw_decode(text, found.end())
            comma = COMMA.match(text, end)
            if comma is None:
                continue
            value, end = DECODER.raw_decode(text, comma.end())
        except ValueError:
            continue
        if CLOSED.match(text, end):
            yield comma.end(), end, value
