"""What a run shows its trackers, read from the journal after each step; nothing where the run has none."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crrl.conf.schema import Config
from crrl.learning.checkpoint import checkpoints
from crrl.report.trackers.api import TrackedRun
from crrl.report.trackers.fan_out import Trackers, tracked_config
from crrl.rollout.journal import Journal

ID = "tracker"
"""The journal's name for the id under which trackers know the run."""


class Tracking:
    """Raises CrrlError: a tracker cannot start. `step`: updates taken before this start."""

    def __init__(self, config: Config, folder: Path, journal: Journal, step: int, note: Callable[[str], None]) -> None:
        if config.tracker.name and ID not in journal.meta:
            journal.set_meta(ID, uuid.uuid4().hex)
        self._folder, self._journal, self._shown = folder, journal, self._latest(folder)
        self._trackers = Trackers(
            TrackedRun(
                id=journal.meta.get(ID, ""),
                name=config.run,
                folder=folder,
                config=tracked_config(config),
                settings=config.tracker,
                step=step,
            ),
            note,
        )
        self._failed = True

    def step(self, step: int, metrics: dict[str, float], tokenizer: Any) -> None:
        """The update of step `step` (0-based), after it was journalled."""
        self._trackers.log(step + 1, metrics)
        self._trackers.episodes(step + 1, lambda: self._groups(step), tokenizer)

    def evaluation(self, step: int, splits: dict[str, Any]) -> None:
        """One evaluation of the policy after `step` updates. `splits`: of `assemble({}, cells)`."""
        self._trackers.evaluation(step, splits)

    def checkpoint(self) -> None:
        """The newest checkpoint, if it was not shown before."""
        found = self._latest(self._folder)
        if found is not None and found != self._shown:
            self._shown = found
            self._trackers.checkpoint(int(re.findall(r"\d+", found.name)[-1]), found)

    def ended_well(self) -> None:
        self._failed = False

    def close(self) -> None:
        self._trackers.close(self._failed)

    def _groups(self, step: int) -> list[list[Any]]:
        planned = next((s.groups for s in self._journal.steps() if s.step == step), [])
        return [self._journal.group(group) for group in planned]

    @staticmethod
    def _latest(folder: Path) -> Path | None:
        return next(reversed(checkpoints(folder / "checkpoints")), None)
