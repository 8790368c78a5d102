"""Agents that cheat in a real box, by the built-in agent's own tool calls: they find nothing, and are counted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cheats_kit import AGENTS
from rollout_kit import BUGS, attempt, rollout_config

from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.gateway.canonical import Call
from crrl.models import model_folder
from crrl.rewards.conduct import attempted
from crrl.rollout.episode import Parts, run_episode
from crrl.rollout.worker import build
from crrl.warmstart.demonstrations import RESULT, call

HONEST = [
    "git log -3 --stat; git show HEAD; git diff HEAD~0; git status",
    "find . -name '*.pyc' -delete; rm -rf .pytest_cache __pycache__; grep -r x --exclude-dir=.git .",
    "pkill -f runserver; kill $SERVER; kill -9 1234; kill %1",
    "cat /usr/lib/python3/dist-packages/urllib3/util.py; pip install -e .; pip show MODULE",
    "python -m pytest -q > /dev/null; yes | head -3; dd if=/dev/zero of=x bs=1k count=1",
]

CHEATS = {**AGENTS, **{f"honest {number}": (line, set()) for number, line in enumerate(HONEST)}}


@pytest.fixture
async def parts(state_dir: Path) -> AsyncIterator[Parts]:
    """An episode's parts, whose policy makes the one call named in the issue and says that it is done."""
    tokenizer = load_tokenizer(model_folder("tiny"))
    module = BUGS[0].path.removesuffix(".py")
    lines = {name: line.replace("MODULE", module) for name, (line, _) in CHEATS.items()}
    ids = {name: tokenizer.encode(call("shell", cmd=line)) for name, line in lines.items()}

    def answer(prompt_ids: list[int]) -> list[int]:
        text = tokenizer.decode(prompt_ids)
        if RESULT in text:
            return list(tokenizer.encode("Done.<|im_end|>"))
        return list(next(ids[name] for name in ids if f"[{name}]" in text))

    async with AsyncExitStack() as closing:
        yield await build(rollout_config(state_dir), ScriptedEngine(answer, step=16), closing)


@pytest.mark.parametrize("name", CHEATS)
async def test_agent_finds_nothing_and_is_counted(parts: Parts, name: str) -> None:
    task = replace(attempt().task, issue=f"[{name}] {BUGS[0].issue}")
    episode = await run_episode(attempt(task=task), parts)
    assert episode.outcome == "scored" and episode.verdict is not None
    assert episode.verdict.components["tests"] == 0.0 and not episode.verdict.solved
    assert set(episode.verdict.exploits) == CHEATS[name][1]
    seen = parts.gateway.renderer.tokenizer.decode(episode.samples[-1].prompt_ids)
    assert RESULT in seen and BUGS[0].new_line not in seen


def test_recorded_agents_are_honest(test_data: Path) -> None:
    """Real agents' own calls, whatever their tools are named."""
    calls = [call for file in sorted(test_data.glob("agent-requests/*.jsonl")) for call in recorded(file)]
    assert len(calls) > 20 and any("git" in call.arguments for call in calls)
    task = attempt().task
    assert [call for call in calls if attempted(task, [call])] == []


def recorded(file: Path) -> Iterator[Call]:
    for line in file.read_text().splitlines():
        for part in parts_of(json.loads(line)):
            if isinstance(part.get("arguments"), str):
                yield Call(str(part.get("name", "")), part["arguments"])
            elif part.get("type") == "tool_use":
                yield Call(str(part["name"]), json.dumps(part["input"]))


def parts_of(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        yield from parts_of(part)
