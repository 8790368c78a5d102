"""Other values that look like the ones they replace: the same type, about the same size, never equal.

Who sees a value beside another that was made of it should not see which came first: steps go up as often as down, and
what holds one element may become empty, as what is empty gets one. Nor should who trusts what is near an estimate of
his own: half of the steps are the smallest there are.
"""

from __future__ import annotations

import random
import re
import string

NUMBER = re.compile(r"^(-?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|\d[\d_]*(?:\.\d[\d_]*)?|\.\d+)(.*)$")
Literal = bool | int | float | str | bytes


def altered(value: Literal, rng: random.Random, *, far: bool = False) -> Literal:
    """A value of `value`'s type that is not equal to it. `far`: of a number that is compared with a tolerance."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        step = _step(abs(value), rng, far=far)
        moved = value + rng.choice((step, -step))
        if moved < 0 <= value:
            return value - rng.randint(1, value) if value else step
        return moved
    if isinstance(value, float):
        digits = len(repr(value).partition(".")[2].partition("e")[0]) or 1
        way = rng.choice((1.0, -1.0))
        part = rng.uniform(0.3, 0.9) if far or rng.random() < 0.5 else 10 ** rng.uniform(-2.5, -0.5)
        moved_by = round(value + way * part * max(1.0, abs(value)), digits)
        return moved_by if moved_by != value else value + way
    if isinstance(value, bytes):
        return altered_text(value.decode("latin-1"), rng).encode("latin-1")
    return altered_text(value, rng)


def _step(size: int, rng: random.Random, *, far: bool = False) -> int:
    largest = max(3, size // 10)
    return rng.randint(1, largest) if far or rng.random() < 0.5 else 1


def altered_text(text: str, rng: random.Random) -> str:
    """One letter or digit becomes another one of its kind; a text without any gets one."""
    places = [at for at, char in enumerate(text) if char.isascii() and char.isalnum()]
    if not places:
        return text + rng.choice(string.ascii_lowercase)
    at = rng.choice(places)
    kind = next(k for k in (string.digits, string.ascii_lowercase, string.ascii_uppercase) if text[at] in k)
    return text[:at] + rng.choice(kind.replace(text[at], "")) + text[at + 1 :]


def unlike_any(rng: random.Random) -> tuple[str, int]:
    """A word and a number that no honest answer equals."""
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(5, 12))), rng.randint(10**4, 10**9)


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
    step = _step(value, rng)
    changed = value - step if value > step else value + step
    while value <= 127 < changed:  # what fits a byte still does
        changed -= 1
    return f"{sign}{changed if changed != value else value - 1}{suffix}"


def other(value: object, rng: random.Random) -> object:
    """Another value of the same shape: in a list, tuple or dict one element is another; an empty one gets one, or loses
    its only one."""
    if isinstance(value, list | tuple | dict | str) and len(value) == 1 and rng.random() < 0.5:
        return value[:0] if isinstance(value, list | tuple | str) else {}
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


def among(value: object, number: int, rng: random.Random) -> list[object]:
    """`number` different values with `value` somewhere among them, each made of the one beside it: whoever reads them
    all learns nothing of which came first. Fewer where there are no more."""
    before = rng.randrange(number)
    made = [value]
    for at, steps in ((0, before), (-1, number - 1 - before)):
        for _ in range(steps):
            tries = (other(made[at], rng) for _ in range(20))
            new = next((tried for tried in tries if tried not in made), None)
            if new is not None:
                made.insert(0, new) if at == 0 else made.append(new)
    return made
