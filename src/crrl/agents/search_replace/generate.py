"""Makes search/replace blocks out of two versions of a file: as few lines as tell the place, proved by applying them.

Each block's old lines stand once in the file as it is when the block's turn comes. What blocks cannot say (line ends
that change, and nothing else) raises `Inexpressible`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from crrl.agents.search_replace import NO_NEWLINE, Inexpressible
from crrl.agents.search_replace.apply import Line, apply, split
from crrl.agents.search_replace.marks import CLOSE, DIVIDE, OPEN
from crrl.agents.search_replace.parse import parse

Hunk = tuple[int, int, int, int]
"""Lines [i1, i2) of the one version become lines [j1, j2) of the other."""


def generate(
    path: str, before: str | None, after: str, context: int = 0, within: Sequence[tuple[int, int]] = ()
) -> str:
    """The blocks, "" where nothing changes. `before`: None: the file is new. `context`: unchanged lines around each
    change, at least, but of `within` ([first, last) lines of `before`) only those of the part with the change. Raises
    Inexpressible."""
    if before == after:
        return ""
    old, new = split(before or ""), split(after)
    hunks = [(0, 0, 0, len(new))] if not old else _hunks(old, new, context, within)
    text = "\n".join(_written(path, old, new, hunk, before is not None) for hunk in hunks)
    parsed = parse(text, [path])
    applied = apply(parsed.blocks, {} if before is None else {path: before})
    if applied.files != {path: after} or set(applied.steps) - {"exact", "new file"} or parsed.faults:
        raise Inexpressible(f"{path}: no search/replace blocks make this change.")
    return text


def _hunks(old: Sequence[Line], new: Sequence[Line], context: int, within: Sequence[tuple[int, int]]) -> list[Hunk]:
    """What changes, each part grown until its old lines stand once in the file of its turn."""
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    changed = [op[1:] for op in matcher.get_opcodes() if op[0] != "equal"]
    hunks = [_grown(hunk, context, old, new, _part(hunk, within)) for hunk in changed]
    hunks = _merged(hunks)
    texts, news = [line.text for line in old], [line.text for line in new]
    while True:
        now, moved = list(texts), 0
        for index, (i1, i2, j1, j2) in enumerate(hunks):
            if i1 == i2 or _count(texts[i1:i2], now) != 1:
                hunks[index] = _grown((i1, i2, j1, j2), 1, old, new)
                hunks = _merged(hunks)
                break
            now[i1 + moved : i2 + moved] = news[j1:j2]
            moved += (j2 - j1) - (i2 - i1)
        else:
            return hunks


def _part(hunk: Hunk, within: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    return next((part for part in within if part[0] <= hunk[0] and hunk[1] <= part[1]), None)


def _grown(hunk: Hunk, by: int, old: Sequence[Line], new: Sequence[Line], part: tuple[int, int] | None = None) -> Hunk:
    i1, i2, j1, j2 = hunk
    first, last = part or (0, len(old))
    up = min(by, i1 - first, j1)
    down = min(by, last - i2, len(new) - j2)
    return i1 - up, i2 + down, j1 - up, j2 + down


def _merged(hunks: Sequence[Hunk]) -> list[Hunk]:
    """Those that overlap or touch become one."""
    merged: list[Hunk] = []
    for hunk in hunks:
        if merged and hunk[0] <= merged[-1][1]:
            last = merged.pop()
            hunk = (min(last[0], hunk[0]), max(last[1], hunk[1]), min(last[2], hunk[2]), max(last[3], hunk[3]))
        merged.append(hunk)
    return merged


def _count(wanted: Sequence[str], lines: Sequence[str]) -> int:
    size = len(wanted)
    return sum(
        lines[at] == wanted[0] and list(lines[at : at + size]) == list(wanted) for at in range(len(lines) - size + 1)
    )


def _written(path: str, old: Sequence[Line], new: Sequence[Line], hunk: Hunk, exists: bool) -> str:
    i1, i2, j1, j2 = hunk
    search, replace = [line.text for line in old[i1:i2]], [line.text for line in new[j1:j2]]
    if exists and i2 == len(old) and ((old and not old[-1].end) or (new and not new[-1].end)):
        search += [NO_NEWLINE] * (bool(old) and not old[-1].end)
        replace += [NO_NEWLINE] * (bool(new) and not new[-1].end)
    elif not exists and new and not new[-1].end:
        replace.append(NO_NEWLINE)
    marks = [match for line in (*search, *replace) for mark in (OPEN, DIVIDE, CLOSE) if (match := mark.match(line))]
    size = max([7, *(len(match["mark"]) + 1 for match in marks)])
    return "\n".join([path, "<" * size + " SEARCH", *search, "=" * size, *replace, ">" * size + " REPLACE", ""])
