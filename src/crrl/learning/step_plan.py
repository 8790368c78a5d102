"""The plan of a run: which attempts each step trains on, recorded before they start.

Keeps its part of invariants 8 and 10: the recorded plan is the authority. A step that the journal has planned is run as
it stands there, whatever the curriculum would say now. A new plan is a function of the configuration, the seed and, if
the curriculum adapts, the outcomes of steps < k - s: all of them are known when step k may start, whether or not
the run was killed in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import cycle

from crrl.conf.schema import Config
from crrl.learning import dynamic_sampling
from crrl.learning.curriculum import Curriculum
from crrl.rollout.api import Attempt
from crrl.rollout.journal import Journal
from crrl.task import Task


class StepPlan:
    def __init__(self, config: Config, curriculum: Curriculum, journal: Journal) -> None:
        self._config, self._curriculum, self._journal = config, curriculum, journal
        self._learnt = 0  # the curriculum knows the outcomes of so many steps

    def attempts(self, step: int) -> list[Attempt]:
        """Of the step's own groups, without those that dynamic sampling appends; recorded or not."""
        recorded = self._recorded(step)[: self._config.objective.groups_per_step]
        return self._attempts(step, recorded or self._new(step))

    def begin(self, step: int, version: int) -> list[Attempt]:
        """The same, recorded. `version`: of the policy that the first of them meets."""
        return self._record(step, self.attempts(step), version)

    def append(self, step: int, first: int, count: int) -> list[Attempt]:
        """The attempts of the groups number `first` and on, which are appended to the step."""
        tasks = self._recorded(step)[first : first + count]
        if len(tasks) < count:
            training = self._curriculum.leaders()
            tasks = dynamic_sampling.tasks_beyond(self._config, training, step, first, count)
        return self._record(step, self._attempts(step, tasks, first), version=step)

    def _recorded(self, step: int) -> list[Task]:
        return [self._curriculum.task(task) for _, task in self._journal.planned(step)]

    def _new(self, step: int) -> list[Task]:
        known = max(0, step - self._config.rollout.staleness)
        if self._curriculum.adapts:
            for earlier in range(self._learnt, known):
                groups = [group for group, _ in self._journal.planned(earlier)]
                self._curriculum.learn(self._journal.results(groups))
            self._learnt = max(self._learnt, known)
        return self._curriculum.step(step)

    def _record(self, step: int, attempts: list[Attempt], version: int) -> list[Attempt]:
        plan = dict(self._journal.planned(step)) | {a.group: a.task.id for a in attempts if a.attempt == 0}
        self._journal.plan_step(step, list(plan), version, list(plan.values()))
        return attempts

    def _attempts(self, step: int, tasks: Sequence[Task], first: int = 0) -> list[Attempt]:
        return [
            Attempt(
                id=f"train/{step}/{g}/{k}",
                group=f"train/{step}/{g}",
                task=task,
                attempt=k,
                seed=_seed(self._config.seed, task.id, f"{step}/{g}/{k}"),
                temperature=self._config.rollout.temperature,
            )
            for g, leader in enumerate(tasks, first)
            for k, task in zip(range(self._config.objective.group_size), cycle(self._curriculum.members(leader)))
        ]


def _seed(*parts: object) -> int:
    text = "\0".join(map(str, ("train", *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
