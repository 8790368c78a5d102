"""What a tracker is given, and what it does with it.

Invariant: a tracker only shows. The journal holds every number first; what a tracker does, or fails to do, changes no
run (`fan_out.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crrl.conf.schema import Tracker as Settings

COLUMNS = ("step", "episode", "task", "outcome", "reward", "solved", "exploits", "patch", "conversation")
"""Of the table of sampled episodes."""


@dataclass(frozen=True)
class TrackedRun:
    """The run as trackers see it.

    Args:
        id: of letters and digits, the same after each resume.
        folder: the run's; a tracker that keeps files keeps them here.
        config: the run's settings, without the values of the agent's environment and files.
        step: updates taken before this start; above 0, the run is resumed.
    """

    id: str
    name: str
    folder: Path
    config: Mapping[str, Any]
    settings: Settings
    step: int = 0


class Tracker(Protocol):
    """Made with a `TrackedRun`, before the first episode; a fault is raised there, and stops the run.

    Steps count from 1; step 0 is the policy before training. A step that is redone after a kill comes again."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers after so many updates, under the names of docs/metrics.md."""

    def episodes(self, step: int, rows: Sequence[Sequence[str | float]]) -> None:
        """A few of the step's episodes; columns: `COLUMNS`."""

    def checkpoint(self, step: int, folder: Path) -> None:
        """A checkpoint that was just written (with `tracker.checkpoints=true`). It may be deleted after the call."""

    def close(self, failed: bool) -> None:
        """Everything is sent. `failed`: an error or Ctrl-C ended the run."""
