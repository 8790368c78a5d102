"""The recorded plan is the authority, and a new one knows no more than it may."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from crrl.conf.schema import Config
from crrl.errors import CrrlError
from crrl.learning.api import Row
from crrl.learning.curriculum import Curriculum
from crrl.learning.difficulty import Difficulty
from crrl.learning.staleness import staleness
from crrl.learning.step_plan import StepPlan
from crrl.rewards.api import Verdict
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.journal import TRAIN, Journal
from crrl.tasks.files import write_tasks
from crrl.tasks.generator.generate import generate

TASKS = [generate("train", 7, index) for index in range(24)]
HARD, EASY, BETWEEN = TASKS[:9], TASKS[9:16], TASKS[16:]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write_tasks(tmp_path / "tasks.jsonl", TASKS)
    made = Config(seed=5)
    made.corpus.name, made.corpus.held_out, made.corpus.curriculum = str(tmp_path / "tasks.jsonl"), 4, "adaptive"
    made.objective.groups_per_step, made.objective.group_size = 6, 4
    made.rollout.staleness = 2
    return made


def plan(config: Config, journal: Journal) -> StepPlan:
    return StepPlan(config, Curriculum(config), journal)


def finish(journal: Journal, attempts: list[Attempt], solved: object = lambda attempt: attempt.attempt % 2) -> None:
    for a in attempts:
        verdict = Verdict(1.0, solved=bool(solved(a)))  # type: ignore[operator]
        journal.add_episode(TRAIN, Episode(a.id, a.group, a.task.id, a.attempt, a.seed, "scored", verdict=verdict))


def tasks(attempts: list[Attempt]) -> list[str]:
    return list({a.group: a.task.id for a in attempts}.values())


def test_a_plan_reads_outcomes_of_steps_before_k_minus_s_only(config: Config, tmp_path: Path) -> None:
    """Whatever later steps gave by then, and whatever of them is in the journal after a kill."""
    found = []
    for later in (None, 0.0, 1.0):
        with Journal.create(tmp_path / str(later), {}) as journal:
            made = plan(config, journal)
            for step in range(6):
                attempts = made.begin(step, version=max(0, step - 2))
                if step < 3:
                    finish(journal, attempts)
                elif later is not None:
                    finish(journal, attempts, lambda _, later=later: later)
            found.append([tasks(made.attempts(step)) for step in range(6)])
    assert found[0] == found[1] == found[2]


def test_outcomes_of_steps_before_k_minus_s_do_count(config: Config, tmp_path: Path) -> None:
    found = []
    for solved in (0, 1, 2):
        with Journal.create(tmp_path / str(solved), {}) as journal:
            made = plan(config, journal)
            for step in range(5):
                chosen = solved if step < 3 else 0
                finish(journal, made.begin(step, 0), lambda a, chosen=chosen: a.attempt < chosen)
            found.append(tasks(made.attempts(5)))
    assert found[0] != found[2]


def test_a_resumed_run_follows_what_was_recorded(config: Config, tmp_path: Path) -> None:
    """Also where the curriculum would now choose otherwise; and appended groups are the same ones again."""
    with Journal.create(tmp_path / "run", {}) as journal:
        first = plan(config, journal)
        wanted = [first.begin(step, 0) for step in range(3)]
        more = first.append(1, 6, 2)
        assert [a.group for a in more[::4]] == ["train/1/6", "train/1/7"]
        config.seed = 6
        again = plan(config, journal)
        assert [tasks(again.begin(step, 0)) for step in range(3)] == [tasks(attempts) for attempts in wanted]
        assert tasks(again.append(1, 6, 1)) + tasks(again.append(1, 7, 1)) == tasks(more)
        assert [len(step.groups) for step in journal.steps()] == [6, 8, 6]
        assert journal.steps()[1].tasks == tasks(wanted[1]) + tasks(more)


def test_a_planned_task_that_is_gone_is_named(config: Config, tmp_path: Path) -> None:
    with Journal.create(tmp_path / "run", {}) as journal:
        gone = tasks(plan(config, journal).begin(0, 0))[0]
        write_tasks(Path(config.corpus.name), [task for task in TASKS if task.id != gone])
        with pytest.raises(CrrlError, match=gone):
            plan(config, journal).begin(0, 0)


def test_a_plan_takes_no_other_groups_and_none_after_training(config: Config, tmp_path: Path) -> None:
    with Journal.create(tmp_path / "run", {}) as journal:
        journal.plan_step(0, ["a", "b"], 0, ["x", "y"])
        journal.plan_step(0, ["a", "b", "c"], 0, ["x", "y", "z"])
        assert journal.planned(0) == [("a", "x"), ("b", "y"), ("c", "z")]
        for groups, names in ((["a", "b"], ["x", "y"]), (["b", "a", "c"], ["y", "x", "z"]), (["a"] * 3, ["x"] * 3)):
            with pytest.raises(CrrlError, match="other groups"):
                journal.plan_step(0, groups, 0, names)
        with pytest.raises(CrrlError, match="other groups"):
            journal.plan_step(0, ["a", "b", "c"], 0, ["x", "y", "w"])
        journal.step_trained(0, {})
        with pytest.raises(CrrlError, match="other groups"):
            journal.plan_step(0, ["a", "b", "c", "d"], 0, ["x", "y", "z", "w"])
        journal.plan_step(0, ["a", "b", "c"], 0, ["x", "y", "z"])


# Difficulty ---------------------------------------------------------------------------------------------------


def test_an_adaptive_curriculum_comes_to_what_is_solved_sometimes(config: Config, tmp_path: Path) -> None:
    able = {t.id: 0.5 for t in BETWEEN} | {t.id: 1.0 for t in EASY} | {t.id: 0.0 for t in HARD}
    with Journal.create(tmp_path / "run", {}) as journal:
        made = plan(config, journal)
        for step in range(16):
            finish(journal, made.begin(step, step), lambda a: a.attempt < 4 * able[a.task.id])
        late = [task for step in range(10, 16) for task in tasks(made.attempts(step))]
    assert sum(able[task] == 0.5 for task in late) > 0.6 * len(late)  # a third of the tasks
    config.corpus.curriculum = "planned"
    even = [t.id for step in range(10, 16) for t in Curriculum(config).step(step)]
    assert sum(able[task] == 0.5 for task in even) < 0.4 * len(even)


def test_generated_tasks_adapt_by_family(tmp_path: Path) -> None:
    config = Config(seed=5)
    config.corpus.curriculum, config.objective.groups_per_step = "adaptive", 8
    first = Curriculum(config).step(0)
    assert len({task.id for task in first}) == 8 and all(Curriculum(config).task(t.id) == t for t in first)
    learnt = Curriculum(config)
    families = Counter(task.family for step in range(6) for task in learnt.step(step))
    ((kept, _),) = families.most_common(1)
    for family in set(families) - {kept}:
        for _ in range(8):
            learnt._difficulty.learn(family, 8, 8)
    for _ in range(8):
        learnt._difficulty.learn(kept, 4, 8)

    def share(curriculum: Curriculum) -> float:
        chosen = [task for step in range(6) for task in curriculum.step(step)]
        return sum(task.family == kept for task in chosen) / len(chosen)

    assert share(learnt) > 2 * share(Curriculum(config))


def test_difficulty_by_hand() -> None:
    belief = Difficulty(0.2, 0.8)
    assert belief.weight("new") == pytest.approx(0.6, abs=0.01)
    belief.learn("none", 0, 8)
    assert belief.weight("none") == pytest.approx(0.8**9 - 0.2**9, abs=0.01)  # Beta(1, 9)
    belief.learn("some", 4, 8)
    assert belief.weight("some") == pytest.approx(0.961, abs=0.001)  # Beta(5, 5)
    for _ in range(20):
        belief.learn("all", 8, 8)
    assert belief.weight("all") == 0.05
    belief.learn("all", 2, 8)  # what was counts half
    assert belief.weight("all") > 0.5


# Staleness ----------------------------------------------------------------------------------------------------


def row(versions: list[int]) -> Row:
    mask = [int(version >= 0) for version in versions]
    return Row([1] * len(mask), mask, [0.0] * len(mask), versions, 1.0, 1.0, "e", "g")


def test_staleness_by_hand() -> None:
    assert staleness([], 3, 0) == {}
    assert staleness([row([-1, 3, 3])], 3, 0) == {"staleness": 0.0, "staleness_max": 0.0}
    assert staleness([row([-1, 1, 2]), row([3])], 3, 2) == {"staleness": 1.0, "staleness_max": 2.0}
    for versions, bound in (([1], 1), ([2], 0), ([4], 2), ([-1, 3, 0, 3], 2)):
        with pytest.raises(CrrlError, match="episode e"):
            staleness([row([3]), row(versions)], 3, bound)


# Older journals -----------------------------------------------------------------------------------------------


def test_a_run_whose_plans_named_no_tasks_goes_on(config: Config, tmp_path: Path) -> None:
    """Its plan is a function of the seed: the tasks are added to it, and other groups are refused as ever."""
    config.corpus.curriculum = "planned"
    with Journal.create(tmp_path / "run", {}) as journal:
        wanted = tasks(plan(config, journal).attempts(0))
        journal.plan_step(0, [f"train/0/{g}" for g in range(6)], 0)
        journal.plan_step(1, ["train/1/0"], 1)
        journal._db.executescript("ALTER TABLE steps DROP COLUMN tasks; PRAGMA user_version = 2;")
    with Journal.open(tmp_path / "run", read_only=True) as journal:
        assert [(step.groups[0], step.tasks) for step in journal.steps()] == [("train/0/0", []), ("train/1/0", [])]
    for _ in range(2):
        with Journal.open(tmp_path / "run") as journal:
            assert tasks(plan(config, journal).begin(0, 0)) == wanted == journal.steps()[0].tasks
            assert journal._db.execute("PRAGMA user_version").fetchone() == (3,)
    with Journal.open(tmp_path / "run") as journal, pytest.raises(CrrlError, match="other groups"):
        journal.plan_step(1, ["train/1/1"], 1)
