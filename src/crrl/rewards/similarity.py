"""How near a patch is to the developer's, in [0, 1], by four definitions.

`changed_lines`, the default. For each file of either patch, with the lines that the two patches remove and add there,
in order, trailing white space and blank lines dropped:

    of a side = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).ratio()
    of a file = the harmonic mean of both sides, where the fix removes and adds; else of all its changed lines
    of a patch = the mean over the union of files; a file that only one of them touches has 0

So context, headers and names of files count for nothing: a comment in the right place has 0, and so has deleting the
lines that the fix replaces.

`changed_tokens`. For each file the tokens that the change really removes and adds: the differences between the tokens
of its removed and those of its added lines (difflib; words and single marks; comments from `#` or `//` on left out), as
multisets. Of a file: Dice's coefficient of each side, their harmonic mean, where the fix has both; else of all. Lines
that are taken out and put back count for nothing, and a repair that writes the developer's line a little differently
has much of it. It ranks real patches better than `changed_lines` (docs/rewards.md), and is gamed by code in strings.

`swe_rl` is the reward of SWE-RL (Wei et al. 2025, arXiv:2502.18449; `calculate_reward_unidiff`): the ratio of whole
hunks as characters, mean over the union of files. `predecessor` is that of the first CodeRepairRL (github.com/
ASSERT-KTH/CodeRepairRL, `src/rewards/diff.py`): the ratio of the raw difference of each file, headers included, with
difflib's heuristic for frequent characters; sum over the fix's files / the larger number of files. Both pay for copied
context: a comment in the right place has 0.70 and 0.59 on average (docs/rewards.md). They are here to compare with
others' numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from statistics import fmean
from typing import TypeVar

from crrl.rewards.patching import PatchError, parse

TOKEN = re.compile(r"\w+|[^\w\s]")
COMMENT = re.compile(r"(^|\s)(#|//).*")
LONGEST = 1 << 20  # characters of a patch that rewards compare: a longer one is like no fix, and would take minutes
LINES = 5_000  # of a file, and tokens of a side; SequenceMatcher is quadratic, and what lies beyond is cut from both


Sides = tuple[list[str], list[str]]
"""Of a file: removed lines, added lines."""


def sides(patch: str) -> dict[str, Sides]:
    """By path. Raises PatchError."""
    files: dict[str, Sides] = {}
    for part in parse(patch):
        removed, added = files.setdefault(part.path, ([], []))
        if part.readable:
            lines = [line.rstrip() for line in part.lines[:LINES] if line[0] in "+-" and line[1:].strip()]
            removed += [line[1:] for line in lines if line[0] == "-"]
            added += [line[1:] for line in lines if line[0] == "+"]
    return files


def _of_sides(patch: str, solution: str, of_file: Callable[[Sides, Sides], float]) -> float:
    try:
        return _over_union(sides(patch), sides(solution), of_file)
    except PatchError:
        return 0.0


def changed_lines(patch: str, solution: str) -> float:
    return _of_sides(patch, solution, _of_file)


def _of_file(mine: Sides, theirs: Sides) -> float:
    if mine == theirs:
        return 1.0
    removed, added = (_ratio(*side) for side in zip(mine, theirs, strict=True))
    if all(theirs):
        return _harmonic(removed, added)
    return _ratio([f"-{x}" for x in mine[0]] + mine[1], [f"-{x}" for x in theirs[0]] + theirs[1])


def _harmonic(removed: float, added: float) -> float:
    return 2 * removed * added / (removed + added) if removed and added else 0.0


def _ratio(mine: list[str], theirs: list[str]) -> float:
    return SequenceMatcher(None, mine, theirs, autojunk=False).ratio() if mine and theirs else 0.0


def changed_tokens(patch: str, solution: str) -> float:
    return _of_sides(patch, solution, _of_tokens)


def _of_tokens(mine: Sides, theirs: Sides) -> float:
    if mine == theirs:
        return 1.0
    (removed, added), (their_removed, their_added) = _net(*mine), _net(*theirs)
    if their_removed and their_added:
        return _harmonic(_dice(removed, their_removed), _dice(added, their_added))
    return _dice(_signed(removed, added), _signed(their_removed, their_added))


def _net(removed: list[str], added: list[str]) -> tuple[Counter[str], Counter[str]]:
    """The tokens that only one side has, by their order."""
    old, new = _tokens(removed), _tokens(added)
    gone: Counter[str] = Counter()
    come: Counter[str] = Counter()
    for what, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what != "equal":
            gone.update(old[a:b])
            come.update(new[c:d])
    return gone, come


def _tokens(lines: list[str]) -> list[str]:
    return [token for line in lines for token in TOKEN.findall(COMMENT.sub("", line))][:LINES]


def _dice(mine: Counter[str], theirs: Counter[str]) -> float:
    total = mine.total() + theirs.total()
    return 2 * (mine & theirs).total() / total if total else 0.0


def _signed(removed: Counter[str], added: Counter[str]) -> Counter[str]:
    return Counter({f"{sign}{t}": n for sign, side in (("-", removed), ("+", added)) for t, n in side.items()})


def swe_rl(patch: str, solution: str) -> float:
    mine, theirs = _hunks(patch), _hunks(solution)
    if not mine and not theirs:
        return 1.0
    return _over_union(mine, theirs, lambda a, b: SequenceMatcher(None, a, b, autojunk=False).ratio())


def _hunks(patch: str) -> dict[str, str]:
    """Path -> its hunks as the package `unidiff` writes them; nothing where it cannot read the patch."""
    from unidiff import PatchSet

    files = {}
    try:
        for part in PatchSet(patch):
            if part.is_binary_file:
                continue
            path, header = part.path, ""
            if part.is_rename:
                path, target = part.source_file.removeprefix("a/"), part.target_file.removeprefix("b/")
                header = f"rename from {path} to {target}"
            files[path] = "\n".join([header, *(str(hunk).strip() for hunk in part)]).strip()
    except Exception:  # it raises UnboundLocalError and others, besides its own; SWE-RL drops the patch then, too
        return {}
    return files


def predecessor(patch: str, solution: str) -> float:
    mine, theirs = _raw(patch), _raw(solution)
    ratios = [SequenceMatcher(None, text, mine[path]).ratio() for path, text in theirs.items() if path in mine]
    return sum(ratios) / (max(len(theirs), len(mine)) or 1)


def _raw(patch: str) -> dict[str, str]:
    parts = [part.strip() for part in re.split(r"(?=^diff --git)", patch, flags=re.MULTILINE) if part.strip()]
    named = [(re.search(r"diff --git a/(.*) b/", part.splitlines()[0]), part) for part in parts]
    return {match[1] if match else "": part for match, part in named}


Side = TypeVar("Side")


def _over_union(mine: Mapping[str, Side], theirs: Mapping[str, Side], ratio: Callable[[Side, Side], float]) -> float:
    paths = {**mine, **theirs}
    if not mine or not theirs:
        return 0.0
    return fmean(ratio(mine[path], theirs[path]) if path in mine and path in theirs else 0.0 for path in paths)


DEFINITIONS: dict[str, Callable[[str, str], float]] = {
    "changed_lines": changed_lines,
    "changed_tokens": changed_tokens,
    "swe_rl": swe_rl,
    "predecessor": predecessor,
}
