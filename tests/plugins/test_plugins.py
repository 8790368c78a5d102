"""Parts of other distributions: those of docs/plugins.md as they stand there, in real runs; and what can be wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from judge_kit import make_task

from crrl import agents, engines, registry, rewards, sandbox
from crrl.conf import schema
from crrl.conf.load import load_recipe
from crrl.engines.load import load_tokenizer
from crrl.errors import CrrlError, UsageError
from crrl.gateway.renderer import load_renderer
from crrl.learning import losses
from crrl.learning.source import step_batch
from crrl.models import model_folder
from crrl.report.trackers.api import TrackedRun
from crrl.report.trackers.fan_out import Trackers
from crrl.rollout.journal import TRAIN, Journal
from crrl.sandbox.api import Spec
from crrl.task import Source
from crrl.tasks import corpora

DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOCS, re.DOTALL)
MODULES = {code.split("\n", 1)[0].removeprefix("# "): code for language, code in BLOCKS if language == "python"}
PROJECT = tomllib.loads(next(code for language, code in BLOCKS if language == "toml"))["project"]


def distribution(site: Path, name: str, entry_points: dict[str, dict[str, str]] | str, **modules: str) -> Path:
    """What `pip install` leaves: modules, and a dist-info folder with the entry points."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if not isinstance(entry_points, str):
        groups = [f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for g, names in entry_points.items()]
        entry_points = "\n".join(groups)
    (info / "entry_points.txt").write_text(entry_points)
    for module, code in modules.items():
        (site / f"{module}.py").write_text(code)
    return site


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The distribution of docs/plugins.md."""
    modules = {name.removesuffix(".py"): code for name, code in MODULES.items()}
    return distribution(tmp_path / "site", PROJECT["name"], PROJECT["entry-points"], **modules)


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder on sys.path, for parts that are looked up in this process."""

    def forget() -> None:
        registry.parts.cache_clear()
        registry._plugged_in.cache_clear()

    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    known = set(sys.modules)
    forget()
    yield tmp_path / "site"
    forget()
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def crrl(site: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "crrl.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.timeout(300)
def test_a_corpus(example: Path) -> None:
    right = {
        "name": "inc",
        "buggy": "def inc(x):\n    return x\n",
        "tests": "from bug import inc\n\n\ndef test_inc():\n    assert inc(1) == 2\n",
        "issue": "inc(1) is 1",
        "failing": "test_inc",
        "repair": "--- a/bug.py\n+++ b/bug.py\n@@ -1,2 +1,2 @@\n def inc(x):\n-    return x\n+    return x + 1\n",
    }
    (example.parent / "bugs.jsonl").write_text(f"{json.dumps(right)}\n{json.dumps({'name': 'no more'})}\n")
    done = crrl(example, "tasks", "list", "my-bugs", "path=bugs.jsonl", code=1)
    assert done.stdout.split() == ["my-bugs/inc", "train", "my-bugs"]  # the wrong row is told, the rest goes on
    assert "bugs.jsonl:2: tests: missing" in done.stderr
    done = crrl(example, "tasks", "check", "my-bugs", "path=bugs.jsonl", "out=tasks.jsonl", "times=1", code=1)
    assert "my-bugs/inc" in (example.parent / "tasks.jsonl").read_text(), done.stdout  # fails as it is, passes repaired
    assert "'my-bugs'" in crrl(example, "tasks", "list", "my-bug", code=2).stderr


SMALL = ("evaluation.tasks_per_split=2", "evaluation.splits=[rl_instances]", "evaluation.decodings=[sampled]")


def episodes(run: Path, phase: str) -> list:  # type: ignore[type-arg]
    with Journal.open(run, read_only=True) as journal:
        return [journal.episode(id, phase) for id in journal.finished(phase)]


@pytest.mark.timeout(300)
def test_a_run_trains_with_an_engine_a_reward_an_advantage_and_a_loss(example: Path, state_dir: Path) -> None:
    crrl(
        example,
        *("train", "quickstart", "run=r", f"sandbox.state_dir={state_dir}", "engine.name=watched"),
        *("rewards.weights.short_patch=0.5", "rewards.options.short_patch.budget=1"),
        *("objective.advantage=ranked", "objective.loss=reinforce", "evaluation.before=false", *SMALL),
        *("trainer.max_steps=1", "objective.groups_per_step=2", "objective.group_size=4"),
    )
    run = example.parent / "runs" / "r"
    assert yaml.safe_load((run / "config.yaml").read_text())["rewards"]["options"] == {"short_patch": {"budget": 1}}
    trained = [e for e in episodes(run, TRAIN) if e.verdict is not None]
    for episode in trained:
        parts = episode.verdict.components
        lines = episode.patch.splitlines()
        changed = sum(line[:1] in ("+", "-") and line[:3] not in ("+++", "---") for line in lines)
        assert parts["short_patch"] == min(1.0, 1 / max(1, changed))
        weighed = parts["tests"] + 0.3 * parts["format"] + 0.5 * parts["short_patch"]
        assert episode.verdict.reward == pytest.approx(weighed)
    assert len(trained) == 8 and any(e.verdict.components["short_patch"] < 1 for e in trained)
    asked = len((example.parent / "prompts.log").read_text().splitlines())
    assert asked >= sum(len(e.samples) for e in trained)


@pytest.mark.timeout(300)
def test_an_agent_works_in_a_run(example: Path, state_dir: Path) -> None:
    where = [f"sandbox.state_dir={state_dir}", "run=r", "trainer.max_steps=0", *SMALL]
    crrl(example, "train", "quickstart", "agent.name=one_command", "agent.options.ask=PLEASE", *where)
    run = example.parent / "runs" / "r"
    with Journal.open(run, read_only=True) as journal:
        phases = journal.phases()
    assert phases["after"] == 2
    tokenizer = load_tokenizer(model_folder("tiny"))
    for episode in episodes(run, "after"):
        assert "failed_commands" in episode.counts and len(episode.samples) == 1
        assert "PLEASE" in tokenizer.decode(episode.samples[0].prompt_ids)


async def test_a_sandbox_and_a_renderer(path: Path, state_dir: Path) -> None:
    code = """
from crrl.gateway.renderer.load import family
from crrl.sandbox.bubblewrap import BubblewrapSandbox

def mine(source, key):
    renderer = family(source, "qwen3")
    renderer.key = key
    return renderer

class Mine(BubblewrapSandbox):
    async def start(self, spec):
        box = await super().start(spec)
        await box.write("made-by", b"mine")
        return box
"""
    names = {"crrl.renderers": {"mine": "my_parts:mine"}, "crrl.sandboxes": {"mine": "my_parts:Mine"}}
    distribution(path, "mine", names, my_parts=code)
    config = load_recipe("quickstart", ["renderer.key=mine", "sandbox.name=mine"])
    renderer = load_renderer(model_folder("tiny"), config.renderer.key)
    assert (renderer.key, renderer.stop_ids) == ("mine", load_renderer(model_folder("tiny"), "qwen3").stop_ids)
    boxes = sandbox.make(config.sandbox.name, state_dir=state_dir)
    box = await boxes.start(Spec(await boxes.prepare(Source(files={"a.py": ""}))))
    assert (await box.exec(["cat", "made-by"])).output == "mine"
    await box.close()
    await boxes.close()


OUR_OWN = {
    "crrl.engines": "local",
    "crrl.agents": "builtin",
    "crrl.rewards": "tests",
    "crrl.advantages": "centred",
    "crrl.losses": "grpo",
    "crrl.corpora": "swe-gym",
    "crrl.renderers": "qwen3",
    "crrl.sandboxes": "bubblewrap",
    "crrl.trackers": "wandb",
}


@pytest.mark.parametrize("group", registry.GROUPS)
def test_no_part_hides_another(path: Path, group: str) -> None:
    distribution(path, "crrl", {group: {"mine": "one:A"}})
    distribution(path, "two", {group: {"mine": "two:A"}})
    with pytest.raises(CrrlError, match=r"(?s)'mine' \(one:A, from crrl\).*'mine' \(two:A, from two\).*uninstall two"):
        registry.names(group)
    registry._plugged_in.cache_clear()
    (path / "two-1.0.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{OUR_OWN[group]} = two:A\n")
    with pytest.raises(CrrlError, match=f"(?s)'{OUR_OWN[group]}', and .*from two.*uninstall two"):
        registry.names(group)


@pytest.mark.parametrize(
    ("entry_points", "says"),
    [
        ("[crrl.reward]\nx = a:B", r"crrl\.reward, which is no group.*'crrl\.rewards'"),
        ("[crrl.rewards]\nx = a.B", "'a.B' is not MODULE:ATTRIBUTE"),
        ("[crrl.rewards]\nx = ", "is not MODULE:ATTRIBUTE"),
        ("[crrl.rewards]\nnothing", "cannot be read"),
        ("[crrl.rewards]\nx = a:B\nx = c:D", r"'x' \(a:B, from odd\).*'x' \(c:D, from odd\)"),
    ],
)
def test_entry_points_that_cannot_be_meant(path: Path, entry_points: str, says: str) -> None:
    distribution(path, "odd", entry_points)
    with pytest.raises(CrrlError, match=f"(?s){says}") as caught:
        registry.names("crrl.rewards")
    assert "odd" in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class A: pass", "no attribute 'B'"),
        (None, "ModuleNotFoundError"),
    ],
)
def test_a_part_that_cannot_be_imported(path: Path, code: str | None, says: str) -> None:
    modules = {} if code is None else {"broken_part": code}
    distribution(path, "broken", {group: {"x": "broken_part:B"} for group in registry.GROUPS}, **modules)
    for group in registry.GROUPS:
        with pytest.raises(CrrlError, match=f"(?s)'x' .broken_part:B, from broken.*{says}.*uninstall broken"):
            registry.find(group, "x").load()
    load_recipe("quickstart")  # who does not use it is not stopped
    for setting in (
        "agent.name=x",
        "engine.name=x",
        "rewards.weights.x=1",
        "objective.loss=x",
        "renderer.key=x",
        "tracker=x",
    ):
        with pytest.raises(CrrlError, match="from broken"):
            load_recipe("quickstart", [setting])


MAKE: dict[str, Callable[[], object]] = {
    "crrl.engines": lambda: engines.make("x", Path("model"), context=None, max_batch=1),
    "crrl.agents": lambda: agents.make(schema.Agent(name="x"), Path("state")),
    "crrl.rewards": lambda: rewards.make("x", {}),
    "crrl.losses": lambda: losses.make(schema.Objective(loss="x")),
    "crrl.corpora": lambda: corpora.find("x"),
    "crrl.renderers": lambda: load_renderer("model", "x"),
    "crrl.sandboxes": lambda: sandbox.make("x", state_dir=Path("state")),
    "crrl.trackers": lambda: Trackers(TrackedRun("1", "r", Path("r"), {}, schema.Tracker(name=["x"])), print),
}


@pytest.mark.parametrize("group", MAKE)
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class B:\n    def __init__(self, *given, **named): pass", "has no `|is no Corpus"),
        ("class B:\n    def __init__(self, a, b, c, d): pass", "cannot be made: TypeError|is missing|is no Corpus"),
        ("class B:\n    def __init__(self, *given, **named): 1 / 0", "cannot be made: ZeroDivision|is no Corpus"),
        ("B = None", "cannot be made: TypeError|cannot be read: TypeError|is no Corpus"),
    ],
)
def test_a_part_that_is_none(path: Path, group: str, code: str, says: str) -> None:
    """Told with its name, and what it lacks, when it is made: not at the first episode."""
    distribution(path, "poor", {group: {"x": "poor_part:B"}}, poor_part=code)
    with pytest.raises(CrrlError, match=r"'x' \(poor_part:B, from poor") as caught:
        MAKE[group]()
    assert re.search(says, str(caught.value))


def test_a_loss_of_another_mean(path: Path) -> None:
    code = "class B:\n    mean = 'all'\n    def __init__(self, objective): pass\n    def __call__(self): pass"
    distribution(path, "poor", {"crrl.losses": {"x": "poor_part:B"}}, poor_part=code)
    with pytest.raises(CrrlError, match=r"from poor\) has mean = 'all'.*rows, tokens, step"):
        losses.make(schema.Objective(loss="x"))


def test_an_engine_that_takes_no_weights_evaluates_and_is_not_trained(path: Path) -> None:
    code = "class B:\n    generate = score = cancel = info = close = None\n    def __init__(self, *_, **__): pass"
    distribution(path, "frozen", {"crrl.engines": {"x": "frozen_engine:B"}}, frozen_engine=code)
    engines.make("x", Path("model"), context=None, max_batch=1)
    with pytest.raises(CrrlError, match=r"has no .*`push`, no `resting`"):
        engines.make("x", Path("model"), context=None, max_batch=1, trained=True)


def test_a_distribution_that_is_twice_on_the_path_is_one(path: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    distribution(path, "Same.One", {"crrl.rewards": {"x": "a:B"}})
    distribution(tmp_path / "second", "same-one", "[crrl.rewards]\nx = an older version, not like this")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "second")])
    assert registry.names("crrl.rewards").count("x") == 1


REWARD = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True)
class Typed:
    needed: int
    share: float = 0.5
    words: tuple[str, ...] = ()
    on: bool = False
    label: str | None = None

    def __post_init__(self):
        if self.needed < 0:
            raise ValueError("needed must not be negative")

    def __call__(self, task, patch, results, samples):
        return {1: float("nan"), 2: "much", 3: None}.get(self.needed, self.share)

class ByHand:
    def __init__(self, depth: int = 2): self.depth = depth
    def __call__(self, *_): return 1 / 0
"""


@pytest.fixture
def typed(path: Path) -> None:
    names = {"t": "typed_reward:Typed", "h": "typed_reward:ByHand"}
    distribution(path, "typed", {"crrl.rewards": names}, typed_reward=REWARD)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["t.needed=1.5"], "Expected `int`.*rewards.options.t.share"),
        (["t.needed=abc"], "Expected `int`"),
        (["t.needed=true"], "Expected `int`"),
        (["t.needed=null"], "Expected `int`"),
        (["t.needed=1", "t.share=high"], "Expected `float`"),
        (["t.needed=1", "t.words=[a,1]"], "Expected `str`"),
        (["t.needed=1", "t.on=1"], "Expected `bool`"),
        (["t.needed=1", "t.need=1"], "no such parameter.*t.needed"),
        ([], "t.needed is missing"),
        (["t.needed=1", "h.depth=x"], "h would be ignored"),
    ],
)
def test_options_are_checked(typed: None, settings: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){says}"):
        load_recipe("quickstart", ["rewards.weights.t=1", *(f"rewards.options.{setting}" for setting in settings)])


def test_options_arrive(typed: None) -> None:
    options = ["needed=7", "share=1", "words=[a,b]", "on=true", "label=x"]
    settings = ["rewards.weights.t=1", *(f"rewards.options.t.{option}" for option in options)]
    config = load_recipe("quickstart", settings)
    reward = rewards.make("t", config.rewards.options["t"]).reward  # type: ignore[attr-defined]
    assert (reward.needed, reward.share, reward.words, reward.on, reward.label) == (7, 1.0, ("a", "b"), True, "x")
    assert rewards.make("h", {"depth": 5}).reward.depth == 5  # type: ignore[attr-defined]
    assert "h" not in rewards.combine(config.rewards.weights, config.rewards.options).rewards  # no weight: not computed
    with pytest.raises(UsageError, match="must not be negative"):
        rewards.make("t", {"needed": -1})


@pytest.mark.parametrize(("name", "options", "says"), [("h", {}, "ZeroDivision"), ("t", {"needed": 1}, "gave nan")])
def test_a_reward_that_fails_is_told_by_its_name(typed: None, name: str, options: dict[str, int], says: str) -> None:
    with pytest.raises(registry.PartError, match=f"'{name}' .*{says}"):
        rewards.make(name, options)(make_task(), "", None, [])
    with pytest.raises(registry.PartError, match="ValueError"):
        rewards.make("t", {"needed": 2})(make_task(), "", None, [])
    assert rewards.make("t", {"needed": 3})(make_task(), "", None, []) is None


@pytest.mark.timeout(300)
def test_a_reward_that_fails_stops_the_run(tmp_path: Path, state_dir: Path) -> None:
    site = distribution(tmp_path / "site", "typed", {"crrl.rewards": {"h": "typed_reward:ByHand"}}, typed_reward=REWARD)
    where = [f"sandbox.state_dir={state_dir}", "run=r", *SMALL]
    told = crrl(site, "train", "quickstart", "rewards.weights.h=0.1", *where, code=1).stderr
    assert "reward 'h' (typed_reward:ByHand, from typed) failed" in told and "division by zero" in told


def test_advantages_of_ones_own_compare_a_group(path: Path) -> None:
    distribution(path, PROJECT["name"], PROJECT["entry-points"], objectives=MODULES["objectives.py"])
    ranked = registry.find("crrl.advantages", "ranked").load()
    assert ranked([0.1, 5.0, 0.2]) == [-1.0, 1.0, 0.0]
    assert ranked([1.0, 1.0, 0.0]) == [0.5, 0.5, -1.0]
    assert step_batch([], ranked).rows == []
