"""The tasks of every step: the same after a resume, and none of those held out for evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crrl.conf.schema import Config
from crrl.errors import CrrlError
from crrl.learning.curriculum import HELD_OUT, Curriculum
from crrl.task import Task
from crrl.tasks.files import write_tasks
from crrl.tasks.generator import families
from crrl.tasks.generator.generate import generate

STEPS = 10


def config(corpus: str | Path = "generated", seed: int = 3, held_out: int = 4) -> Config:
    made = Config(seed=seed)
    made.objective.groups_per_step = 6
    made.evaluation.tasks_per_split = 12
    made.corpus.name, made.corpus.held_out = str(corpus), held_out
    return made


def trained(curriculum: Curriculum, steps: int = STEPS) -> list[Task]:
    return [task for step in range(steps) for task in curriculum.step(step)]


def programs(tasks: list[Task]) -> set[tuple[str, str]]:
    """A task's code and what its tests want of it, whatever it is called."""
    return {(json.dumps(task.source.files, sort_keys=True), json.dumps(task.test.restore)) for task in tasks}


# Generated tasks ----------------------------------------------------------------------------------------------


def test_generated_steps_are_functions_of_the_seed() -> None:
    one, again, other = Curriculum(config()), Curriculum(config()), Curriculum(config(seed=4))
    late = again.step(9)  # asked for first, as after a resume
    assert late == one.step(9) and again.step(2) == one.step(2) and again.held_out() == one.held_out()
    tasks = trained(one)
    assert len(tasks) == 6 * STEPS == len({task.id for task in tasks})
    assert programs(tasks).isdisjoint(programs(trained(other)))
    assert one.notes == []


def test_generated_training_meets_no_held_out_task() -> None:
    curriculum = Curriculum(config())
    held_out = curriculum.held_out()
    assert list(held_out) == ["rl_instances", "sft_instances", "unseen_families"]
    assert all(len(tasks) == 12 == len({t.id for t in tasks}) for tasks in held_out.values())
    kept = [task for tasks in held_out.values() for task in tasks]
    tasks = trained(curriculum)
    assert {t.id for t in tasks}.isdisjoint(t.id for t in kept) and programs(tasks).isdisjoint(programs(kept))
    assert {t.family for t in tasks}.isdisjoint(t.family for t in held_out["unseen_families"])
    one_split = config()
    one_split.evaluation.splits = ["unseen_families"]
    assert Curriculum(one_split).held_out() == {"unseen_families": held_out["unseen_families"]}


@pytest.mark.parametrize(("share", "pool"), [(1.0, families.RL), (0.0, families.SFT)])
def test_rl_share_is_the_share_of_the_families_that_rl_is_to_learn(share: float, pool: list[str]) -> None:
    made = config()
    made.corpus.rl_share = share
    found = {task.family for task in trained(Curriculum(made), 4)}
    assert found <= set(pool) and len(found) > 1


# Task files ---------------------------------------------------------------------------------------------------

TASKS = [generate("train", 0, i) for i in range(14)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_tasks(tmp_path / "tasks.jsonl", TASKS)
    return tmp_path / "tasks.jsonl"


def ids(tasks: list[Task]) -> list[str]:
    return [task.id for task in tasks]


def test_a_files_tasks_are_either_held_out_or_trained_on(file: Path) -> None:
    curriculum = Curriculum(config(file))
    held_out = curriculum.held_out()
    assert list(held_out) == [HELD_OUT] and len(held_out[HELD_OUT]) == 4
    tasks = trained(curriculum)
    assert {*ids(tasks), *ids(held_out[HELD_OUT])} == set(ids(TASKS))
    assert set(ids(tasks)).isdisjoint(ids(held_out[HELD_OUT]))
    few = config(file)
    few.evaluation.tasks_per_split = 3
    assert Curriculum(few).held_out() == {HELD_OUT: held_out[HELD_OUT][:3]}
    assert trained(Curriculum(few)) == tasks  # a smaller evaluation frees no task for training


def test_a_file_is_gone_through_whole_before_a_task_comes_again(file: Path) -> None:
    tasks = ids(trained(Curriculum(config(file))))  # 60: six epochs of ten, in steps of six
    epochs = [tasks[i : i + 10] for i in range(0, 60, 10)]
    assert all(set(epoch) == set(epochs[0]) and len(set(epoch)) == 10 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_a_files_steps_are_functions_of_the_seed(file: Path) -> None:
    one, again = Curriculum(config(file)), Curriculum(config(file))
    assert again.step(8) == one.step(8) and trained(again) == trained(one) and again.held_out() == one.held_out()
    others = [Curriculum(config(file, seed=seed)) for seed in (4, 5, 6)]
    assert any(set(ids(o.held_out()[HELD_OUT])) != set(ids(one.held_out()[HELD_OUT])) for o in others)
    assert any(trained(o) != trained(one) for o in others)


def test_a_broken_line_is_named_and_the_rest_is_trained_on(file: Path) -> None:
    lines = file.read_text().splitlines()
    lines[1] = lines[1][:100]
    lines[7] = json.dumps(json.loads(lines[7]) | {"issue": 5})
    file.write_text("\n".join(lines))
    curriculum = Curriculum(config(file))
    assert len(curriculum.notes) == 2
    assert curriculum.notes[0].startswith(f"{file}:2: not a task")
    assert curriculum.notes[1].startswith(f"{file}:8: not a task") and "issue" in curriculum.notes[1]
    whole = {*ids(trained(curriculum)), *ids(curriculum.held_out()[HELD_OUT])}
    assert whole == set(ids(TASKS)) - {TASKS[1].id, TASKS[7].id}


@pytest.mark.parametrize("held_out", [14, 100])
def test_a_file_of_which_nothing_is_left_to_train_on_is_refused(file: Path, held_out: int) -> None:
    with pytest.raises(CrrlError, match=f"has 14 usable tasks, and corpus.held_out={held_out}") as error:
        Curriculum(config(file, held_out=held_out))
    assert "below 14" in error.value.remedy
    assert len(set(ids(trained(Curriculum(config(file, held_out=13)))))) == 1  # what the remedy allows


def test_evaluation_alone_may_hold_out_the_whole_file(file: Path) -> None:
    made = config(file, held_out=100)
    made.evaluation.tasks_per_split = 100
    whole = Curriculum(made, trains=False).held_out()[HELD_OUT]
    assert sorted(ids(whole)) == sorted(ids(TASKS))


@pytest.mark.parametrize("content", [None, "", "not a task\n"])
def test_a_file_without_tasks_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tasks.jsonl").write_text(content)
    with pytest.raises(CrrlError, match=r"tasks\.jsonl") as error:
        Curriculum(config(tmp_path / "tasks.jsonl"))
    assert error.value.remedy
