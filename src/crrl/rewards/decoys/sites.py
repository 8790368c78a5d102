"""Where a test file can be made wrong: spans of its bytes, and what stands there instead. All else stays as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Edit:
    """Bytes `start` to `end` become `text`."""

    start: int
    end: int
    text: bytes


@dataclass(frozen=True)
class Site:
    """One assertion.

    Args:
        unit: the test it belongs to, by the name that its ids contain; a helper's own name; "" outside of any.
        edits: make it wrong.
    """

    unit: str
    edits: tuple[Edit, ...]


@dataclass
class Sites:
    """Of one file. `always`: edits of every copy, the real one included. Their order does not depend on chance."""

    found: list[Site] = field(default_factory=list)
    always: list[Edit] = field(default_factory=list)


def rewritten(data: bytes, edits: Iterable[Edit]) -> bytes:
    """`data` with the edits made. Of two that overlap, the first in the file is made."""
    parts, at = [], 0
    for edit in sorted(set(edits), key=lambda edit: (edit.start, edit.end)):
        if edit.start >= at:
            parts += [data[at : edit.start], edit.text]
            at = edit.end
    return b"".join([*parts, data[at:]])
