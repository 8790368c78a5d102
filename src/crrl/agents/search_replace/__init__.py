"""Edits as search/replace blocks: read from an answer (`parse`), put on files (`apply`), made from two versions of a
file (`generate`).

    src/shop.py
    <<<<<<< SEARCH
        return price
    =======
        return price * count
    >>>>>>> REPLACE

The format of Aider and SWE-RL (arXiv:2502.18449). An empty SEARCH makes a new file. As in unified diffs, a line
`\\ No newline at end of file` says that the file ends without one. Where the code itself has lines that look like
markers, all three may be longer than seven characters.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_NEWLINE = "\\ No newline at end of file"


@dataclass(frozen=True)
class Reading:
    """Lines without their ends."""

    search: tuple[str, ...]
    replace: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """One block of an answer. `line`: of its opening marker, 1-based. `readings`: what it may mean, the likeliest
    first; several where code holds lines that look like the divider."""

    path: str
    readings: tuple[Reading, ...]
    line: int


@dataclass(frozen=True)
class Fault:
    """What is wrong with a block, in words that help to write a better one. `line`: of the answer, 1-based."""

    line: int
    message: str


class Inexpressible(ValueError):
    """No blocks make this change: nothing but line ends, or a path, that blocks cannot write."""
