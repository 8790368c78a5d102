"""What docs/training.md says is refused of objectives is refused, for the reason that it gives; what it names works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crrl.cli.train import plan
from crrl.conf.load import load_recipe
from crrl.conf.recipes import ready
from crrl.conf.schema import Config, Objective
from crrl.errors import UsageError

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
CHAPTER = TEXT[TEXT.index("## Objectives") :].split("\n## ")[0]
REFUSED = re.findall(r"^\| `(objective[^`]+)` \| (.+) \|$", CHAPTER[CHAPTER.index("**Refused**") :], re.MULTILINE)


def test_the_table_is_there() -> None:
    assert len(REFUSED) > 30
    assert [f"`{name}`" in CHAPTER for name in ready("objective")] == [True] * 7


@pytest.mark.parametrize(("settings", "because"), REFUSED)
def test_what_the_table_says_is_refused(settings: str, because: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_recipe("quickstart", settings.split())
    assert because in refused.value.message
    assert refused.value.remedy.startswith(("Write ", "Leave "))


@pytest.mark.parametrize(
    "settings",
    [
        *(f"objective={name}" for name in ready("objective")),
        "objective=gspo objective.correction=sequence_mask objective.correction_bound=4",
        "objective=gspo objective.updates_per_batch=4 objective.clip=0.01",
        "objective.old=trainer objective.correction=token_mask",
        "objective=dapo objective.old=trainer objective.correction=token_mask objective.clip_high=0",
        "objective=cispo objective.clip_high=0.5 objective.updates_per_batch=2",
        "objective=sapo objective.level=sequence",
        "objective.loss=luspo objective.level=sequence",
        "objective.loss=vespo objective.old=trainer objective.correction=token_truncate",
        "objective=grpo objective.every=1 objective.mixup=0.1",
        "objective=rloo objective.length_normaliser=10 objective.beta=0.1 objective.every=5",
        "objective=grpo objective.overlong=0.5 objective.dynamic_sampling=3 objective.shuffle_rewards=true",
    ],
)
def test_what_can_be_combined(settings: str) -> None:
    load_recipe("quickstart", settings.split())


def test_an_objective_keeps_what_is_not_its_own_and_the_command_line_wins(tmp_path: Path) -> None:
    written = ["objective.clip=0.01", "objective=gspo", "objective.groups_per_step=3"]
    found = load_recipe("quickstart", written).objective
    assert (found.clip, found.groups_per_step, found.group_size, found.level) == (0.01, 3, 8, "sequence")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("defaults: [train_schema, objective: dapo, _self_]\nobjective: {group_size: 4, clip: 0.25}\n")
    mine = load_recipe(str(recipe)).objective
    assert (mine.loss, mine.group_size, mine.clip, mine.dynamic_sampling) == ("dapo", 4, 0.25, 8)
    other = load_recipe(str(recipe), ["objective=grpo"]).objective
    assert (other.loss, other.group_size, other.overlong) == ("grpo", 4, 0.0)


def test_a_recipe_that_sets_a_clip_for_an_objective_without_one(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("defaults: [train_schema, objective: sapo, _self_]\nobjective: {clip: 0.1}\n")
    with pytest.raises(UsageError, match="has no clip"):
        load_recipe(str(recipe))


def test_a_misspelt_objective() -> None:
    with pytest.raises(UsageError) as refused:
        load_recipe("quickstart", ["objective=gpso"])
    assert "There is no ready configuration objective=gpso" in refused.value.message and "gspo" in refused.value.remedy


def test_the_defaults_are_those_of_dr_grpo() -> None:
    assert load_recipe("quickstart", ["objective=dr_grpo"]).objective == load_recipe("quickstart").objective
    assert Config().objective == Objective()


def test_the_plan_says_what_an_objective_adds() -> None:
    told = "\n".join(plan(load_recipe("quickstart", ["objective=dapo", "objective.updates_per_batch=3"]), None))
    assert "and at most 8 more groups a step" in told and "3 updates a step" in told
    assert "more groups" not in "\n".join(plan(load_recipe("quickstart"), None))
