"""Two runs that differ in one setting: for every setting there is, the comparison says it or has a reason not to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from crrl.agents.prompts import digest
from crrl.cli.main import main
from crrl.conf.recipes import FOLDER
from crrl.conf.schema import Agent, Config, keys
from crrl.evaluation.cells import Results
from crrl.evaluation.compare import compare
from crrl.evaluation.results import read
from crrl.evaluation.sets import PROMPTS, TASK_SETS
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal


def words(text: str) -> list[str]:
    return text.split()


SAID = words("""
agent.name agent.prompts agent.command agent.instruction agent.env agent.files agent.mounts agent.memory_mb
agent.install agent.options agent.turns agent.tokens agent.wall_s agent.command_s agent.output_chars
renderer.key renderer.calls engine.name engine.context engine.dtype
sandbox.name sandbox.memory_mb sandbox.processes sandbox.disk_mb sandbox.cpus
evaluation.temperature evaluation.top_p evaluation.top_k
""")
OF_TASKS = words("corpus.name corpus.ask corpus.functions corpus.held_out")
"""Said where it is not recorded what was asked; else their digests tell more: other tasks are refused."""
NOT_SAID = {
    "names, places and machines": "run runs_dir recipe sandbox.state_dir sandbox.cache_gb sandbox.images",
    "the noise: pairs are of tasks, not of seeds": "seed evaluation.samples",
    "which policy it is: what is compared": "model.path model.base engine.url engine.model engine.key_variable",
    "how fast it goes": """engine.max_batch engine.threads engine.device engine.install engine.environment
        engine.memory_gb engine.memory_share engine.tensor_parallel engine.replicas engine.transport engine.share
        rollout.concurrency rollout.judges rollout.tries rollout.watchdog_s""",
    "which tasks and cells there are: pairs are of those that both have": """evaluation.tasks_per_split
        evaluation.splits evaluation.decodings""",
    "how it was trained": "rewards objective adapter launch trainer rollout.staleness rollout.temperature",
    "of the corpus, too": """corpus.rl_share corpus.shuffle_labels corpus.curriculum corpus.pass_rate_low
        corpus.pass_rate_high""",
    "what else is done with it": "tracker evaluation.before evaluation.every evaluation.validation_tasks "
    "evaluation.checkpoint_rule evaluation.prices",
}


def reason(key: str) -> str:
    """Why a difference in it is not said; "": it has to be."""
    for why, words in NOT_SAID.items():
        if any(key == word or (word in GROUPS and key.startswith(f"{word}.")) for word in words.split()):
            return why
    return ""


GROUPS = ("rewards", "objective", "adapter", "launch", "trainer", "tracker")


def other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case list():
            return [*value, "x"]
        case dict():
            return {**value, "X": "y"}
    raise AssertionError(value)


def run_folder(folder: Path, *, tasks: dict[str, str] | None = None, prompts: str = "") -> Path:
    meta = {"seed": 0, TASK_SETS: {"s": tasks or {}}} | ({PROMPTS: {"after": prompts}} if prompts else {})
    with Journal.create(folder, meta) as journal:
        for i, solved in enumerate((True, False)):
            id, verdict = f"eval/after/s/sampled/t{i}", Verdict(float(solved), harness_version="h", solved=solved)
            journal.add_episode("after", Episode(id, id, f"t{i}", 0, 1, "scored", verdict=verdict))
    return folder


@contextmanager
def settings(folder: Path, change: dict[str, Any]) -> Iterator[None]:
    tree = asdict(Config())
    for key, value in change.items():
        at = tree
        *groups, last = key.split(".")
        for group in groups:
            at = at[group]
        at[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    yield


def differs(a: Path | Results, b: Path) -> dict[str, list[Any]]:
    return compare([a if isinstance(a, Results) else read(str(a)), read(str(b))]).differs


def test_every_setting_that_matters_is_said_and_each_of_the_others_has_a_reason(tmp_path: Path) -> None:
    known = {"t0": "x", "t1": "y"}
    plain, asked = run_folder(tmp_path / "a"), run_folder(tmp_path / "b", tasks=known)
    with settings(plain, {}), settings(asked, {}):
        first, first_asked = read(str(plain)), read(str(asked))
    for key in keys(Config):
        if not key.name:
            continue
        with settings(plain, {key.name: other(key.default)}):
            found = differs(first, plain)
        if key.name in (*SAID, *OF_TASKS):
            assert found and all(name == key.name or name.startswith(f"{key.name}.") for name in found), key.name
            with settings(asked, {key.name: other(key.default)}):
                assert differs(first_asked, asked) == (found if key.name in SAID else {})
        else:
            assert reason(key.name) and not found, f"{key.name}: said or not said, and why?"
    assert {key.name for key in keys(Config)} >= {*SAID, *OF_TASKS}


def test_a_run_that_is_older_than_a_setting_did_what_is_now_its_default(tmp_path: Path) -> None:
    a, b = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    with settings(a, {}):
        tree = asdict(Config())
        for group, word in (("evaluation", "top_p"), ("agent", "install"), ("renderer", "calls")):
            del tree[group][word]
        (b / "config.yaml").write_text(yaml.safe_dump(tree))
        assert not differs(a, b)
    with settings(a, {"evaluation.top_p": 0.9}):
        assert differs(a, b) == {"evaluation.top_p": [0.9, 1.0]}


@pytest.mark.parametrize("key", SAID)
def test_no_claim_is_judged_under_other_conditions(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    default = {k.name: k.default for k in keys(Config)}[key]
    with settings(a, {}), settings(b, {key: other(default)}):
        assert main(["criterion", str(a), str(b)]) == 1
        assert f"{key}" in capsys.readouterr().err
        assert main(["compare", str(a), str(b)]) == 0
        assert "Not measured in the same way:\n  " + key in capsys.readouterr().out


def test_the_same_name_of_other_prompts_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.yaml"
    text = (FOLDER / "prompts/full.yaml").read_text()
    own.write_text(text)
    agent = Agent(name="builtin", prompts=str(own))
    first = digest(agent)
    assert first == digest(Agent(name="builtin", prompts="full"))
    own.write_text(f"# a comment\n{text}")
    assert digest(agent) == first
    own.write_text(text.replace("the", "our"))
    assert digest(agent) not in ("", first)
    assert digest(Agent(name="answer", prompts="tiny")) != digest(Agent(name="builtin", prompts="tiny"))
    assert digest(Agent(name="command")) == ""
    a, b = (run_folder(tmp_path / name, prompts=of) for name, of in (("a", first), ("b", digest(agent))))
    with settings(a, {}), settings(b, {}):
        assert differs(a, b) == {"text of agent.prompts": [first, digest(agent)]}
        assert main(["criterion", str(a), str(b)]) == 1


def test_an_evaluation_does_not_go_on_with_other_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (FOLDER / "prompts/tiny.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text)
    small = ("evaluation.tasks_per_split=1", "evaluation.splits=[sft_instances]", "evaluation.decodings=[greedy]")
    assert main(["eval", "tiny", "agent.prompts=own.yaml", "run=one", "rollout.judges=1", *small]) == 0
    (tmp_path / "own.yaml").write_text(text.replace("{{ task.issue }}", "Now: {{ task.issue }}"))
    capsys.readouterr()
    assert main(["eval", "resume=one"]) == 1
    assert "not the one that this evaluation began with" in capsys.readouterr().err
