"""What became of candidates: each is counted under a reason, with a line that says why, and never ends the run.

What was refused is kept in the work file and not met again; what may have been the machine is tried again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from crrl.console.display import Display
from crrl.errors import CrrlError, LostError

LATER = frozenset({"lost", "timed out", "no network"})
"""It may be the machine: tried again when the command is given again."""
NETWORK = (
    "dns error",
    "failed to fetch",
    "connection",
    "network is unreachable",
    "could not resolve host",
)
SHOWN, LONG = 5, 240


@dataclass(frozen=True)
class Refused:
    """`reason`: what it is counted under; `why`: in one line, what happened."""

    reason: str
    why: str = ""

    @staticmethod
    def by(error: Exception) -> Refused:
        """What one candidate has brought about: a set-up, a judged run or an operator that failed on it."""
        why = " ".join(str(error).split())[:LONG]
        if isinstance(error, LostError):
            return Refused("lost", why)
        if isinstance(error, CrrlError):
            offline = any(sign in str(error).lower() for sign in NETWORK)
            return Refused("no network" if offline else "unavailable", why)
        return Refused(f"skipped: {type(error).__name__}", why)

    def kept(self) -> dict[str, Any]:
        return {"refused": [self.reason, self.why]}


@dataclass
class Outcomes:
    """`counts`: reason -> candidates; `whys`: the same, line by line."""

    counts: Counter[str] = field(default_factory=Counter)
    whys: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, end: Refused | None) -> None:
        """None: it was admitted."""
        self.counts[end.reason if end is not None else "admitted"] += 1
        if end is not None and end.why:
            self.whys.setdefault(end.reason, Counter())[end.why] += 1

    @property
    def refused(self) -> dict[str, int]:
        return {reason: number for reason, number in self.counts.most_common() if reason != "admitted"}

    def tell(self, display: Display) -> None:
        """The commonest reasons, each with its commonest line."""
        for reason, number in list(self.refused.items())[:SHOWN]:
            why = self.whys.get(reason)
            display.note(f"{number} {reason}" + (f", most often: {why.most_common(1)[0][0]}" if why else ""))

    def said(self) -> str:
        return ", ".join(f"{number} {reason}" for reason, number in self.counts.most_common())


def refused(kept: Any) -> Refused | None:
    """What a work file kept of a candidate, if it was refused."""
    return Refused(*kept["refused"]) if isinstance(kept, dict) and "refused" in kept else None
