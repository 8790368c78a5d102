"""TensorBoard: event files in `RUN/tensorboard`. `tensorboard --logdir runs` compares runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from torch.utils.tensorboard import SummaryWriter

from crrl.report.trackers.api import COLUMNS, TrackedRun


class TensorboardTracker:
    def __init__(self, run: TrackedRun) -> None:
        # What a killed run wrote of later steps is not shown.
        purge = run.step + 1 if run.step else None
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)
        if not run.step:
            self._writer.add_text("config", _code(yaml.safe_dump(dict(run.config), sort_keys=False)), 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def episodes(self, step: int, rows: Sequence[Sequence[str | float]]) -> None:
        for index, row in enumerate(rows):
            said = "\n\n".join(f"**{name}**\n\n{_code(str(value))}" for name, value in zip(COLUMNS, row, strict=True))
            self._writer.add_text(f"episodes/{index}", said, step)

    def checkpoint(self, step: int, folder: Path) -> None:
        """TensorBoard keeps no files: refused with the settings (`conf/checks.py`)."""

    def close(self, failed: bool) -> None:
        self._writer.close()


def _code(text: str) -> str:
    """As Markdown that is shown as it is: an indented block."""
    return "\n".join("    " + line for line in text.splitlines())
