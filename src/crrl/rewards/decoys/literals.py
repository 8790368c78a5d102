"""Other values that look like the ones they replace: the same type, about the same size, never equal."""

from __future__ import annotations

import random
import re
import string

NUMBER = re.compile(r"^(-?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|\d[\d_]*(?:\.\d[\d_]*)?|\.\d+)(.*)$")
Literal = bool | int | float | str | bytes


def altered(value: Literal, rng: random.Random) -> Literal:
    """A value of `value`'s type that is not equal to it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        step = rng.randint(1, max(3, abs(value) // 10))
        return value - step if value > step and rng.random() < 0.5 else value + step
    if isinstance(value, float):
        digits = len(repr(value).partition(".")[2].partition("e")[0]) or 1
        moved = round(value + rng.uniform(0.3, 0.9) * max(1.0, abs(value)), digits)
        return moved if moved != value else value + 1.0
    if isinstance(value, bytes):
        return altered_text(value.decode("latin-1"), rng).encode("latin-1")
    return altered_text(value, rng)


def altered_text(text: str, rng: random.Random) -> str:
    """One letter or digit becomes another one of its kind; a text without any gets one."""
    places = [at for at, char in enumerate(text) if char.isascii() and char.isalnum()]
    if not places:
        return text + rng.choice(string.ascii_lowercase)
    at = rng.choice(places)
    kind = next(k for k in (string.digits, string.ascii_lowercase, string.ascii_uppercase) if text[at] in k)
    return text[:at] + rng.choice(kind.replace(text[at], "")) + text[at + 1 :]


def altered_number(token: str, rng: random.Random) -> str | None:
    """The same of a number as other languages write it (`3L`, `1.5f32`, `0xff`, `1_000`); None: not understood."""
    found = NUMBER.match(token)
    if found is None:
        return None
    sign, digits, suffix = found.groups()
    plain = digits.replace("_", "")
    if plain[:2].lower() in ("0x", "0b", "0o"):
        base = {"x": 16, "b": 2, "o": 8}[plain[1].lower()]
        value = int(plain, base)
        changed = value - 1 if value else 1
        return f"{sign}{plain[:2]}{ {16: f'{changed:x}', 2: f'{changed:b}', 8: f'{changed:o}'}[base] }{suffix}"
    if "." in plain:
        places = len(plain.partition(".")[2])
        return f"{sign}{float(plain) + rng.uniform(0.3, 0.9) * max(1.0, float(plain)):.{max(places, 1)}f}{suffix}"
    value = int(plain)
    step = rng.randint(1, max(3, value // 10))
    changed = value - step if value > step else value + step
    while value <= 127 < changed:  # what fits a byte still does
        changed -= 1
    return f"{sign}{changed if changed != value else value - 1}{suffix}"


def other(value: object, rng: random.Random) -> object:
    """Another value of the same shape: in a list, tuple or dict one element is another, an empty one gets one."""
    if isinstance(value, list | tuple):
        if not value:
            return type(value)([rng.randint(1, 9)])
        at = rng.randrange(len(value))
        return type(value)([*value[:at], other(value[at], rng), *value[at + 1 :]])
    if isinstance(value, dict):
        key = rng.choice(list(value)) if value else rng.randint(1, 9)
        return {**value, key: other(value.get(key, 0), rng)}
    if isinstance(value, bool | int | float | str | bytes):
        return altered(value, rng)
    return rng.randint(1, 9)  # None
