"""Generated tasks with several functions to a file (`functions=`)."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.errors import UsageError
from crrl.learning.curriculum import Curriculum
from crrl.learning.dynamic_sampling import tasks_beyond
from crrl.models import model_folder
from crrl.task import Task
from crrl.tasks.diffs import between
from crrl.tasks.generator.cases import failing
from crrl.tasks.generator.floor import random_floor
from crrl.tasks.generator.generate import SPLITS, among_others, bug_of, generate

PLACES = [(split, index) for split in SPLITS for index in range(12)]


def code_of(task: Task) -> tuple[str, str]:
    ((path, text),) = [(p, t) for p, t in (task.source.files or {}).items() if p.endswith(".py") and "/" not in p]
    return path, text


@pytest.mark.parametrize("ask", ["repair", "implement"])
@pytest.mark.parametrize("functions", [2, 4])
def test_one_function_is_wrong_and_the_others_are_right(functions: int, ask: str) -> None:
    where = set()
    for split, index in PLACES:
        alone, task = generate(split, 3, index, ask=ask), generate(split, 3, index, ask=ask, functions=functions)
        path, text = code_of(task)
        names = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        assert len(set(names)) == len(names) == functions and task.issue == alone.issue and task.family == alone.family
        assert code_of(alone)[1] in text and task.id != alone.id
        assert task.test.fail_to_pass == alone.test.fail_to_pass
        assert set(alone.test.pass_to_pass) <= set(task.test.pass_to_pass)
        assert len(task.test.pass_to_pass) - len(alone.test.pass_to_pass) == 10 * (functions - 1)
        bug = among_others(bug_of(split, 3, index), split, 3, index, functions)
        for neighbour in bug.neighbours:
            assert not failing(text, neighbour.function, neighbour.cases)
            assert not failing(bug.fixed, neighbour.function, neighbour.cases)
        where.add(names.index(bug.function))
        if ask == "repair":
            assert task.solution == between(path, text, bug.fixed) and text == bug.buggy
    assert where == set(range(functions)), "the bug is not always at one place"


def test_no_neighbour_is_of_a_split_that_is_not_its_own() -> None:
    held = {text for split, i in PLACES if split != "train" for text in programs(generate(split, 0, i, functions=4))}
    trained = {text for i in range(60) for text in programs(generate("train", 0, i, functions=4))}
    assert len(trained) > 200 and not held & trained


def programs(task: Task) -> list[str]:
    return [ast.unparse(node) for node in ast.parse(code_of(task)[1]).body]


def test_fixes_of_such_files_are_demonstrated_under_their_own_ids(tmp_path: Path) -> None:
    out = tmp_path / "chats.jsonl"
    assert main(["tasks", "demonstrate", "generated", "count=4", "functions=3", f"out={out}"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for index, row in enumerate(rows):
        task = generate("train", 0, index, rl_share=0.0, functions=3)
        assert row["task"] == task.id and code_of(task)[1] in row["messages"][-2]["content"]


def test_one_function_is_what_it_was() -> None:
    assert all(generate(split, 3, i, functions=1) == generate(split, 3, i) for split, i in PLACES)


def test_a_random_edit_often_meets_the_wrong_function() -> None:
    alone, among = random_floor("rl_instances", 0, 60), random_floor("rl_instances", 0, 60, functions=4)
    assert among.total == alone.total and among.solved < alone.solved / 2


def test_every_place_that_draws_tasks_draws_files_of_so_many() -> None:
    words = [f"model.path={model_folder('tiny')}", "evaluation.tasks_per_split=2", "evaluation.every=5"]
    config = load_recipe("quickstart", [*words, "evaluation.validation_tasks=2", "corpus.functions=3"])
    curriculum = Curriculum(config)
    step = curriculum.step(0)
    tasks = [task for held in curriculum.held_out().values() for task in held]
    tasks += [*curriculum.validation(), *tasks_beyond(config, [], 0, 0, 3), *step]
    assert len(tasks) >= 12 and all(task.id.startswith("generated-of3-") for task in tasks)
    assert [curriculum.task(task.id) for task in step] == step


def test_where_there_are_no_files_to_fill_it_is_refused() -> None:
    with pytest.raises(UsageError, match=r"corpus\.functions.*stands alone"):
        load_recipe("classify", [f"model.path={model_folder('tiny')}", "corpus.functions=2"])


def test_the_judge_admits_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "check", "generated", "functions=3", "count=1", "times=1", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["status"] for one in told] == ["admitted"] * len(SPLITS) and "of3" in told[0]["id"]
    assert main(["tasks", "list", "generated", "functions=5"]) == 2
    assert main(["tasks", "list", "generated", "ask=classify", "functions=2"]) == 2
    assert main(["tasks", "record", "generated", "functions=2"]) == 2
    assert "has no use for functions=" in capsys.readouterr().err
