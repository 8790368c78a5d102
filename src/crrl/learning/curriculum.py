"""The tasks of every training step, and those held out: a function of the configuration and the seed.

Nothing is drawn during the run, so step k has the same tasks in a run that was killed and resumed.
"""

from __future__ import annotations

import random
from pathlib import Path

from crrl.conf.schema import Config
from crrl.errors import CrrlError
from crrl.task import Task
from crrl.tasks.generator.generate import generate

HELD_OUT = "held_out"


class Curriculum:
    """`step(k)`: the tasks of step k, one per group. `held_out()`: split -> tasks, disjoint from every step's.

    Args:
        trains: False: evaluation only, which may hold out all tasks of a file.
    """

    def __init__(self, config: Config, *, trains: bool = True) -> None:
        self._config, self._trains = config, trains
        self._file: list[Task] = []
        self.notes: list[str] = []
        if config.corpus.name != "generated":
            self._file = self._read(Path(config.corpus.name))

    def step(self, step: int) -> list[Task]:
        config = self._config
        first = step * config.objective.groups_per_step
        indices = range(first, first + config.objective.groups_per_step)
        if not self._file:
            return [generate("train", config.seed, index, config.corpus.rl_share) for index in indices]
        tasks = self._file[config.corpus.held_out :]
        return [self._epoch(index // len(tasks), tasks)[index % len(tasks)] for index in indices]

    def held_out(self) -> dict[str, list[Task]]:
        evaluation = self._config.evaluation
        if self._file:
            return {HELD_OUT: self._file[: self._config.corpus.held_out][: evaluation.tasks_per_split]}
        count = range(evaluation.tasks_per_split)
        return {split: [generate(split, self._config.seed, i) for i in count] for split in evaluation.splits}

    def training(self) -> list[Task]:
        """The tasks of a task file that are trained on."""
        return self._file[self._config.corpus.held_out :]

    def images(self) -> list[str]:
        """The container images of the run's tasks."""
        return sorted({task.source.image for task in self._file if task.source.image is not None})

    def _epoch(self, epoch: int, tasks: list[Task]) -> list[Task]:
        return random.Random(f"epoch/{self._config.seed}/{epoch}").sample(tasks, len(tasks))

    def _read(self, path: Path) -> list[Task]:
        from crrl.tasks.files import load_tasks

        tasks, problems = load_tasks(path)
        self.notes += [str(problem) for problem in problems]
        random.Random(f"split/{self._config.seed}").shuffle(tasks)
        if self._trains and len(tasks) <= self._config.corpus.held_out:
            fewer = f"Write corpus.held_out=N with N below {len(tasks)}, or add tasks."
            raise CrrlError(
                f"{path} has {len(tasks)} usable tasks, and corpus.held_out={self._config.corpus.held_out} of them "
                "are held out for evaluation: none is left to train on.",
                "Add tasks." if len(tasks) == 1 else fewer,
            )
        return tasks
