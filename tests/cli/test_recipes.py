"""Invariant 9: no inert setting; every refusal says what to write instead."""

from pathlib import Path

import pytest

from crrl.cli.train import plan
from crrl.conf.load import load_recipe, load_rows, load_saved, load_warmstart, to_yaml
from crrl.conf.recipes import recipe_names, warmstarts
from crrl.conf.schema import Config, keys
from crrl.errors import CrrlError, UsageError
from crrl.models import model_folder


def test_quickstart_and_its_overrides() -> None:
    config = load_recipe("quickstart", ["seed=7", "trainer.max_steps=5", "trainer.learning_rate=3e-4", "run=a b,c"])
    assert (config.seed, config.trainer.max_steps, config.trainer.learning_rate) == (7, 5, 3e-4)
    assert (config.recipe, config.run, config.objective.group_size) == ("quickstart", "a b,c", 8)
    assert load_recipe("quickstart", ["seed=1", "seed=2"]).seed == 2


def test_every_packaged_recipe_loads() -> None:
    a_model = f"model.path={model_folder('tiny')}"
    own = {
        **dict.fromkeys(warmstarts(), load_warmstart),
        "sft": lambda _: load_rows(["out=x"]),
        **dict.fromkeys(
            ("repair-file", "repair-file-pretrained", "implement", "classify"),
            lambda name: load_recipe(name, [a_model]),
        ),
    }
    for name in recipe_names():
        own.get(name, load_recipe)(name)


def test_a_recipe_names_the_command_that_makes_its_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as told:
        load_recipe("repair-file")
    assert told.value.remedy == "Make it first: crrl sft warmstart-blocks"
    with pytest.raises(UsageError) as told:
        load_recipe("repair-file", ["model.path=runs/mine/model"])
    assert "crrl sft" not in (told.value.remedy or "")


def test_every_setting_is_documented() -> None:
    assert [k.name for k in keys(Config) if not k.doc] == []


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("max_steps=3", "trainer.max_steps"),
        ("trainer.max_step=3", "trainer.max_steps"),
        ("trainr.max_steps=3", "trainer.max_steps"),
        ("trainer=3", "Set one of: trainer.max_steps"),
        ("rollout.top_p=0.9", "rollout.temperature"),
        ("top_k=5", "rollout.temperature"),
        ("trainer.max_steps=abc", "It is int"),
        ("trainer.max_steps=[1", "cannot be read"),
        ("+seed=1", "Write seed=1"),
        ("~seed=1", "Write seed=1"),
        ("seed", "key=value"),
        ("engine.name=vlm", "'vllm'"),
        ("engine.memory_gb=8", "it is for engine.name=vllm"),
        ("engine.memory_gb=0", "1 or more"),
        ("engine.memory_share=1.5", "no share"),
        ("sandbox.name=bublewrap", "bubblewrap"),
        ("rewards.weights.test=1", "'tests'"),
        ("rewards.weights.tests=nan", "not a weight"),
        ("rewards.options.test.budget=1", "'tests'"),
        ("rewards.options.tests.budget=1", "It has none"),
        ("rewards.options.diff_similarity.budget=1", "Write rewards.weights.diff_similarity="),
        ("rewards.options.tests=1", "'rewards.options'"),
        ("agent=answer", "Write model.path=FOLDER"),
        ("agent.options.depth=1", "the agent 'builtin' has no such parameter"),
        ("agent.command=x", "for agent.name=command"),
        ("objective.group_size=1", "2 or more"),
        ("objective.credit.compact=1", "'compaction'"),
        ("objective.credit.side=2", "between 0 and 1"),
        ("objective.credit.main=0", "nothing to train on"),
        ("rollout.temperature=0", "Greedy decoding is for evaluation"),
        ("corpus.name=none.jsonl", "no such file"),
        ("corpus.name=generatd", "generated"),
        ("corpus.rl_share=1.5", "between 0 and 1"),
        ("corpus.functions=0", "Write corpus.functions=1 or more"),
        ("corpus.functions=9", "Write corpus.functions=4 or fewer"),
        ("evaluation.decodings=[gredy]", "'greedy'"),
        ("evaluation.splits=[held_out]", "not a split"),
        ("evaluation.decodings=[greedy,greedy]", "twice"),
        ("model.path=/nowhere", "no such folder"),
        ("corpus.held_out=5", "would be ignored"),
        ("run=a/b", "runs_dir"),
        ("renderer.key=generic-text", "renders only text"),
        ("renderer.calls=loose", "lenient"),
        (f"sandbox.state_dir={Path.home()}/x", "under HOME"),
    ],
)
def test_refusals(override: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("quickstart", [override])
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) < 12


def test_a_task_file_needs_no_other_setting(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("")
    config = load_recipe("quickstart", [f"corpus.name={file}", "corpus.held_out=3"])
    assert "evaluate 6 episodes before (2 cells of 3 tasks)" in "\n".join(plan(config, None))
    with pytest.raises(UsageError, match="would be ignored"):
        load_recipe("quickstart", [f"corpus.name={file}", "evaluation.splits=[rl_instances]"])


def test_unknown_recipes_and_recipes_of_another_verb() -> None:
    with pytest.raises(UsageError, match="Did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(UsageError, match="crrl sft warmstart"):
        load_recipe("warmstart")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("defaults: [train_schema, _self_]\ntrainer: {max_steps: 7}\n")
    assert load_recipe(str(mine)).trainer.max_steps == 7
    mine.write_text("defaults: [train_schema, _self_]\ntrainer: {max_step: 7}\n")
    with pytest.raises(UsageError, match=r"(?s)max_step.*'trainer.max_steps'"):
        load_recipe(str(mine))
    mine.write_text("defaults: [train_schema, _self_]\ncorpus: {held_out: 7}\n")
    with pytest.raises(UsageError, match="would be ignored"):
        load_recipe(str(mine))
    mine.write_text("trainer: [}")
    with pytest.raises(UsageError, match="mine"):
        load_recipe(str(mine))


def test_saved_settings_come_back_the_same(tmp_path: Path) -> None:
    config = load_recipe("quickstart", ["seed=4", "rewards.weights.diff_similarity=0.25", "run=x"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_saved(tmp_path / "config.yaml") == config
    assert load_saved(tmp_path / "config.yaml", ["trainer.max_steps=9"]).trainer.max_steps == 9
    with pytest.raises(UsageError, match=r"trainer\.max_steps"):
        load_saved(tmp_path / "config.yaml", ["max_steps=9"])
    with pytest.raises(UsageError, match=r"(?s)trainer\.max_steps: .*'abc'.*It is int"):
        load_saved(tmp_path / "config.yaml", ["trainer.max_steps=abc"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: x", "'x'.*Another version"),
        ("trainr: {x: 1}", "trainr.*Another version"),
        ("- 1", "has no settings"),
        ("a: [", "not valid YAML"),
        (None, "not a run folder"),
    ],
)
def test_saved_settings_that_cannot_be_read(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CrrlError, match=f"(?s){says}") as caught:
        load_saved(file)
    assert caught.value.exit_code == 1 and str(file) in caught.value.message


def test_rewards_that_are_all_zero_are_refused() -> None:
    with pytest.raises(UsageError, match="all 0"):
        load_recipe("quickstart", ["rewards.weights.tests=0", "rewards.weights.format=0"])
