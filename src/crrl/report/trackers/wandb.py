"""Weights & Biases. The key comes from `wandb login` or WANDB_API_KEY, never from a setting, and is written nowhere.

Offline (`tracker.offline=true`), a run keeps its files in `RUN/wandb`; `wandb sync RUN/wandb/offline-run-*` uploads
them. A resumed run continues the same run: its id is in the journal. Neither the command line, the environment, the
code, nor what is printed is sent, since each may hold secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import wandb

from crrl.errors import CrrlError
from crrl.report.trackers.api import COLUMNS, TrackedRun


class WandbTracker:
    """Raises CrrlError: not logged in, or the server cannot be reached."""

    def __init__(self, run: TrackedRun) -> None:
        nothing_private = wandb.Settings(
            silent=True,
            x_disable_meta=True,
            x_save_requirements=False,
            disable_git=True,
            disable_code=True,
            console="off",
        )
        offline = run.settings.offline
        try:
            self._run = wandb.init(
                project=run.settings.project,
                entity=run.settings.entity or None,
                id=run.id,
                name=run.name,
                dir=run.folder,
                config=dict(run.config),
                mode="offline" if offline else "online",
                # Offline files do not know the run before: `wandb sync` joins them by their id.
                resume=None if offline else "allow",
                settings=nothing_private,
            )
        except wandb.errors.Error as error:
            raise CrrlError(
                f"tracker=wandb cannot start: {str(error).strip().splitlines()[0]}",
                "Log in with `wandb login`, set WANDB_API_KEY, or write tracker.offline=true.",
            ) from error
        # Our own count of steps: a step that is redone after a kill is logged again.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({**metrics, "step": step})

    def episodes(self, step: int, rows: Sequence[Sequence[str | float]]) -> None:
        table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({"episodes": table, "step": step})

    def checkpoint(self, step: int, folder: Path) -> None:
        artifact = wandb.Artifact(f"policy-{self._run.id}", type="model", metadata={"step": step})
        artifact.add_dir(str(folder), policy="mutable")  # a copy: the run deletes old checkpoints
        self._run.log_artifact(artifact, aliases=["latest", f"step-{step}"])

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
