"""What DAPO adds to the loss: groups without spread replaced in order, and the penalty of long episodes, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_source import CENTRED, Client, config, episode, group, hashes, source

from crrl.conf.schema import Config
from crrl.gateway.api import Sample
from crrl.learning.dynamic_sampling import complete, tasks_beyond
from crrl.learning.overlong import Overlong
from crrl.learning.source import has_spread, step_batch
from crrl.rollout.api import Episode, Group
from crrl.rollout.journal import Journal


def completed(planned: list[Group], later: list[Group], most: int) -> tuple[list[str], set[str], list[tuple[int, int]]]:
    """Ids of all groups in order, of those replaced, and what was asked for."""
    asked: list[tuple[int, int]] = []

    def more(first: int, count: int) -> list[Group]:
        asked.append((first, count))
        return [later.pop(0) for _ in range(count)]

    groups, replaced = complete(planned, has_spread, most, more)
    return [g.id for g in groups], replaced, asked


def test_groups_without_spread_are_replaced_in_order() -> None:
    """b and c give no gradient; of their replacements, d does and e does not, so f comes for e."""
    planned = [group("a", 1, 0), group("b", 1, 1), group("c", 0, None)]
    later = [group("d", 0, 1), group("e", 0, 0), group("f", 1, 0)]
    got = completed(planned, later, 8)
    assert got == (["a", "b", "c", "d", "e", "f"], {"b", "c", "e"}, [(3, 2), (5, 1)])


def test_no_more_groups_than_are_allowed() -> None:
    """The first ones are replaced; those that are left count as without dynamic sampling."""
    planned = [group("a", 0, 0), group("b", 1, 1), group("c", 0, 0)]
    got = completed(planned, [group("d", 1, 0), group("e", 0, 0)], 2)
    assert got == (["a", "b", "c", "d", "e"], {"a", "b"}, [(3, 2)])
    assert completed([group("a", 1, 1)], [group("b", 1, 1)], 1) == (["a", "b"], {"a"}, [(1, 1)])
    assert completed([group("a", 1, 0)], [], 8) == (["a"], set(), [])


def test_a_replaced_group_counts_in_no_mean_of_the_loss() -> None:
    groups = [group("a", 1, 0), group("b", 1, 1, 1), group("d", 0, 1)]
    batch = step_batch(groups, CENTRED, replaced={"b"})
    assert batch.episodes == 4 and {row.group for row in batch.rows} == {"a", "d"}
    assert batch.metrics["reward"] == pytest.approx(5 / 7), "what was tried is reported, all of it"
    assert batch.metrics["groups_replaced"] == 1 and batch.metrics["groups_no_spread"] == 1
    assert "groups_replaced" not in step_batch(groups, CENTRED).metrics


def test_tasks_of_appended_groups_are_a_function_of_seed_step_and_number() -> None:
    made = Config(seed=3)
    together = tasks_beyond(made, [], 2, 8, 4)
    apart = tasks_beyond(made, [], 2, 8, 1) + tasks_beyond(made, [], 2, 9, 3)
    assert [t.id for t in together] == [t.id for t in apart] and len({t.id for t in together}) == 4
    others = [*tasks_beyond(made, [], 1, 8, 4), *tasks_beyond(Config(seed=4), [], 2, 8, 4)]
    assert not {t.id for t in together} & {t.id for t in others}
    file = together[:3]
    few = tasks_beyond(made, file, 5, 4, 7)  # more than there are
    assert len(few) == 7 and {t.id for t in few[:3]} == {t.id for t in file}
    assert [t.id for t in few[2:4]] == [t.id for t in tasks_beyond(made, file, 5, 6, 2)]


# Overlong shaping -------------------------------------------------------------------------------------------------


def long_episode(name: str, tokens: int, reward: float) -> Episode:
    """Of two calls: all that is sampled counts."""
    first = tokens // 3
    samples = [
        Sample("a", name, None, [1], [7] * first, [-1.0] * first, [0] * first),
        Sample("b", name, "a", [9], [7] * (tokens - first), [-1.0] * (tokens - first), [0] * (tokens - first)),
    ]
    return episode(name, reward, samples=samples)


@pytest.mark.parametrize(
    ("tokens", "penalty"), [(3, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0), (140, -1.0)]
)
def test_the_penalty(tokens: int, penalty: float) -> None:
    """A budget of 100 tokens, of which the last 20 cost 0.05 each."""
    assert Overlong(100, 0.2)(long_episode("e", tokens, 1.0)) == pytest.approx(penalty)


def test_advantages_see_the_penalty_and_nothing_else_does() -> None:
    """Rewards 1 and 0, of which the first ran over half of the soft part: 0.5 and 0, centred: 0.25 and -0.25."""
    found = Group("g", "t", [long_episode("e", 90, 1.0), long_episode("f", 50, 0.0)])
    batch = step_batch([found], CENTRED, overlong=Overlong(100, 0.2))
    assert [row.advantage for row in batch.rows] == pytest.approx([0.25, -0.25])
    assert batch.metrics["reward"] == 0.5 and batch.metrics["overlong"] == -0.25
    assert "overlong" not in step_batch([found], CENTRED).metrics


def test_length_alone_gives_no_gradient_and_may_take_one_away() -> None:
    equal = Group("g", "t", [long_episode("e", 90, 0.0), long_episode("f", 50, 0.0)])
    assert step_batch([equal], CENTRED, overlong=Overlong(100, 0.2)).metrics["groups_no_spread"] == 1
    level = Group("g", "t", [long_episode("e", 100, 1.0), long_episode("f", 50, 0.0)])
    batch = step_batch([level], CENTRED, overlong=Overlong(100, 0.2))
    assert [row.advantage for row in batch.rows] == [0.0, 0.0]


# In a run ---------------------------------------------------------------------------------------------------------


def test_a_killed_run_appends_the_same_groups(tmp_path: Path) -> None:
    """Groups of two attempts often have one reward, so several are appended, in rounds."""
    made = config(group_size=2, dynamic_sampling=5)
    with Journal.create(tmp_path / "whole", {}) as journal:
        wanted = source(journal, client := Client(), made)(4)
        (step,) = journal.steps()
        total = len(client.ran)
    appended = [group for group in step.groups if int(group.split("/")[-1]) >= 3]
    assert step.groups == [f"train/4/{g}" for g in range(3 + len(appended))] and len(step.tasks) == len(step.groups)
    assert 1 < len(appended) <= 5 and wanted.metrics["groups_replaced"] == len(appended)
    for killed in range(0, total, 3):
        folder = tmp_path / str(killed)
        with Journal.create(folder, {}) as journal, pytest.raises(KeyboardInterrupt):
            source(journal, Client(1, fail_after=killed), made)(4)
        with Journal.open(folder) as journal:
            again = source(journal, Client(2), made)
            batch = again(4)
            assert journal.steps() == [step]
            assert hashes(batch) == hashes(wanted) and batch.episodes == wanted.episodes
            journal.step_trained(4, batch.metrics, again.trained)


def test_without_it_no_group_is_appended(tmp_path: Path) -> None:
    with Journal.create(tmp_path, {}) as journal:
        source(journal, Client(), config(group_size=2))(4)
        (step,) = journal.steps()
    assert len(step.groups) == 3
