"""Trackio: SQLite on this machine (`trackio show`), or a Space or server that its own variables name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas
import trackio

from crrl.report.trackers.api import COLUMNS, TrackedRun


class TrackioTracker:
    def __init__(self, run: TrackedRun) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
            self._run = trackio.init(
                project=run.settings.project,
                name=f"{run.name}-{run.id[:8]}",  # a name is the identity of a run here
                config=dict(run.config),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def episodes(self, step: int, rows: Sequence[Sequence[str | float]]) -> None:
        table = pandas.DataFrame([list(row) for row in rows], columns=list(COLUMNS))
        self._run.log({"episodes": trackio.Table(dataframe=table)}, step=step)

    def checkpoint(self, step: int, folder: Path) -> None:
        self._run.log_artifact(folder, name="policy", type="model", aliases=[f"step-{step}"])

    def close(self, failed: bool) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()
