"""Asynchrony in virtual time: log-normal episodes, an injected clock, and two bugs put in on purpose.

The rollouts here are a simulation with the client's interface; the source, the plan and the journal are the real ones.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean

import pytest

from crrl.conf.schema import Config
from crrl.errors import CrrlError
from crrl.gateway.api import Sample
from crrl.learning.curriculum import Curriculum
from crrl.learning.replay import replay
from crrl.learning.rows import row_hash
from crrl.learning.source import RolloutSource, StepBatch, step_batch
from crrl.rewards.api import Verdict
from crrl.rollout.api import Attempt, Episode, Group
from crrl.rollout.journal import TRAIN, Journal
from crrl.task import Task
from crrl.tasks.generator.generate import generate

GROUPS, SIZE, STEPS, SLOTS, UPDATE_S = 4, 4, 16, 32, 10.0
TASKS = [generate("train", 1, index) for index in range(8)]


class FewTasks(Curriculum):
    """Generating hundreds of tasks is what would take the time here."""

    def step(self, step: int) -> list[Task]:
        return [TASKS[(step * GROUPS + g) % len(TASKS)] for g in range(GROUPS)]


class Rollouts:
    """Runs attempts in virtual time, `SLOTS` at once, in the order in which they were started. An episode lasts
    log-normally long (sigma = 1), and has a token for each of its seconds, each by the policy of that moment."""

    def __init__(self) -> None:
        self.now, self.version = 0.0, 0
        self.pushes = [(0.0, 0)]
        self.waiting: list[tuple[Attempt, Callable[[Episode], None]]] = []
        self.running: list[tuple[float, str, float, Attempt, Callable[[Episode], None]]] = []
        self.started: list[str] = []
        self.unfinished: set[str] = set()

    def start(self, attempts: list[Attempt], keep: Callable[[Episode], None]) -> None:
        self.waiting += [(attempt, keep) for attempt in attempts]
        self.unfinished |= {attempt.id for attempt in attempts}
        self._fill()

    def wait(self, ids: list[str]) -> None:
        while not self.unfinished.isdisjoint(ids):
            self._next()

    def update(self, seconds: float) -> None:
        """The trainer computes; then its weights go live."""
        until = self.now + seconds
        while self.running and self.running[0][0] <= until:
            self._next()
        self.now, self.version = until, self.version + 1
        self.pushes.append((self.now, self.version))

    def _fill(self) -> None:
        while self.waiting and len(self.running) < SLOTS:
            attempt, keep = self.waiting.pop(0)
            self.started.append(attempt.id)
            heapq.heappush(self.running, (self.now + length_of(attempt.id), attempt.id, self.now, attempt, keep))

    def _next(self) -> None:
        self.now, id, began, attempt, keep = heapq.heappop(self.running)
        moments = [began + second for second in range(max(1, round(self.now - began)))]
        versions = [max(v for at, v in self.pushes if at <= moment) for moment in moments]
        sample = Sample("a", id, None, [1], [2] * len(versions), [-1.0] * len(versions), versions)
        solved = random.Random(f"{id}/solved").random() < 0.5
        keep(
            Episode(
                *(id, attempt.group, attempt.task.id, attempt.attempt, attempt.seed, "scored"),
                samples=[sample],
                verdict=Verdict(float(solved), solved=solved),
            )
        )
        self.unfinished.remove(id)
        self._fill()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Rollouts, list[StepBatch]]]:
    """A whole run with this staleness, made once."""
    return cache(lambda staleness: run(tmp_path_factory.mktemp("runs") / "run", staleness))


Done = Callable[[int], tuple[Rollouts, list[StepBatch]]]


def length_of(id: str) -> float:
    return 20 * random.Random(f"{id}/length").lognormvariate(0, 1)


def run(folder: Path, staleness: int, made_by: type[RolloutSource] = RolloutSource) -> tuple[Rollouts, list[StepBatch]]:
    config = Config(seed=1)
    config.objective.groups_per_step, config.objective.group_size = GROUPS, SIZE
    config.rollout.staleness, config.trainer.max_steps = staleness, STEPS
    rollouts, batches = Rollouts(), []
    with Journal.create(folder, {}) as journal:
        source = made_by(config, FewTasks(config), rollouts, journal, lambda _: None)
        for step in range(STEPS):
            batches.append(source(step))
            journal.step_trained(step, batches[-1].metrics, source.trained)
            rollouts.update(UPDATE_S)
        assert replay(journal.episodes(), journal.trained_rows()).exact
    return rollouts, batches


def lengths_are_not_biased(batches: list[StepBatch], rollouts: Rollouts) -> None:
    """What was trained, at every step and over all of them, is as long as what was started for it."""
    for step, batch in enumerate(batches):
        planned = [f"train/{step}/{g}/{k}" for g in range(GROUPS) for k in range(SIZE)]
        assert set(planned) <= set(rollouts.started)
        trained = {row.group for row in batch.rows}
        wanted = [length_of(id) for id in planned if id.rpartition("/")[0] in trained]
        assert mean(len(r.ids) for r in batch.rows) == pytest.approx(mean(wanted), abs=2.0)


def nothing_is_dropped(batches: list[StepBatch], rollouts: Rollouts) -> None:
    """Every attempt that ran is in the batch of its step: trained, or in a group without spread."""
    assert len(rollouts.started) == len(set(rollouts.started)) == STEPS * GROUPS * SIZE
    for batch in batches:
        assert batch.episodes == GROUPS * SIZE
        assert batch.metrics["groups_trained"] + batch.metrics["groups_no_spread"] == GROUPS


@pytest.mark.parametrize("staleness", [0, 1, 2, 4])
def test_each_step_trains_on_its_own_groups_within_the_bound(done: Done, staleness: int) -> None:
    rollouts, batches = done(staleness)
    lengths_are_not_biased(batches, rollouts)
    nothing_is_dropped(batches, rollouts)
    for step, batch in enumerate(batches):
        order = [row.episode for row in batch.rows]
        assert order == sorted(order) and all(id.startswith(f"train/{step}/") for id in order)
        versions = {v for row in batch.rows for v in row.versions if v >= 0}
        assert max(0, step - staleness) <= min(versions) <= max(versions) <= step
        assert batch.metrics["staleness_max"] == step - min(versions)
    met = max(batch.metrics["staleness_max"] for batch in batches)
    assert met == staleness  # the bound is used, and kept


def test_the_tokens_of_one_episode_may_have_several_versions(done: Done) -> None:
    _, batches = done(2)
    assert any(len({v for v in row.versions if v >= 0}) == 3 for batch in batches for row in batch.rows)


def test_episodes_per_hour(done: Done) -> None:
    """The promise that asynchrony makes where the engine is not saturated."""
    took = [done(s)[0].now for s in (0, 1, 2)]
    assert took[0] / took[1] > 1.5 and took[0] / took[2] > 2.0
    assert took[0] == pytest.approx(  # synchronous: each step's slowest, and the update
        sum(max(length_of(f"train/{s}/{g}/{k}") for g in range(GROUPS) for k in range(SIZE)) for s in range(STEPS))
        + STEPS * UPDATE_S
    )


def test_groups_are_appended_in_order_and_again_after_a_kill(tmp_path: Path) -> None:
    """Dynamic sampling, two steps ahead: a step's appended groups start when it is waited for, and are in its plan."""
    config = Config(seed=1)
    config.objective.groups_per_step, config.objective.group_size, config.objective.dynamic_sampling = GROUPS, SIZE, 3
    config.rollout.staleness, config.trainer.max_steps = 2, 5
    plans, rows, rollouts = [], [], Rollouts()
    for kill in (True, False):  # the journal as it was, rollouts and source anew: every step is taken again
        with Journal.create(tmp_path, {}) if kill else Journal.open(tmp_path) as journal:
            rollouts = Rollouts()
            source = RolloutSource(config, FewTasks(config), rollouts, journal, lambda _: None)
            batches = []
            for step in range(5):
                batches.append(source(step))
                rollouts.update(UPDATE_S)
            plans.append([(s.groups, s.tasks) for s in journal.steps()])
            rows.append([[row_hash(row) for row in batch.rows] for batch in batches])
            for step, batch in enumerate(batches):
                groups = [f"train/{step}/{g}" for g in range(len(plans[-1][step][0]))]
                assert plans[-1][step][0] == groups and len(set(plans[-1][step][1])) == len(groups)
                assert batch.metrics["groups_replaced"] == len(groups) - GROUPS
                assert batch.metrics.get("staleness_max", 0) <= 2
    assert plans[0] == plans[1] and rows[0] == rows[1] and rollouts.started == []
    assert any(len(groups) > GROUPS for groups, _ in plans[0])


# Bugs put in on purpose ---------------------------------------------------------------------------------------


class FirstFinishedFirst(RolloutSource):
    """Trains on the groups that have finished first, whose ever they are."""

    trained_on: frozenset[str] = frozenset()

    def __call__(self, step: int) -> StepBatch:
        super().__call__(step)
        finished = Counter(row.group for row in self._journal.outline(TRAIN))  # in the order of arrival
        whole = [group for group, members in finished.items() if members == SIZE and group not in self.trained_on]
        first = whole[:GROUPS]
        self.trained_on |= set(first)
        batch = step_batch([Group(group, "", self._journal.group(group)) for group in first], self._advantage)
        self.trained = batch.trained
        return batch


class DroppedWhenStale(RolloutSource):
    """Leaves out the members that are older than the policy."""

    def _finished(self, attempts: list[Attempt]) -> list[Group]:  # type: ignore[override]
        now = max(version for _, version in self._client.pushes)  # type: ignore[attr-defined]
        return [
            Group(g.id, g.task, [e for e in g.episodes if min(e.samples[0].versions) >= now - 1])
            for g in super()._finished(attempts)
        ]


def test_first_finished_first_is_a_length_bias(tmp_path: Path) -> None:
    rollouts, batches = run(tmp_path / "run", 2, FirstFinishedFirst)
    with pytest.raises(AssertionError):
        lengths_are_not_biased(batches, rollouts)


def test_dropped_when_stale_is_seen(tmp_path: Path) -> None:
    rollouts, batches = run(tmp_path / "run", 3, DroppedWhenStale)
    with pytest.raises(AssertionError):
        nothing_is_dropped(batches, rollouts)


def test_a_version_out_of_bounds_stops_the_run(tmp_path: Path) -> None:
    """An engine that does not take a push, or that somebody else pushes to."""

    class Stuck(Rollouts):
        def update(self, seconds: float) -> None:
            super().update(seconds)
            self.pushes.pop()

    config = Config(seed=1)
    config.objective.groups_per_step, config.objective.group_size, config.rollout.staleness = GROUPS, SIZE, 1
    rollouts = Stuck()
    with Journal.create(tmp_path / "run", {}) as journal:
        source = RolloutSource(config, FewTasks(config), rollouts, journal, lambda _: None)
        for step in range(2):
            source(step)
            rollouts.update(1.0)
        with pytest.raises(CrrlError, match=r"rollout\.staleness=1 allows 1 to 2"):
            source(2)
