"""A command line as the agent: in the box, over its own socket, to a verdict; and whose fault what is (invariant 2)."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from agents_kit import FILE, NEW, gcd_task
from rollout_kit import attempt, rollout_config

from crrl.agents import make
from crrl.conf.load import load_recipe, load_saved, to_yaml
from crrl.conf.recipes import FOLDER, ready
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.errors import CrrlError, LostError, UsageError
from crrl.models import model_folder
from crrl.rollout.api import Episode
from crrl.rollout.episode import run_episode
from crrl.rollout.worker import build

# The smallest agent there is: asks what to run, runs it, says what came, until it is told no more.
AGENT = """
import json, os, subprocess, sys, urllib.error, urllib.request
messages = [{"role": "user", "content": sys.argv[1]}]
while True:
    body = json.dumps({"model": os.environ["MODEL"], "messages": messages}).encode()
    head = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, head)
    try:
        message = json.load(urllib.request.urlopen(request))["choices"][0]["message"]
    except urllib.error.HTTPError as error:
        sys.exit(json.load(error)["error"]["code"])
    messages.append(message)
    if not message["content"].startswith("$ "):
        sys.exit(0)
    done = subprocess.run(message["content"][2:], shell=True, capture_output=True, text=True)
    messages.append({"role": "user", "content": done.stdout + done.stderr})
"""
SED = f"$ sed -i 's/gcd(a % b, b)/gcd(b, a % b)/' {FILE}"
Run = Callable[..., Any]


@pytest.fixture
async def run(state_dir: Path, test_data: Path) -> AsyncIterator[Run]:
    """run(answers, *settings) -> Episode: the policy gives these answers in turn."""
    folder = state_dir / "agents" / "small"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.py").write_text(AGENT)
    tokenizer = load_tokenizer(model_folder("tiny"))
    async with AsyncExitStack() as closing:

        async def one(answers: Sequence[str], *settings: str, task: Any = None) -> Episode:
            ids = [tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"] for text in answers]
            given = ["agent=command", "agent.mounts=[small:/opt/agent]", "agent.tokens=4096", *settings]
            if not any(s.startswith("agent.command=") for s in settings):
                given.append("agent.command=python3 /opt/agent/agent.py {{ instruction }}")
            config = rollout_config(state_dir, "unix:unused", *given)
            parts = await build(config, ScriptedEngine(ids, step=16, context=1 << 16), closing)
            return await run_episode(attempt(task=task or gcd_task(test_data)), parts)

        yield one


async def test_a_repair_is_scored_and_every_sampled_token_recorded(run: Run) -> None:
    episode = await run([f"$ cat {FILE}", SED, "Done."])
    assert (episode.outcome, episode.exit_reason, episode.agent_output) == ("scored", "finished", "")
    assert episode.verdict.solved and f"+        {NEW}" in episode.patch and episode.well_formed
    assert [s.delivery for s in episode.samples] == ["delivered"] * 3
    assert [s.parent for s in episode.samples] == [None, episode.samples[0].id, episode.samples[1].id]


async def test_exit_code_0_is_no_success_and_another_no_loss(run: Run) -> None:
    lazy = await run(["Done."])
    assert (lazy.outcome, lazy.exit_reason, lazy.verdict.solved) == ("scored", "finished", False)
    failing = await run([SED, "Done."], "agent.command=python3 /opt/agent/agent.py x; exit 3")
    assert (failing.outcome, failing.exit_reason, failing.verdict.solved) == ("scored", "error", True)


async def test_an_agent_that_dies_is_scored_on_what_it_left(run: Run) -> None:
    command = f"sed -i 's/gcd(a % b, b)/gcd(b, a % b)/' {FILE}; echo last words; kill -9 -1"
    episode = await run([], f"agent.command={command}")
    assert (episode.outcome, episode.exit_reason, episode.verdict.solved) == ("scored", "error", True)
    assert episode.agent_output.startswith("last words")


async def test_budgets_end_it_by_the_gateways_own_error(run: Run) -> None:
    episode = await run([SED, "$ true", "$ true"], "agent.turns=2")
    assert (episode.outcome, episode.exit_reason) == ("truncated", "turn_limit")
    assert episode.agent_output == "context_length_exceeded\n" and episode.verdict.solved


async def test_the_wall_limit_keeps_what_it_printed(run: Run) -> None:
    episode = await run([], "agent.command=echo started; sleep 300", "agent.wall_s=1")
    assert (episode.outcome, episode.exit_reason, episode.agent_output) == ("truncated", "time_limit", "started\n")


async def test_no_issue_breaks_out_of_its_word(run: Run, test_data: Path) -> None:
    issue = """'; touch a; "; touch b; $(touch c) `touch d` \\'\n--help $HOME {{ x }} ${y} *"""
    task = dataclasses.replace(gcd_task(test_data), issue=issue)
    show = "import sys; print(repr(sys.argv[1:]))"
    line = f"python3 -c {shlex.quote(show)} {{{{ instruction }}}} '{{{{ task.issue }}}}' \"{{{{ model }}}}\"; ls"
    episode = await run([], f"agent.command={line}", "agent.instruction=Repair: {{ task.issue }}", task=task)
    said, *files = episode.agent_output.splitlines()
    words = ast.literal_eval(said)
    assert words[0] == f"Repair: {issue}" and words[-1] == "policy"
    assert not {"a", "b", "c", "d"} & set(files) and episode.patch == ""


async def test_files_environment_and_what_an_agent_finds(run: Run) -> None:
    show = "cat ~/.config/small/config.toml; echo; env | sort; ls /opt/agent; id -u"
    files = "{.config/small/config.toml: 'url = \"{{ base_url }}\"'}"
    episode = await run([], f"agent.command={show}", f"agent.files={files}", "agent.env.MINE={{ model }}-1")
    lines = episode.agent_output.splitlines()
    assert lines[0].startswith('url = "http://127.0.0.1:8000/v1"')
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    assert env["OPENAI_BASE_URL"] == env["OPENAI_API_BASE"] == "http://127.0.0.1:8000/v1"
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8000" and env["MINE"] == "policy-1"
    assert env["OPENAI_API_KEY"] == env["ANTHROPIC_API_KEY"] != "" and env["HOME"] == "/home/agent"
    assert lines[-2:] == ["agent.py", "1000"]


async def test_what_cannot_be_started_for_our_fault_is_lost(run: Run, test_data: Path) -> None:
    task = dataclasses.replace(gcd_task(test_data), issue="x" * 200_000)
    with pytest.raises(LostError, match="agent_start"):
        await run([], task=task)


def test_a_missing_agent_names_its_install_line(tmp_path: Path) -> None:
    config = load_recipe("quickstart", ["agent=mini-swe-agent"])
    with pytest.raises(CrrlError, match="does not exist") as caught:
        make(config.agent, tmp_path)
    assert "pip install mini-swe-agent==" in caught.value.remedy


@pytest.mark.parametrize("name", ready("agent"))
def test_ready_configurations(name: str, tmp_path: Path) -> None:
    """Each composes, over a recipe and over a saved run, and pins what it installs."""
    raw = yaml.safe_load((FOLDER / "agent" / f"{name}.yaml").read_text())
    given = ["agent.command=x"] if name == "command" else []
    given += [f"model.path={model_folder('tiny')}"] if raw["name"] == "answer" else []
    given += [f"corpus.ask={ask}" for ask in ("classify", "implement") if raw.get("prompts", "").startswith(ask)]
    config = load_recipe("quickstart", [f"agent={name}", *given])
    recipe = load_recipe("quickstart")
    assert config.agent.turns == raw.get("turns", recipe.agent.turns) and config.agent.name == raw["name"]
    (tmp_path / "config.yaml").write_text(to_yaml(recipe))
    assert load_saved(tmp_path / "config.yaml", [f"agent={name}", *given]).agent == config.agent
    if raw["name"] == "command" and name not in ("command", "whole-file"):  # a program of others
        assert "==" in raw["install"] or "@" in raw["install"]
        told = raw["command"] + str(raw.get("files"))
        assert raw["mounts"] == [f"{name}:/opt/agent"] and ("{{ instruction }}" in told or "INSTRUCTION" in told)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["agent=comand"], "agent=comand"),
        (["agent=command"], "agent.command is empty"),
        (["agent=command", "agent.command=x {{ task.solution }}"], "agent.command"),
        (["agent=command", "agent.command=x", "agent.env.A={{ nothing }}"], "agent.env.A"),
        (["agent=command", "agent.command=x", "agent.prompts=full"], "agent.prompts"),
        (["agent.command=x"], "agent.command"),
    ],
)
def test_settings_that_cannot_be_meant(settings: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace(".", r"\.")):
        load_recipe("quickstart", settings)


def test_a_recipe_of_ones_own_finds_them(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("defaults: [quickstart, agent: pi, _self_]\nagent: {turns: 9}\n")
    config = load_recipe(str(mine))
    assert config.agent.turns == 9 and "pi" in config.agent.command
    assert "aider" in load_recipe(str(mine), ["agent=aider"]).agent.command
