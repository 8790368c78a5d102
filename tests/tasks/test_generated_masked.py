"""Generated tasks that ask for a body: the programs of the bugs, of which the specification is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crrl.agents.search_replace.apply import apply
from crrl.agents.search_replace.parse import parse
from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.errors import UsageError
from crrl.learning.curriculum import Curriculum
from crrl.learning.dynamic_sampling import tasks_beyond
from crrl.models import model_folder
from crrl.tasks.generator.cases import failing
from crrl.tasks.generator.generate import SPLITS, bug_of, generate, masked, warmstart_bodies
from crrl.warmstart.form import PoolSettings, find


@pytest.mark.parametrize("split", SPLITS)
def test_the_body_is_gone_and_every_test_asks_for_it(split: str) -> None:
    for index in range(10):
        bug, task = bug_of(split, 3, index), generate(split, 3, index, ask="implement")
        files = task.source.files or {}
        signature, docstring, *body = bug.fixed.rstrip("\n").split("\n")
        assert files[bug.path] == f"{signature}\n{docstring}\n    raise NotImplementedError\n"
        shown = "\n".join([*files.values(), task.issue])
        assert not any(line.strip() in shown for line in body if len(line) > 16), body
        assert docstring.strip().strip('"') in task.issue and bug.function in task.issue
        assert len(task.test.fail_to_pass) == len(bug.cases) and not task.test.pass_to_pass
        assert len(failing(masked(bug).buggy, bug.function, bug.cases)) == len(bug.cases)
        assert [line[1:] for line in (task.solution or "").splitlines() if line.startswith("+ ")] == body
        assert task.id not in (generate(split, 3, index).id, generate(split, 4, index, ask="implement").id)


def test_repair_is_as_it_was() -> None:
    assert generate("train", 0, 5, ask="repair") == generate("train", 0, 5) != generate("train", 0, 5, ask="implement")


def test_every_place_that_draws_tasks_asks_for_the_same() -> None:
    words = [f"model.path={model_folder('tiny')}", "evaluation.tasks_per_split=2", "evaluation.every=5"]
    config = load_recipe("implement", [*words, "evaluation.validation_tasks=2"])
    curriculum = Curriculum(config)
    tasks = [task for held in curriculum.held_out().values() for task in held]
    tasks += [*curriculum.validation(), *tasks_beyond(config, [], 0, 0, 3), *curriculum.step(0)]
    assert len(tasks) >= 12 and all(task.id.startswith("generated-implement-") for task in tasks)


def test_what_it_asks_is_no_matter_of_a_task_file(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{}")
    with pytest.raises(UsageError, match=r"corpus\.ask"):
        load_recipe("quickstart", ["corpus.ask=implement", f"corpus.name={tmp_path}/t.jsonl"])
    with pytest.raises(UsageError, match=r"corpus\.ask=write does not exist"):
        load_recipe("quickstart", ["corpus.ask=write"])


def test_the_warm_start_shows_right_bodies_of_its_own_families_and_wrong_ones_of_the_others() -> None:
    demonstrations = find("implement").demonstrations(PoolSettings(seed=5), 0, 60)
    right = 0
    for (_, answer), (bug, after) in zip(demonstrations, warmstart_bodies(5, 0, 60, 0.15), strict=True):
        parsed = parse(answer.text.removesuffix("<|im_end|>"), [bug.path])
        applied = apply(parsed.blocks, {bug.path: bug.buggy})
        assert not parsed.faults and set(applied.steps) == {"exact"} and applied.files == {bug.path: after}
        right += not failing(after, bug.function, bug.cases)
    assert 40 < right < 60


def test_the_judge_admits_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "check", "generated", "ask=implement", "count=1", "times=1", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["status"] for one in told] == ["admitted"] * len(SPLITS) and "implement" in told[0]["id"]
    assert main(["tasks", "list", "generated", "ask=write"]) == 2
    assert main(["tasks", "record", "generated", "ask=implement"]) == 2
    assert "has no use for ask=" in capsys.readouterr().err
