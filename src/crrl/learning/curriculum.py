"""The tasks of every training step, and those held out: a function of the configuration and the seed, and, under
`corpus.curriculum=adaptive`, of the outcomes that it was told (`step_plan.py` tells those that a step may know).

Nothing else is drawn during the run, so step k has the same tasks in a run that was killed and resumed.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crrl.conf.question_checks import check_questions
from crrl.conf.schema import Config
from crrl.errors import CrrlError, UsageError
from crrl.learning.difficulty import Difficulty
from crrl.rollout.journal import EpisodeRow
from crrl.task import Task
from crrl.tasks.asked import asked_of
from crrl.tasks.classification import units
from crrl.tasks.generator import weaknesses
from crrl.tasks.generator.generate import generate

HELD_OUT = "held_out"
VALIDATION_FROM = 1_000_000  # index of generated validation tasks: beyond any evaluation's
CANDIDATES = 4  # generated tasks that an adaptive curriculum chooses from, for each that it takes


class Curriculum:
    """`step(k)`: the tasks of step k, one per group; `members`: all tasks of its group. `held_out()`: split -> tasks,
    disjoint from every step's.

    Args:
        trains: False: evaluation only, which may hold out all tasks of a file.
    """

    def __init__(self, config: Config, *, trains: bool = True) -> None:
        self._config, self._trains = config, trains
        self._file: list[Task] = []
        self._held_out = 0  # tasks of the file; corpus.held_out, or one more where that would part a pair
        self.notes: list[str] = []
        if config.corpus.name != "generated":
            self._file = self._read(Path(config.corpus.name))
            check_questions(config.agent, {asked_of(task) for task in self._file})
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
        tasks = self.leaders()
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
            index = re.fullmatch(rf"generated-(?:\w+-)*train-{self._config.seed}-(\d+)(?:-[ab])?", id)
            group = self._generated_members(int(index[1])) if index else []
            found = next((task for task in group if task.id == id), None)
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
            held = self._file[: self._held_out]
            return held[evaluation.tasks_per_split :][: evaluation.validation_tasks]
        first = VALIDATION_FROM
        return [self._held("rl_instances", first + i) for i in range(evaluation.validation_tasks)]

    def training(self) -> list[Task]:
        """Those of a task file, in their order there; empty: they are generated."""
        return self._file[self._held_out :]

    def leaders(self) -> list[Task]:
        """Of the same, one for each group: of a pair of functions, its first."""
        return [unit[0] for unit in units(self.training())]

    def members(self, task: Task) -> list[Task]:
        """The tasks of the group that is planned as `task`, which comes first: of a pair of functions, both."""
        label = task.test.label
        if label is None or not label.pair:
            return [task]
        if self._file:
            both = [other for other in self.training() if other.test.label and other.test.label.pair == label.pair]
        else:
            both = self._generated_members(int(label.pair.rpartition("-")[2]))
        return sorted(both, key=lambda other: other.id != task.id)

    def held_out(self) -> dict[str, list[Task]]:
        evaluation = self._config.evaluation
        if self._file:
            return {HELD_OUT: self._file[: self._held_out][: evaluation.tasks_per_split]}
        count = range(evaluation.tasks_per_split)
        return {split: [self._held(split, i) for i in count] for split in evaluation.splits}

    def images(self) -> list[str]:
        """The container images of the run's tasks."""
        return sorted({task.source.image for task in self._file if task.source.image is not None})

    def _generated(self, index: int) -> Task:
        return self._generated_members(index)[0]

    def _generated_members(self, index: int) -> list[Task]:
        """Of group number `index`."""
        corpus, seed = self._config.corpus, self._config.seed
        if corpus.ask != "classify":
            return [generate("train", seed, index, corpus.rl_share, corpus.ask, corpus.functions)]
        both = weaknesses.versions("train", seed, index, corpus.rl_share)
        return shuffled_labels(both, seed) if corpus.shuffle_labels else both

    def _held(self, split: str, index: int) -> Task:
        corpus = self._config.corpus
        return generate(split, self._config.seed, index, ask=corpus.ask, functions=corpus.functions)

    def _chosen(self, step: int, count: int) -> list[Task]:
        """A weighted draw without replacement (Efraimidis and Spirakis 2006)."""
        first, wide = step * count * CANDIDATES, count * CANDIDATES
        tasks = self.leaders() or [self._generated(index) for index in range(first, first + wide)]
        rng = random.Random(f"adaptive/{self._config.seed}/{step}")
        keys = [rng.random() ** (1 / self._difficulty.weight(self._key(task))) for task in tasks]
        best = sorted(range(len(tasks)), key=lambda i: keys[i], reverse=True)
        return [tasks[best[i % len(tasks)]] for i in range(count)]

    def _key(self, task: Task) -> str:
        if not self._file:
            return task.family or ""
        return (task.test.label.pair if task.test.label is not None else "") or task.id

    def _epoch(self, epoch: int, tasks: list[Task]) -> list[Task]:
        return random.Random(f"epoch/{self._config.seed}/{epoch}").sample(tasks, len(tasks))

    def _read(self, path: Path) -> list[Task]:
        from crrl.tasks.files import load_tasks

        tasks, problems = load_tasks(path)
        self.notes += [str(problem) for problem in problems]
        together = units(tasks)
        random.Random(f"split/{self._config.seed}").shuffle(together)
        tasks = [task for unit in together for task in unit]
        while self._held_out < min(len(tasks), self._config.corpus.held_out):  # no pair is parted
            self._held_out += len(together.pop(0))
        if self._trains and not together:
            fewer = f"Write corpus.held_out=N with N below {len(tasks)}, or add tasks."
            raise CrrlError(
                f"{path} has {len(tasks)} usable tasks, and corpus.held_out={self._config.corpus.held_out} of them "
                "are held out for evaluation: none is left to train on.",
                "Add tasks." if len(tasks) == 1 else fewer,
            )
        self._check_labels(path, together)
        if self._config.corpus.shuffle_labels:
            tasks[self._held_out :] = shuffled_labels(tasks[self._held_out :], self._config.seed)
        return tasks

    def _check_labels(self, path: Path, training: list[list[Task]]) -> None:
        """Settings of classification need functions with a label; a group of a pair needs attempts at both."""
        if not self._trains:
            return
        labelled = any(unit[0].test.label is not None for unit in training)
        paired, objective = any(len(unit) > 1 for unit in training), self._config.objective
        if self._config.corpus.shuffle_labels and not labelled:
            raise UsageError(
                f"corpus.shuffle_labels=true: {path} has no labels.", "Leave it out, or objective.shuffle_rewards=true."
            )
        if objective.pair and not paired:
            raise UsageError(f"objective.pair={objective.pair:g}: {path} has no pairs of functions.", "Leave it out.")
        if paired and (objective.group_size < 4 or objective.group_size % 2):
            raise UsageError(
                f"objective.group_size={objective.group_size}: a group has as many attempts at both versions of a "
                "pair.",
                "Write an even number from 4 on.",
            )


def shuffled_labels(tasks: Sequence[Task], seed: int) -> list[Task]:
    """The control: what is true is dealt out at random. Of a pair, a coin says which version is vulnerable; functions
    that stand alone swap with others."""
    alone = [task for task in tasks if task.test.label is not None and not task.test.label.pair]
    dealt = [task.test.label.vulnerable for task in alone if task.test.label is not None]
    random.Random(f"labels/{seed}").shuffle(dealt)
    said = dict(zip((task.id for task in alone), dealt, strict=True))
    made = []
    for task in tasks:
        label = task.test.label
        if label is not None:
            heads = random.Random(f"labels/{seed}/{label.pair}").random() < 0.5
            vulnerable = said.get(task.id, label.vulnerable is heads)
            task = replace(task, test=replace(task.test, label=replace(label, vulnerable=vulnerable)))
        made.append(task)
    return made
