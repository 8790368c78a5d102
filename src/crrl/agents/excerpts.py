"""What of a long file is shown: the definitions that a known fix changes.

Definitions are found by indentation, so in any language that people indent. Of those around a changed line the largest
that fits is taken; where not even the innermost does, a part of it, which begins anywhere above the line, since a fixed
place would tell which line it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence

from crrl import unified_diff
from crrl.agents.search_replace.apply import split

SMALLEST = 8  # lines of a piece, however many there are
BEFORE = ("@", "#", "//", "/*", "*")  # what stands above a definition and belongs to it
GOES_ON = (")", "]", "}", "{", "end")  # with the block before it, at the same indentation
STATEMENT = re.compile(
    r"(if|elif|else|for|foreach|while|with|try|except|catch|finally|switch|match|case|default|do|return|unsafe|"
    r"async (for|with))\b"
)
LEFT_OUT = "[{} lines left out]"


def changed_lines(solution: str) -> dict[str, list[int]]:
    """Path -> numbers, from 0, of the old lines that a patch takes away, or puts others after."""
    found: dict[str, list[int]] = {}
    for part in unified_diff.parse(solution):
        if part.old is None:
            continue
        for hunk in part.pieces:
            if isinstance(hunk, unified_diff.Hunk):
                found.setdefault(part.old, []).extend(_changed(hunk))
    return found


def _changed(hunk: unified_diff.Hunk) -> Iterator[int]:
    at, sign = hunk.first - 1, " "
    for line in hunk.body:
        if line[:1] == "-":
            yield at
        elif line[:1] == "+" and sign == " ":
            yield max(0, at - 1)
        sign = line[:1]
        at += sign in ("-", " ")


def lines_of(text: str) -> list[str]:
    """With their ends, and as patches count them: a form feed ends none."""
    return [line.text + line.end for line in split(text)]


def excerpt(text: str, changed: Iterable[int], most: int) -> str:
    """About `most` lines of a file around lines `changed` (from 0); what is left out is said. A shorter file is
    whole."""
    lines = lines_of(text)
    parts, at = [], 0
    for start, end in [*pieces(lines, changed, most), (len(lines), len(lines))]:
        if start > at:
            parts.append(LEFT_OUT.format(start - at) + "\n")
        parts += lines[start:end]
        at = end
    return "".join(parts)


def pieces(lines: Sequence[str], changed: Iterable[int], most: int) -> list[tuple[int, int]]:
    """What of the file is shown: [first, last), in order."""
    places = sorted({min(max(0, at), len(lines) - 1) for at in changed}) if lines else []
    if len(lines) <= most or not places:
        return [(0, len(lines))] if lines else []
    shown = _pieces(lines, places, most)
    if sum(end - start for start, end in shown) > most:
        shown = _pieces(lines, places, max(SMALLEST, most // len(shown)))
    return shown


def _pieces(lines: Sequence[str], places: Iterable[int], most: int) -> list[tuple[int, int]]:
    """Without overlaps."""
    found: list[tuple[int, int]] = []
    for at in places:
        if not found or at >= found[-1][1]:
            start, end = _around(lines, at, most)
            found.append((max(start, found[-1][1] if found else 0), end))
    return found


def _around(lines: Sequence[str], at: int, most: int) -> tuple[int, int]:
    start, end = 0, len(lines)
    for start, end in [(0, len(lines)), *_definitions(lines, at)]:
        if end - start <= most:
            return start, end
    first, last = max(start, at - most + 1), min(at, end - most)
    begin = random.Random(f"{at}/{''.join(lines[start:end])}").randint(first, last)
    return begin, begin + most


def _definitions(lines: Sequence[str], at: int) -> Iterator[tuple[int, int]]:
    """Those around a line, the outermost first."""
    wanted = at
    while at + 1 < len(lines) and lines[at].lstrip().startswith(BEFORE):
        at += 1
    headers: list[int] = []
    width = _indentation(lines[at]) + 1
    for above in range(at, -1, -1):
        line = lines[above]
        if line.strip() and _indentation(line) < width and not line.lstrip().startswith(GOES_ON):
            headers.append(above)
            width = _indentation(line)
    for header in reversed(headers):
        start, end, width = header, _end(lines, header), _indentation(lines[header])
        if end - start == 1 or STATEMENT.match(lines[header].lstrip()):
            continue
        while start and _indentation(lines[start - 1]) == width and lines[start - 1].lstrip().startswith(BEFORE):
            start -= 1
        if start <= wanted < end:
            yield start, end


def _end(lines: Sequence[str], header: int) -> int:
    """Of the block that `header` opens: what closes it belongs to it, blank lines after it do not."""
    width, end = _indentation(lines[header]), header + 1
    for below in range(header + 1, len(lines)):
        if not lines[below].strip():
            continue
        if _indentation(lines[below]) <= width and not lines[below].lstrip().startswith(GOES_ON):
            break
        end = below + 1
    return end


def _indentation(line: str) -> int:
    expanded = line.expandtabs(8)
    return len(expanded) - len(expanded.lstrip()) if expanded.strip() else 0
