"""The taxonomy of what can go wrong, and whose fault it is.

- `CrrlError`: the user can act on it. Carries what happened and the remedy; the command line prints both on
  one screen and exits 1 (`UsageError`: 2).
- `LostError`: our side of the wall failed during an episode (a box died under us, the engine went away). The
  one place that turns it into the outcome `lost` is `rollout/episode.py`.
Everything else is a bug of ours and is allowed to be a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CrrlError(Exception):
    """Something the user can put right.

    Args:
        message: what is wrong, naming the file, line, key or field.
        remedy: what to do or type instead; empty only where the message already says it.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class RunError(CrrlError):
    """No episode of the run can be what it should be: it stops, rather than score any."""


class UsageError(CrrlError):
    """The command line or a setting is wrong; nothing was started."""

    exit_code = 2


class LostError(Exception):
    """The infrastructure failed under an episode; the episode is retried and never scored.

    Args:
        cause: a short, stable slug for counting (`sandbox_died`, `engine_gone`, `judge_died`, `disk_full`...).
        detail: what a person wants to read.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail


def nearest(word: str, valid: Iterable[str]) -> str:
    """`Did you mean 'x' or 'y'?`, or the list of valid words where nothing is near."""
    names = sorted(valid)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "Valid: " + ", ".join(names) + "."
