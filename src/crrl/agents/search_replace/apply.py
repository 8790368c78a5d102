"""Puts search/replace blocks on files, one after the other, each exactly or in stated steps of tolerance.

A block's old lines must be found once. `STEPS` says in which order they are looked for; where one step finds them more
than once, the block is refused: a guess would edit the wrong place. Lines that a block repeats unchanged keep the
file's own text, white space and line ends; new ones get the line ends that prevail in the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from itertools import islice

from crrl.agents.search_replace import NO_NEWLINE, Block, Fault, Reading

LARGEST = 20_000  # lines of a file in which near lines are looked for
ALIGNED = 1_000_000  # old lines times new lines of a block, up to which those in the middle are told apart
STARTS = 100  # places at which an elided search may begin
WIDTHS = (2, 3, 4, 8)  # spaces for a tab
NUMBERS = [
    re.compile(r"[ ]*(\d{1,7})" + mark + "(.*)$") for mark in (r"\t", ":", ": ", r"\|", r" ?\| ", "→")
]  # as `cat -n`, `grep -n` and agents' tools print them
COMPARED = 600  # characters of lines that may be meant: repetitive ones take time by the third power
SHOWN = 12  # lines of a file that a fault shows


@dataclass(frozen=True)
class Applied:
    """`files`: path -> new text, of those that changed. `steps`: the name of the step that each block took."""

    files: dict[str, str]
    steps: list[str]
    faults: list[Fault]


@dataclass(frozen=True)
class Line:
    text: str
    end: str


@dataclass(frozen=True)
class Edit:
    """Lines [start, stop) of the file become `lines`, of which those in `kept` (index -> line of the file) are its
    own."""

    start: int
    stop: int
    lines: list[str]
    kept: dict[int, int]


class Refused(Exception):
    pass


def split(text: str) -> list[Line]:
    """Only "\\n" and "\\r\\n" end a line."""
    lines = []
    *whole, last = text.split("\n")
    for line in whole:
        lines.append(Line(line[:-1], "\r\n") if line.endswith("\r") else Line(line, "\n"))
    return [*lines, Line(last, "")] if last else lines


def apply(blocks: Sequence[Block], files: Mapping[str, str]) -> Applied:
    """`files`: path -> text. Blocks that fail are left out, and told; the others count."""
    now: dict[str, str] = {}
    steps, faults = [], []
    for block in blocks:
        text = now.get(block.path, files.get(block.path))
        try:
            now[block.path], step = apply_one(block.readings, text, block.path)
        except Refused as refused:
            near = _near(block.path, files) if text is None else None
            faults.append(Fault(block.line, f"{refused} Did you mean {near}?" if near else str(refused)))
        else:
            steps.append(step)
    return Applied({path: text for path, text in now.items() if files.get(path) != text}, steps, faults)


def apply_one(readings: Sequence[Reading], text: str | None, path: str) -> tuple[str, str]:
    """The new text, and the name of the step. `text`: None: there is no such file. Raises Refused."""
    differing = [reading for reading in readings if reading.search != reading.replace]
    if not differing:
        raise Refused(f"{path}: SEARCH and REPLACE are the same, so the block changes nothing.")
    first = differing[0]
    if (not first.search and not (text or "").strip("\r\n")) or (not text and not any(x.strip() for x in first.search)):
        return _joined(first.replace), "new file"
    if text is None:
        raise Refused(f"{path}: there is no such file. (An empty SEARCH makes a new one.)")
    if not first.search:
        raise Refused(f"{path}: SEARCH is empty, but the file is not. Give the lines that are to be replaced.")
    lines = split(text)
    for step, find in STEPS.items():
        found = [(reading, list(find(reading, lines))) for reading in differing]
        single = [(reading, edits[0]) for reading, edits in found if len(edits) == 1]
        if single:  # of several readings, the one that says most about the file
            reading, edit = max(single, key=lambda one: len(one[0].search))
            return _edited(lines, edit, reading), step
        if several := next((edits for _, edits in found if edits), None):
            at = ", ".join(str(edit.start + 1) for edit in several[:5])
            raise Refused(
                f"{path}: SEARCH stands {len(several)} times in the file, at lines {at}. Add lines around it."
            )
    raise Refused(_not_found(first, lines, path))


def _joined(lines: Sequence[str]) -> str:
    whole = "\n".join(line for line in lines if line != NO_NEWLINE)
    return whole if NO_NEWLINE in lines[-1:] or not lines else whole + "\n"


def _edited(lines: Sequence[Line], edit: Edit, reading: Reading) -> str:
    ends = Counter(line.end for line in lines if line.end)
    usual = ends.most_common(1)[0][0] if ends else "\n"
    new = []
    for i, text in enumerate(edit.lines):
        own = lines[edit.kept[i]] if i in edit.kept else None
        new.append(own or Line(text.removesuffix("\r") if usual == "\r\n" else text, usual))
    whole = [*lines[: edit.start], *new, *lines[edit.stop :]]
    if not whole:
        return ""
    *body, last = whole
    end = last.end
    if edit.stop == len(lines):
        if NO_NEWLINE in reading.replace[-1:]:
            end = ""
        elif NO_NEWLINE in reading.search[-1:]:
            end = end or usual
        else:
            end = lines[-1].end and (end or usual)
    return "".join(line.text + (line.end or usual) for line in body) + last.text + end


# The steps ----------------------------------------------------------------------------------------------------


def _plain(reading: Reading) -> tuple[list[str], list[str]]:
    return [x for x in reading.search if x != NO_NEWLINE], [x for x in reading.replace if x != NO_NEWLINE]


def _kept(search: Sequence[str], replace: Sequence[str], start: int) -> dict[int, int]:
    """Which lines of `replace` are lines of `search`, and so the file's own, which match from `start` on."""
    shorter = min(len(search), len(replace))
    head = next((i for i in range(shorter) if search[i] != replace[i]), shorter)
    tail = next((i for i in range(shorter - head) if search[-1 - i] != replace[-1 - i]), shorter - head)
    kept = {i: start + i for i in range(head)}
    kept |= {len(replace) - 1 - i: start + len(search) - 1 - i for i in range(tail)}
    old, new = search[head : len(search) - tail], replace[head : len(replace) - tail]
    if len(old) * len(new) <= ALIGNED:
        for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
            kept |= {head + block.b + i: start + head + block.a + i for i in range(block.size)}
    return kept


def _places(wanted: Sequence[str], keys: Sequence[str], begin: int = 0) -> Iterator[int]:
    if not wanted:
        return
    first, size = wanted[0], len(wanted)
    for at in range(begin, len(keys) - size + 1):
        if keys[at] == first and list(keys[at : at + size]) == list(wanted):
            yield at


def _same(key: Callable[[str], str]) -> Callable[[Reading, Sequence[Line]], Iterator[Edit]]:
    def find(reading: Reading, lines: Sequence[Line]) -> Iterator[Edit]:
        search, replace = _plain(reading)
        for at in _places([key(x) for x in search], [key(line.text) for line in lines]):
            yield Edit(at, at + len(search), replace, _kept(search, replace, at))

    return find


def _trimmed(reading: Reading) -> Reading:
    """Without the blank lines at both ends of SEARCH, and as many of REPLACE."""
    search, replace = _plain(reading)
    while search and not search[0].strip():
        search = search[1:]
        replace = replace[1:] if replace and not replace[0].strip() else replace
    while search and not search[-1].strip():
        search = search[:-1]
        replace = replace[:-1] if replace and not replace[-1].strip() else replace
    return Reading(tuple(search), tuple(replace))


def _blank_ends(reading: Reading, lines: Sequence[Line]) -> Iterator[Edit]:
    yield from _same(str.rstrip)(_trimmed(reading), lines)


def _indent(lines: Sequence[str]) -> str:
    """The white space that all lines that are not blank begin with."""
    found = [line[: len(line) - len(line.lstrip())] for line in lines if line.strip()]
    low, high = min(found, default=""), max(found, default="")
    size = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:size]


def _indented(reading: Reading, lines: Sequence[Line]) -> Iterator[Edit]:
    """All lines of SEARCH are indented by too much or too little; those of REPLACE follow."""
    trimmed = _trimmed(reading)
    search, replace = list(trimmed.search), list(trimmed.replace)
    if not search:
        return
    theirs = _indent(search)
    wanted = [x.removeprefix(theirs).rstrip() for x in search]
    for at in _places([x.strip() for x in search], [line.text.strip() for line in lines]):
        window = [line.text for line in lines[at : at + len(search)]]
        ours = _indent(window)
        if [x.removeprefix(ours).rstrip() for x in window] != wanted:
            continue
        if any(x.strip() and not x.startswith(theirs) for x in replace):
            continue  # its new lines would stand further to the left than can be told
        moved = [ours + x.removeprefix(theirs) if x.strip() else x for x in replace]
        yield Edit(at, at + len(search), moved, _kept(search, replace, at))


def _respaced(reading: Reading, lines: Sequence[Line]) -> Iterator[Edit]:
    """The answer is indented by spaces where the file is by tabs, or the other way round."""
    trimmed = _trimmed(reading)
    keys = [line.text.rstrip() for line in lines]
    for width in WIDTHS:
        for old, new in ((" " * width, "\t"), ("\t", " " * width)):
            search = [_reindented(x, old, new) for x in trimmed.search]
            if search == list(trimmed.search):
                continue
            replace = [_reindented(x, old, new) for x in trimmed.replace]
            for at in _places([x.rstrip() for x in search], keys):
                yield Edit(at, at + len(search), replace, _kept(search, replace, at))


def _reindented(line: str, old: str, new: str) -> str:
    first = old[0]
    depth = (len(line) - len(line.lstrip(first))) // len(old)
    return new * depth + line[depth * len(old) :]


def _numbered(reading: Reading, lines: Sequence[Line]) -> Iterator[Edit]:
    """Lines of SEARCH with their numbers in the file before them, as `cat -n` and others print them."""
    search, replace = _plain(_trimmed(reading))
    for numbered in NUMBERS:
        marks = [mark for x in search if (mark := numbered.match(x)) is not None]
        if not marks or len(marks) < len(search):
            continue
        at = int(marks[0][1]) - 1
        bare = [mark[2] for mark in marks]
        if (
            at >= 0
            and [int(mark[1]) for mark in marks] == list(range(at + 1, at + 1 + len(bare)))
            and [x.rstrip() for x in bare] == [line.text.rstrip() for line in lines[at : at + len(bare)]]
        ):
            new = [mark[2] if (mark := numbered.match(x)) is not None else x for x in replace]
            yield Edit(at, at + len(bare), new, _kept(bare, new, at))
            return


def _is_elision(line: str) -> bool:
    return line.strip().lstrip("#/-* ").strip() in ("...", "…")


def _segments(lines: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in lines:
        if _is_elision(line):
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _elided(reading: Reading, lines: Sequence[Line]) -> Iterator[Edit]:
    """Lines `...` in both, equally many: what they stand for stays."""
    search, replace = (_segments(part) for part in _plain(reading))
    if len(search) != len(replace) or len(search) == 1 or not any(search):
        return
    if any(not a and b for a, b in zip(search, replace, strict=True)):
        return  # new lines, and nothing that says where
    keys = [line.text.rstrip() for line in lines]
    parts = [([x.rstrip() for x in a], a, b) for a, b in zip(search, replace, strict=True) if a]
    for start in islice(_places(parts[0][0], keys), STARTS):
        new: list[str] = []
        kept: dict[int, int] = {}
        at = start
        for wanted, old, fresh in parts:
            found = next(_places(wanted, keys, at), None)
            if found is None:
                break
            for i in range(at, found):
                kept[len(new)] = i
                new.append(lines[i].text)
            own = _kept(old, fresh, found)
            kept |= {len(new) + i: line for i, line in own.items()}
            new += fresh
            at = found + len(old)
        else:
            yield Edit(start, at, new, kept)


STEPS: dict[str, Callable[[Reading, Sequence[Line]], Iterator[Edit]]] = {
    "exact": _same(str),
    "white space at line ends": _same(str.rstrip),
    "blank lines around": _blank_ends,
    "indentation": _indented,
    "tabs and spaces": _respaced,
    "line numbers": _numbered,
    "elision": _elided,
}


# Faults -------------------------------------------------------------------------------------------------------


def _near(path: str, files: Collection[str]) -> str | None:
    names = {name.lower(): name for name in files}
    close = get_close_matches(path.lower(), names, 1, 0.8)
    return names[close[0]] if close else None


def _not_found(reading: Reading, lines: Sequence[Line], path: str) -> str:
    search, replace = _plain(reading)
    said = f"{path}: the lines of SEARCH are not in the file."
    if replace and any(_places([x.rstrip() for x in replace], [line.text.rstrip() for line in lines])):
        said += " (Those of REPLACE are there already.)"
    at = _nearest([x.strip() for x in search], [line.text.strip() for line in lines[:LARGEST]])
    if at is None:
        return said
    near = [line.text for line in lines[at : at + min(len(search), SHOWN)]]
    return "\n".join([f"{said} Did you mean these, from line {at + 1}?", *near])


def _nearest(wanted: Sequence[str], keys: Sequence[str]) -> int | None:
    """Where the window of as many lines begins that shares most with `wanted`: lines first, then characters."""
    size = max(1, min(len(wanted), len(keys)))
    if not keys or not any(wanted):
        return None
    left = Counter(x for x in wanted if x)
    window = Counter(x for x in keys[:size] if x in left)
    shared = {0: sum((window & left).values())}
    for at in range(1, len(keys) - size + 1):
        gone, came = keys[at - 1], keys[at + size - 1]
        if gone in left:
            window[gone] -= 1
        if came in left:
            window[came] += 1
        shared[at] = shared[at - 1] if gone not in left and came not in left else sum((window & left).values())
    best = max(shared.values())
    text = "\n".join(wanted)[:COMPARED]
    if best:
        candidates = [at for at, count in shared.items() if count == best][:8]
    else:  # no whole line: by the words of its longest line
        words = set(max(wanted, key=len).split())
        scored = sorted((-len(words & set(key.split())), at) for at, key in enumerate(keys) if words & set(key.split()))
        candidates = [min(at, len(keys) - size) for _, at in scored[:8]]
    ratios = [
        (SequenceMatcher(None, "\n".join(keys[at : at + size])[:COMPARED], text, autojunk=False).ratio(), -at)
        for at in candidates
    ]
    return -max(ratios)[1] if ratios else None
