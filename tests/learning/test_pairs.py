"""Pairs of functions in training: one group, rewarded as a pair; what the bonus is, and that nothing parts a pair."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crrl.conf.load import load_recipe
from crrl.conf.schema import Config
from crrl.errors import CrrlError, UsageError
from crrl.label import Label
from crrl.learning.advantages import centred
from crrl.learning.curriculum import Curriculum, shuffled_labels
from crrl.learning.pairs import paired
from crrl.learning.source import step_batch
from crrl.learning.step_plan import StepPlan
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode, Group
from crrl.rollout.journal import Journal
from crrl.task import Task
from crrl.tasks.classification import function_task, pair_tasks
from crrl.tasks.files import write_tasks

PAIRS = [
    pair_tasks(f"p{n}", "c", "train", f"int f{n}() {{ gets(b); }}", f"int f{n}() {{ fgets(b); }}", "c", ["CWE-242"])
    for n in range(9)
]


def member(task: str, solved: bool | None, own: float = 0.0, attempt: int = 0) -> Episode:
    """`solved` is None: lost."""
    verdict = None if solved is None else Verdict(own, {"label": own}, solved=solved)
    outcome = "lost" if solved is None else "scored"
    return Episode(f"{task}{attempt}", "g", task, attempt, 0, outcome, verdict=verdict)


def group(old: list[bool | None], new: list[bool | None]) -> Group:
    both = [member("old", s, 0.5, n) for n, s in enumerate(old)] + [member("new", s, 0.5, n) for n, s in enumerate(new)]
    return Group("g", "", both)


def bonuses(made: Group, task: str) -> list[float]:
    return [e.verdict.reward - 0.5 for e in made.episodes if e.task == task and e.verdict is not None]


LABELS = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=5)


@given(LABELS, LABELS)
def test_the_bonus_is_the_mean_over_all_couples(old: list[bool | None], new: list[bool | None]) -> None:
    """By every way to couple an attempt with one at the other version; lost ones are in none."""
    made = paired(group(old, new), 2.0)
    scored = [[s for s in side if s is not None] for side in (old, new)]
    if not all(scored):
        assert made == group(old, new)
        return
    for mine, other, task in ((*scored, "old"), (*scored[::-1], "new")):
        expected = [2.0 * sum(m and o for o in other) / len(other) for m in mine]
        assert bonuses(made, task) == pytest.approx(expected)
    both_right = sum(a and b for a, b in itertools.product(*scored)) / (len(scored[0]) * len(scored[1]))
    for task in ("old", "new"):
        mean = sum(bonuses(made, task)) / len(bonuses(made, task))
        assert mean == pytest.approx(2.0 * both_right), "the same mean for both: P-C"
    assert [e.outcome for e in made.episodes] == [e.outcome for e in group(old, new).episodes]


def test_the_same_label_for_both_gets_nothing() -> None:
    for said in (True, False):
        made = paired(group([said] * 4, [not said] * 4), 5.0)
        assert not any(bonuses(made, "old") + bonuses(made, "new"))
        assert all(e.verdict is not None and e.verdict.components["pair"] == 0.0 for e in made.episodes)


def test_a_group_at_one_task_is_left_as_it_is() -> None:
    alone = Group("g", "", [member("t", s, 0.1, n) for n, s in enumerate([True, False, None])])
    assert paired(alone, 1.0) == alone


def test_what_is_paid_is_trained_on() -> None:
    """The pair reward alone gives a gradient, where each version's own rewards are equal."""
    raw = group([True, True, False, False], [True, False, False, False])
    assert step_batch([raw], centred).metrics["groups_no_spread"] == 1
    batch = step_batch([paired(raw, 1.0)], centred)
    assert batch.metrics["groups_trained"] == 1 and batch.metrics["reward/pair"] == pytest.approx(1 / 8)


# The curriculum -------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    alone = [function_task(f"s{n}", "c", "train", f"int g{n}();", "c", Label(n % 3 == 0)) for n in range(6)]
    tasks = [task for pair in PAIRS for task in pair]
    random.Random(0).shuffle(tasks)
    write_tasks(tmp_path / "tasks.jsonl", [*tasks[:9], *alone, *tasks[9:]])
    made = Config(seed=3)
    made.corpus.name, made.corpus.held_out = str(tmp_path / "tasks.jsonl"), 7
    made.objective.groups_per_step, made.objective.group_size = 3, 4
    return made


def generated() -> Config:
    made = Config(seed=3)
    made.corpus.ask = "classify"
    made.objective.groups_per_step, made.objective.group_size = 3, 4
    made.evaluation.tasks_per_split, made.evaluation.every = 10, 5
    return made


def pair_of(task: Task) -> str:
    assert task.test.label is not None
    return task.test.label.pair


@pytest.mark.parametrize("source", ["file", "generated"])
def test_both_versions_stand_in_one_group(source: str, config: Config, tmp_path: Path) -> None:
    config = config if source == "file" else generated()
    with Journal.create(tmp_path / "run", {}) as journal:
        plan = StepPlan(config, Curriculum(config), journal)
        seen = set()
        for step in range(4):
            attempts = plan.begin(step, version=step)
            groups: dict[str, list[Task]] = {}
            for attempt in attempts:
                groups.setdefault(attempt.group, []).append(attempt.task)
            assert len(groups) == 3
            for tasks in groups.values():
                counts = Counter(task.id for task in tasks)
                assert set(counts.values()) == ({2} if pair_of(tasks[0]) else {4})
                assert len({pair_of(task) for task in tasks}) == 1
            seen |= {task.id for tasks in groups.values() for task in tasks}
            # read back from the journal, after a kill: the same attempts
            again = StepPlan(config, Curriculum(config), journal)
            assert again.attempts(step) == attempts
        curriculum = Curriculum(config)
        held = {task.id for tasks in curriculum.held_out().values() for task in tasks}
        validation = {task.id for task in curriculum.validation()}
        assert held and not held & seen and not validation & seen
        appended = StepPlan(config, curriculum, journal).append(0, 3, 2)
        assert len(appended) == 8 and {
            len({a.task.id for a in appended if a.group == f"train/0/{g}"}) for g in (3, 4)
        } <= {1, 2}


def test_no_pair_is_held_out_in_part(config: Config) -> None:
    parted = 0
    for seed in range(12):
        config.seed = seed
        curriculum = Curriculum(config)
        (held,) = curriculum.held_out().values()
        training = curriculum.training()
        assert not {pair_of(t) for t in held if pair_of(t)} & {pair_of(t) for t in training}
        assert len(held) + len(training) == 24
        parted += len(held) == 8
    assert 0 < parted < 12, "one more is held out where a pair would be parted, and only there"


def test_tasks_without_pairs_are_split_as_ever(tmp_path: Path) -> None:
    from crrl.tasks.generator.generate import generate

    tasks = [generate("train", 7, index) for index in range(9)]
    write_tasks(tmp_path / "t.jsonl", tasks)
    config = Config(seed=4)
    config.corpus.name, config.corpus.held_out = str(tmp_path / "t.jsonl"), 3
    shuffled = list(tasks)
    random.Random("split/4").shuffle(shuffled)
    curriculum = Curriculum(config)
    assert [*curriculum.held_out()["held_out"], *curriculum.training()] == shuffled


def test_shuffled_labels_tell_nothing(config: Config) -> None:
    """One version of a pair is vulnerable still, and which is a coin's; the held-out tasks keep the truth."""
    plain = Curriculum(config)
    config.corpus.shuffle_labels = True
    control = Curriculum(config)
    assert control.held_out() == plain.held_out()
    assert [task.id for task in control.training()] == [task.id for task in plain.training()]
    many = [
        task
        for n in range(300)
        for task in pair_tasks(f"x{n}", "c", "t", f"int f{n}() {{ a(); }}", f"int f{n}() {{ b(); }}", "c", [])
    ]
    dealt = shuffled_labels(many, 1)
    truth, said = ([task.test.label.vulnerable for task in of] for of in (many, dealt))  # type: ignore[union-attr]
    assert all(a != b for a, b in zip(said[::2], said[1::2], strict=True))
    assert 120 < sum(a == b for a, b in zip(truth[::2], said[::2], strict=True)) < 180
    assert shuffled_labels(many, 1) == dealt != shuffled_labels(many, 2)
    alone = [task for task in control.training() if not pair_of(task)]
    before = [task for task in plain.training() if not pair_of(task)]
    counts = [Counter(t.test.label.vulnerable for t in of) for of in (alone, before)]  # type: ignore[union-attr]
    assert counts[0] == counts[1]
    control_generated = generated()
    control_generated.corpus.shuffle_labels = True
    plain_labels, dealt_labels = (
        [task.test.label for step in range(20) for task in Curriculum(c).step(step)]
        for c in (generated(), control_generated)
    )
    assert plain_labels != dealt_labels


def test_settings_that_cannot_be_are_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both versions"):
        load_recipe("classify", ["objective.group_size=5"])
    for key in ("objective.pair=1.0", "corpus.shuffle_labels=true"):
        with pytest.raises(UsageError, match=r"would be ignored: it is for corpus\.ask=classify"):
            load_recipe("quickstart", [key])
    config.objective.group_size = 5
    with pytest.raises(UsageError, match="even number from 4"):
        Curriculum(config)
    from crrl.tasks.generator.generate import generate

    write_tasks(tmp_path / "plain.jsonl", [generate("train", 7, index) for index in range(9)])
    config.corpus.name, config.objective.pair = str(tmp_path / "plain.jsonl"), 1.0
    with pytest.raises(UsageError, match="has no pairs"):
        Curriculum(config)
    config.objective.pair, config.corpus.shuffle_labels = 0.0, True
    with pytest.raises(UsageError, match="has no labels"):
        Curriculum(config)
    with pytest.raises(CrrlError, match="does not have it"):
        Curriculum(generated()).task("generated-classify-train-3-0-c")


def test_both_are_found_by_the_name_of_either() -> None:
    curriculum = Curriculum(generated())
    for leader in curriculum.step(2):
        first, second = curriculum.members(leader)
        assert first == leader and curriculum.members(second) == [second, first]
        assert curriculum.task(second.id) == second and curriculum.task(first.id) == first


def test_implemented_programs_are_found_again() -> None:
    """The plan of a run of corpus.ask=implement, too, is read back from the journal."""
    config = replace(generated())
    config.corpus.ask = "implement"
    curriculum = Curriculum(config)
    for task in curriculum.step(0):
        assert curriculum.task(task.id) == task and curriculum.members(task) == [task]
