"""From groups to the rows of a step: who is compared, who is counted, and that a redone step is the same step."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from crrl import registry
from crrl.conf.schema import Config
from crrl.errors import CrrlError
from crrl.gateway.api import Sample
from crrl.learning import advantages
from crrl.learning.curriculum import Curriculum
from crrl.learning.rows import row_hash
from crrl.learning.source import RolloutSource, StepBatch, shuffled, step_batch
from crrl.rewards.api import Verdict
from crrl.rollout.api import Attempt, Episode, Group
from crrl.rollout.journal import TRAIN, Journal

CENTRED = advantages.centred
Reward = float | None  # None: lost


def episode(name: str, reward: Reward, group: str = "g", attempt: int = 0, version: int = 0, **fields) -> Episode:
    """Content is a function of the name: two samples of one conversation, by the policy `version`."""
    rng = random.Random(name)
    ids = [rng.randrange(50) for _ in range(rng.randint(3, 9))]
    logprobs = [-rng.random() for _ in ids]
    first = Sample("a", name, None, [1, 2], ids, logprobs, [version] * len(ids))
    second = Sample("b", name, "a", [9], [5], [-0.25], [version])
    verdict = None if reward is None else Verdict(reward, solved=reward >= 1)
    values = {"outcome": "lost" if reward is None else "scored", "samples": [first, second], **fields}
    return Episode(name, group, "task", attempt, 0, verdict=verdict, **values)


def group(name: str, *rewards: Reward) -> Group:
    return Group(name, "task", [episode(f"{name}/{i}", r, name, i) for i, r in enumerate(rewards)])


def hashes(batch: StepBatch) -> list[str]:
    return [row_hash(row) for row in batch.rows]


# Who is compared ----------------------------------------------------------------------------------------------


def test_a_lost_member_enters_neither_mean_nor_rows() -> None:
    batch = step_batch([group("g", 1, 1, 0, None)], CENTRED)
    assert {row.episode: row.advantage for row in batch.rows} == pytest.approx(
        {"g/0": 1 - 2 / 3, "g/1": 1 - 2 / 3, "g/2": -2 / 3}
    )
    assert batch.metrics["reward"] == pytest.approx(2 / 3) and batch.metrics["solved"] == pytest.approx(2 / 3)
    assert batch.episodes == 3
    assert (batch.metrics["episodes_scored"], batch.metrics["episodes_lost"]) == (3, 1)
    whole = step_batch([group("g", 1, 1, 0)], CENTRED)
    assert hashes(batch) == hashes(whole) and batch.episodes == whole.episodes


def test_a_lost_member_with_a_verdict_is_lost_all_the_same() -> None:
    late = episode("g/2", 1.0, attempt=2, outcome="lost")
    batch = step_batch([Group("g", "task", [*group("g", 1, 0).episodes, late])], CENTRED)
    assert {row.episode: row.advantage for row in batch.rows} == {"g/0": 0.5, "g/1": -0.5}
    assert batch.metrics["reward"] == 0.5 and batch.metrics["solved"] == 0.5 and batch.episodes == 2


def test_a_truncated_member_is_compared() -> None:
    cut = episode("g/1", 0.0, attempt=1, outcome="truncated")
    batch = step_batch([Group("g", "task", [episode("g/0", 1.0), cut])], CENTRED)
    assert {row.episode: row.advantage for row in batch.rows} == {"g/0": 0.5, "g/1": -0.5}
    assert batch.metrics["episodes_truncated"] == 1 and batch.metrics["episodes_scored"] == 1


def test_groups_that_cannot_teach_are_counted_and_weigh_in_the_mean() -> None:
    groups = [
        *(group("mixed", 1, 0), group("same", 1, 1), group("zero", 0, 0, None)),
        *(group("one", 1, None), group("none", None, None), group("empty")),
    ]
    batch = step_batch(groups, CENTRED)
    assert {row.group for row in batch.rows} == {"mixed"}
    kinds = {k: v for k, v in batch.metrics.items() if k.startswith("groups_")}
    assert kinds == {"groups_trained": 1, "groups_no_spread": 2, "groups_too_few": 3}
    assert batch.episodes == 7  # every scored one: a step's gradient does not grow as more groups agree
    assert batch.metrics["reward"] == pytest.approx(4 / 7)


def test_nothing_scored_is_a_step_without_rows() -> None:
    batch = step_batch([group("g", None, None)], CENTRED)
    assert (batch.rows, batch.trained, batch.episodes) == ([], [], 0)
    assert batch.metrics["reward"] == 0 and batch.metrics["episodes_lost"] == 2


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("centred", [1 / 3, 1 / 3, -2 / 3]),
        ("normalised", [a / (3**-0.5 + 1e-4) for a in (1 / 3, 1 / 3, -2 / 3)]),
        ("leave_one_out", [1 - 1 / 2, 1 - 1 / 2, 0 - 1]),
    ],
)
def test_advantages_on_paper(name: str, wanted: list[float]) -> None:
    advantage = registry.find("crrl.advantages", name).load()
    assert advantage([1.0, 1.0, 0.0]) == pytest.approx(wanted)
    assert [row.advantage for row in step_batch([group("g", 1, None, 1, 0)], advantage).rows] == pytest.approx(wanted)


def test_what_is_kept_of_each_row_is_its_name_hash_and_advantage() -> None:
    batch = step_batch([group("b", 1, 0), group("a", 0, 1)], CENTRED)
    assert [row.episode for row in batch.rows] == ["b/0", "b/1", "a/0", "a/1"]  # as the groups were given
    kept = [(t.episode, t.index, t.hash, t.advantage) for t in batch.trained]
    assert kept == [(row.episode, 0, row_hash(row), row.advantage) for row in batch.rows]


def test_shuffled_rewards_are_the_same_verdicts_dealt_to_other_members() -> None:
    groups = [group(f"g{i}", 1, 0, None, 0.5, 0.25) for i in range(20)]
    dealt = [shuffled(g, 7) for g in groups]
    assert dealt == [shuffled(g, 7) for g in groups]
    assert dealt != [shuffled(g, 8) for g in groups]
    orders = set()
    for before, after in zip(groups, dealt, strict=True):
        rewards = [e.verdict and e.verdict.reward for e in after.episodes]
        orders.add(tuple(rewards))
        assert rewards[2] is None and sorted(r for r in rewards if r is not None) == [0, 0.25, 0.5, 1]
        assert [(e.id, e.samples, e.outcome) for e in after.episodes] == [
            (e.id, e.samples, e.outcome) for e in before.episodes
        ]
    assert len(orders) > 5


# A step of a run ----------------------------------------------------------------------------------------------


class Client:
    """Gives ready episodes, in an order of arrival of its own; `fail_after`: the process dies then."""

    def __init__(self, arrival: int = 0, fail_after: int | None = None) -> None:
        self.arrival, self.fail_after = random.Random(arrival), fail_after
        self.ran: list[str] = []
        self.pending: list[tuple[Attempt, Callable[[Episode], None]]] = []

    def start(self, attempts: list[Attempt], keep: Callable[[Episode], None]) -> None:
        self.pending += [(attempt, keep) for attempt in attempts]

    def wait(self, ids: list[str]) -> None:
        self.arrival.shuffle(self.pending)
        while any(attempt.id in ids for attempt, _ in self.pending):
            if len(self.ran) == self.fail_after:
                raise KeyboardInterrupt
            attempt, keep = self.pending.pop()
            self.ran.append(attempt.id)
            rng = random.Random(f"{attempt.id}/{attempt.seed}/reward")
            reward = None if rng.random() < 0.2 else float(rng.random() < 0.5)
            version = int(attempt.id.split("/")[1])
            keep(episode(attempt.id, reward, attempt.group, attempt.attempt, version))


def config(**objective) -> Config:
    made = Config(seed=3)
    made.objective.groups_per_step, made.objective.group_size = 3, 4
    for name, value in objective.items():
        setattr(made.objective, name, value)
    return made


def source(journal: Journal, client: Client, made: Config | None = None) -> RolloutSource:
    made = made or config()
    return RolloutSource(made, Curriculum(made), client, journal, lambda _: None)


def test_rows_come_in_planned_order_whatever_arrives_first(tmp_path: Path) -> None:
    batches = []
    for arrival in (1, 2):
        with Journal.create(tmp_path / str(arrival), {}) as journal:
            batches.append(source(journal, Client(arrival))(5))
            (step,) = journal.steps()
            assert (step.step, step.version, step.state) == (5, 5, "planned")
            assert step.groups == ["train/5/0", "train/5/1", "train/5/2"]
            assert step.tasks == [task.id for task in Curriculum(config()).step(5)]
            assert len(journal.finished(TRAIN)) == 12
    assert hashes(batches[0]) == hashes(batches[1]) and batches[0].trained == batches[1].trained
    assert batches[0].metrics == batches[1].metrics and len(batches[0].rows) > 4
    order = [row.episode for row in batches[0].rows]
    assert order == sorted(order)


def test_a_killed_step_goes_on_and_a_redone_step_is_the_same(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "whole", {}) as journal:
        wanted = source(journal, Client())(2)
    with Journal.create(tmp_path / "run", {}) as journal, pytest.raises(KeyboardInterrupt):
        source(journal, first := Client(1, fail_after=5))(2)
    with Journal.open(tmp_path / "run") as journal:
        assert journal.finished(TRAIN) == set(first.ran)
        count: list[str] = []
        made = config()
        again = RolloutSource(made, Curriculum(made), second := Client(2), journal, lambda e: count.append(e.id))
        batch = again(2)
        assert len(first.ran + second.ran) == 12 and set(first.ran).isdisjoint(second.ran)
        assert count == second.ran  # those of before the kill were counted then
        assert hashes(batch) == hashes(wanted) and batch.metrics == wanted.metrics
        journal.step_trained(2, batch.metrics, again.trained)
    with Journal.open(tmp_path / "run") as journal:  # after the last checkpoint, so it is taken again
        redone = source(journal, third := Client(3))
        assert hashes(redone(2)) == hashes(wanted) and third.ran == []
        assert redone.trained == wanted.trained == journal.trained_rows(2)
        journal.step_trained(2, wanted.metrics, redone.trained)
        with pytest.raises(CrrlError, match="other rows"):
            journal.step_trained(2, wanted.metrics, redone.trained[::-1])


def test_the_control_run_shuffles_what_is_trained_and_not_what_is_kept(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "plain", {}) as journal:
        plain = source(journal, Client())(0)
        honest = [(e.id, e.verdict) for e in journal.episodes()]
    with Journal.create(tmp_path / "control", {}) as journal:
        made = config(shuffle_rewards=True)
        control = source(journal, Client(), made)(0)
        assert [(e.id, e.verdict) for e in journal.episodes()] == honest
        assert hashes(source(journal, Client(), made)(0)) == hashes(control)
    assert control.metrics == plain.metrics
    assert [row.ids for row in control.rows] == [row.ids for row in plain.rows]
    advantages = [[row.advantage for row in batch.rows] for batch in (plain, control)]
    assert advantages[0] != advantages[1] and sorted(advantages[0]) == pytest.approx(sorted(advantages[1]))


def test_attempts_are_functions_of_seed_step_group_and_attempt(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:
        one, other = source(journal, Client()), source(journal, Client(), config(group_size=2))
        attempts = one.attempts(7)
        assert attempts == source(journal, Client()).attempts(7)
        assert [(a.id, a.group, a.attempt) for a in attempts[3:6]] == [
            ("train/7/0/3", "train/7/0", 3),
            ("train/7/1/0", "train/7/1", 0),
            ("train/7/1/1", "train/7/1", 1),
        ]
        assert [a for a in attempts if a.attempt < 2] == other.attempts(7)
        assert all(a.task == Curriculum(config()).step(7)[int(a.group[-1])] for a in attempts)
        seeds = {a.seed for step in range(20) for a in one.attempts(step)}
        assert len(seeds) == 240 and all(0 <= seed < 2**64 for seed in seeds) and max(seeds) > 2**60
        elsewhere = config()
        elsewhere.seed = 4
        assert seeds.isdisjoint(a.seed for a in source(journal, Client(), elsewhere).attempts(7))
        elsewhere.rollout.temperature = 0.7
        assert {a.temperature for a in source(journal, Client(), elsewhere).attempts(0)} == {0.7}
