"""The benchmarks by name: each has tasks that it is about, says how they get here, and is asked in its own form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crrl.cli import eval as eval_verb
from crrl.cli.call import Call
from crrl.cli.eval import Wanted, planned
from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.conf.question_checks import ASK
from crrl.conf.recipes import FOLDER, ready
from crrl.errors import CrrlError, UsageError
from crrl.evaluation import presets, sets
from crrl.models import model_folder
from crrl.run.evaluate import Plan
from crrl.task import Task
from crrl.tasks import corpora
from crrl.tasks.asked import asked_of
from crrl.tasks.classification import pair_tasks
from crrl.tasks.files import write_tasks
from crrl.tasks.generator.generate import generate

PLAIN = str(model_folder("tiny"))  # a folder of the hub's form, to which no settings belong
PROMISED = """
swe-bench-verified swe-bench-lite swe-bench-multilingual gitbug-java defects4j bugsinpy quixbugs-python quixbugs-java
polyglot quickstart impossible implement spec classify sven secvuleval primevul
"""


def preset_of(name: str) -> presets.Preset:
    found = presets.find(name)
    assert found is not None
    return found


def some(preset: presets.Preset, count: int = 3) -> list[Task]:
    """Tasks as a task file of this benchmark has them."""
    if preset.asks == "classify":
        texts = [(f"int f{n}() {{ gets(b); }}", f"int f{n}() {{ fgets(b); }}") for n in range(count)]
        return [
            task
            for n, (old, new) in enumerate(texts)
            for task in pair_tasks(f"p{n}", preset.corpus, "test", old, new, "c", ["CWE-242"])
        ]
    tasks = [generate("sft_instances", 3, index, ask=preset.asks) for index in range(count)]
    return [replace(t, corpus=preset.corpus or "toolz", language=preset.language or "python") for t in tasks]


def plan(tmp_path: Path, *words: str) -> Plan:
    call = Call.of("eval", words)
    return planned(Wanted.of(call), call.settings, tmp_path)


def test_every_benchmark_that_is_promised_is_there_and_in_the_help() -> None:
    assert sorted(PROMISED.split()) == presets.names()
    for name in presets.names():
        assert name in eval_verb.HELP.replace(",", " ").replace("(", " ").replace(";", " ").split(), name


@pytest.mark.parametrize("name", presets.names())
def test_each_names_a_corpus_and_settings_that_hold(name: str) -> None:
    preset = preset_of(name)
    assert preset.title and bool(preset.bring) == (preset.corpus != "generated")
    if preset.corpus not in ("generated", ""):
        assert corpora.find(preset.corpus).name == preset.corpus and preset.source
    agent = [f"agent={preset.agent}"] if preset.agent else []
    config = load_recipe(preset.recipe, [*preset.words(), *agent, f"model.path={PLAIN}"])
    if preset.corpus == "generated":
        assert config.corpus.ask == preset.asks
    assert preset.asks in ASK.get(config.agent.name, {}).get(config.agent.prompts, {preset.asks})


@pytest.mark.parametrize("name", presets.names())
def test_each_says_what_it_is_and_what_to_bring(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = preset_of(name)
    for words in (["eval", name, "--help"], ["help", "eval", name]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{name}: ") and preset.title in said and f"crrl eval {name} MODEL" in said
    if preset.corpus and preset.corpus != "generated" and corpora.find(preset.corpus).fetch is not None:
        return  # its tasks come from the hub
    code = main(["eval", name, PLAIN, "renderer.key=generic-text", "agent=answer", "--dry-run"])
    if not preset.bring:
        assert code in (0, 2)  # answers are no form for all of them
        return
    assert code == 1
    told = capsys.readouterr().err
    assert f"{name} needs path=" in told and preset.bring.splitlines()[-1] in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", [n for n in presets.names() if preset_of(n).bring])
def test_each_takes_its_own_tasks_and_no_others(name: str, tmp_path: Path) -> None:
    preset, file = preset_of(name), tmp_path / "tasks.jsonl"
    own = some(preset)
    foreign = generate("sft_instances", 9, 0)  # a repair, of no corpus that has a benchmark
    write_tasks(file, [*own, foreign])
    found = sets.load(name, path=file)
    assert [task.id for task in found.tasks] == [task.id for task in own]
    assert (len(found.notes) == 1 and found.notes[0].startswith("1 tasks of")) or not preset.corpus
    write_tasks(file, [foreign])
    with pytest.raises(CrrlError, match=f"has no task of {name}") as refused:
        sets.load(name, path=file)
    assert preset.bring.splitlines()[0] in refused.value.remedy


@pytest.mark.parametrize("name", [n for n in presets.names() if preset_of(n).agent])
def test_a_model_without_settings_is_asked_in_the_form_of_the_benchmark(name: str, tmp_path: Path) -> None:
    preset, file = preset_of(name), tmp_path / "tasks.jsonl"
    words = [name, PLAIN, "renderer.key=generic-text"]
    if preset.bring:
        write_tasks(file, some(preset))
        words.append(f"path={file}")
    form = load_recipe(preset.recipe, [f"agent={preset.agent}", f"model.path={PLAIN}"])
    made = plan(tmp_path, *words)
    assert made.config.agent == form.agent and made.config.rewards == form.rewards
    tiny = f"{preset.agent}-tiny" if preset.asks == "classify" else "answer-tiny"
    assert plan(tmp_path, *words, f"agent={tiny}").config.agent.prompts.endswith("tiny")
    remote = plan(tmp_path, name, "gpt-x", *words[3:], "engine=remote", "engine.url=https://host/v1")
    assert remote.config.agent == form.agent and remote.config.engine.model == "gpt-x"
    assert remote.config.model.path == "tiny"
    assert plan(tmp_path, name, "tiny", *words[3:]).config.agent.name == "builtin", "it has settings of its own"


@pytest.mark.parametrize("name", [n for n in presets.names() if preset_of(n).held_out])
def test_the_drawn_ones_are_drawn_whatever_the_model_was_trained_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crrl.conf.load import to_yaml
    from crrl.run.folder import create

    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path / "own.jsonl", some(preset_of("spec")))
    config = load_recipe("quickstart", ["run=trained", "corpus.name=own.jsonl", "corpus.held_out=1", "seed=5"])
    create(tmp_path / "runs/trained", {"seed": 5, "checkpoint_rule": "last"}, to_yaml(config)).close()
    (tmp_path / "runs/trained/checkpoints/step-2").mkdir(parents=True)
    made = plan(tmp_path, name, "trained")
    assert (made.config.corpus.name, made.config.corpus.ask) == ("generated", preset_of(name).asks)
    assert made.config.seed == 5 and made.benchmark is None and made.drawn == name
    assert made.config.run == f"eval-{name}-trained"
    for word in ("corpus.name=own.jsonl", "corpus.ask=repair"):
        with pytest.raises(UsageError, match="names the tasks"):
            plan(tmp_path, name, "trained", word)
    with pytest.raises(UsageError, match="drawn from the seed"):
        plan(tmp_path, name, "trained", "limit=3")


def test_a_limit_parts_no_pair(tmp_path: Path) -> None:
    write_tasks(tmp_path / "sven.jsonl", some(preset_of("sven"), 9))
    for limit, expected in ((1, 2), (5, 6), (6, 6), (18, 18), (99, 18)):
        tasks = sets.load("sven", path=tmp_path / "sven.jsonl", limit=limit, seed=limit).tasks
        assert len(tasks) == expected
        pairs = [t.test.label.pair for t in tasks if t.test.label]
        assert all(pairs.count(pair) == 2 for pair in pairs)


AGENTS = ("builtin", "implementer", "command", "whole-file", *(name for name in ready("agent") if "answer" in name))


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("ask", ["repair", "implement", "classify"])
def test_prompts_that_ask_for_something_else_are_refused(agent: str, ask: str, tmp_path: Path) -> None:
    """Each ready agent that has prompts of ours, and some others, with each kind of task, generated and from a file."""
    settings = [f"agent={agent}", f"corpus.ask={ask}", f"model.path={PLAIN}"]
    settings += ["agent.command=true"] if agent == "command" else []
    fits = not (
        (agent.startswith("answer-classify") and ask != "classify")
        or (agent in ("answer", "answer-tiny", "answer-implement") and ask == "classify")
        or (agent in ("answer-implement", "implementer") and ask != "implement")
    )
    write_tasks(tmp_path / "own.jsonl", some(preset_of("sven")) if ask == "classify" else _plain(ask))
    words = ["own.jsonl", PLAIN, f"agent={agent}", *settings[3:]]
    words[0] = str(tmp_path / "own.jsonl")
    if fits:
        load_recipe("quickstart", settings)
        plan(tmp_path, *words)
        return
    with pytest.raises(UsageError, match="the tasks ask") as refused:
        load_recipe("quickstart", settings)
    named = {word.strip("(),:.") for word in refused.value.remedy.split() if word.startswith("agent=")}
    for word in named:
        load_recipe("quickstart", [word, *settings[1:]])  # the remedy is one
    assert named
    with pytest.raises(UsageError, match="the tasks ask"):
        plan(tmp_path, *words)


def test_tasks_that_cannot_be_trained_on_leave_no_run_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for tasks, said in (
        ([*some(preset_of("sven")), *_plain("repair")], "some of the tasks ask for a repair"),
        (_plain("repair"), "the tasks ask for a repair"),
    ):
        write_tasks(tmp_path / "own.jsonl", tasks)
        words = ["agent=answer-classify", f"model.path={PLAIN}", "renderer.key=generic-text", "corpus.held_out=1"]
        assert main(["train", "quickstart", "corpus.name=own.jsonl", *words]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "runs").exists()


def _plain(ask: str) -> list[Task]:
    tasks = [generate("sft_instances", 3, index, ask=ask) for index in range(2)]
    assert {asked_of(task) for task in tasks} == {ask}
    return tasks


def test_every_prompt_set_of_ours_says_what_it_asks_for() -> None:
    assert set(ASK["answer"]) == {file.stem for file in (FOLDER / "prompts/answer").glob("*.yaml")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["implement", "classify"])
def test_a_drawn_benchmark_from_its_tasks_to_its_card(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("evaluation.tasks_per_split=2", "evaluation.splits=[sft_instances]", "agent.tokens=24")
    words = ("samples=2", "renderer.key=generic-text", "rollout.concurrency=4", "rollout.judges=1", "run=drawn")
    assert main(["eval", name, PLAIN, *small, *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["evaluation"]["benchmark"] == name
    cell = told["splits"]["sft_instances"]["sampled"]["after"]
    assert (cell["total"], cell["lost"]) == (4, 0)
    card = (tmp_path / "runs/drawn/card.md").read_text()
    assert f"benchmark: {name}" in card and "pass@2" in card
    assert ("VD-S" in card) == (name == "classify") == ("classification" in told)
