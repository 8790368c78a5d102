"""The tasks of every training step, and those held out: a function of the configuration and the seed, and, under
`corpus.curriculum=adaptive`, of the outcomes that it was told (`step_plan.py` tells those that a step may know).

Nothing else is drawn during the run, so step k has the same tasks in a run that was killed and resumed.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from crrl.conf.schema import Config
from crrl.errors import CrrlError
from crrl.learning.difficulty import Difficulty
from crrl.rollout.journal import EpisodeRow
from crrl.task import Task
from crrl.tasks.generator.generate import generate

HELD_OUT = "held_out"
VALIDATION_FROM = 1_000_000  # index of generated validation tasks: beyond any evaluation's
CANDIDATES = 4  # generated tasks that an adaptive curriculum chooses from, for each that it takes


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
        self._by_id = {task.id: task for task in self._file}
        self.adapts = config.corpus.curriculum == "adaptive"
        self._difficulty = Difficulty(config.corpus.pass_rate_low, config.corpus.pass_rate_high)

    def step(self, step: int) -> list[Task]:
        count = self._config.objective.groups_per_step
        if self.adapts:
            return self._chosen(step, count)
        indices = range(step * count, (step + 1) * count)
        if not self._file:
            return [self._generated(index) for index in indices]
        tasks = self.training()
        return [self._epoch(index // len(tasks), tasks)[index % len(tasks)] for index in indices]

    def learn(self, results: Sequence[EpisodeRow]) -> None:
        """The outcomes of the next step, which later steps may know."""
        groups: dict[tuple[str, str], list[bool]] = defaultdict(list)
        for row in results:
            if row.outcome != "lost":
                groups[row.group, row.task].append(row.solved)
        for (_, task), solved in groups.items():
            self._difficulty.learn(self._key(self.task(task)), sum(solved), len(solved))

    def task(self, id: str) -> Task:
        """The training task with this id. Raises CrrlError: there is none (any more)."""
        if not self._file:
            index = re.fullmatch(rf"generated-train-{self._config.seed}-(\d+)", id)
            found = self._generated(int(index[1])) if index else None
        else:
            found = self._by_id.get(id)
        if found is None:
            raise CrrlError(
                f"The run planned to train on task {id}, and {self._config.corpus.name} does not have it.",
                "Restore the task file as it was when the run was started.",
            )
        return found

    def validation(self) -> list[Task]:
        """Tasks that are neither trained on nor evaluated on: of a task file those held out beyond the evaluated."""
        evaluation = self._config.evaluation
        if self._file:
            held = self._file[: self._config.corpus.held_out]
            return held[evaluation.tasks_per_split :][: evaluation.validation_tasks]
        first = VALIDATION_FROM
        return [self._held("rl_instances", first + i) for i in range(evaluation.validation_tasks)]

    def training(self) -> list[Task]:
        """Those of a task file, in their order there; empty: they are generated."""
        return self._file[self._config.corpus.held_out :]

    def held_out(self) -> dict[str, list[Task]]:
        evaluation = self._config.evaluation
        if self._file:
            return {HELD_OUT: self._file[: self._config.corpus.held_out][: evaluation.tasks_per_split]}
        count = range(evaluation.tasks_per_split)
        return {split: [self._held(split, i) for i in count] for split in evaluation.splits}

    def images(self) -> list[str]:
        """The container images of the run's tasks."""
        return sorted({task.source.image for task in self._file if task.source.image is not None})

    def _generated(self, index: int) -> Task:
        corpus = self._config.corpus
        return generate("train", self._config.seed, index, corpus.rl_share, corpus.ask)

    def _held(self, split: str, index: int) -> Task:
        return generate(split, self._config.seed, index, ask=self._config.corpus.ask)

    def _chosen(self, step: int, count: int) -> list[Task]:
        """A weighted draw without replacement (Efraimidis and Spirakis 2006)."""
        first, wide = step * count * CANDIDATES, count * CANDIDATES
        tasks = self.training() or [self._generated(index) for index in range(first, first + wide)]
        rng = random.Random(f"adaptive/{self._config.seed}/{step}")
        keys = [rng.random() ** (1 / self._difficulty.weight(self._key(task))) for task in tasks]
        best = sorted(range(len(tasks)), key=lambda i: keys[i], reverse=True)
        return [tasks[best[i % len(tasks)]] for i in range(count)]

    def _key(self, task: Task) -> str:
        return task.id if self._file else task.family or ""

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
