"""A second try after the tests' output (`Task.tries`): what the agent is told, what counts, what it costs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from rollout_kit import attempt, rollout_config

from crrl.agents.api import AgentExit, AgentLimits, WhatNow
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.errors import CrrlError, LostError
from crrl.learning.rows import rows_of
from crrl.models import model_folder
from crrl.rewards.api import TestResults
from crrl.rollout.api import Episode
from crrl.rollout.episode import Parts, run_episode
from crrl.rollout.journal import content_hash
from crrl.rollout.tries import LINE_CHARS, LINES, told
from crrl.rollout.worker import build
from crrl.sandbox.api import Box
from crrl.task import Task
from crrl.tasks.corpora import find, load

EXERCISE = "polyglot-python-grep"


@pytest.fixture
def task(test_data: Path) -> Task:
    """As admission leaves it, with two of its tests: the stub fails both."""
    (task,) = load(find("polyglot"), test_data / "polyglot", ids=[EXERCISE]).tasks
    assert task.tries == 2
    names = ("test_one_file_one_match_no_flags", "test_one_file_several_matches_no_flags")
    lists = [f"grep_test.py::GrepTest::{name}" for name in names]
    return dataclasses.replace(task, test=dataclasses.replace(task.test, fail_to_pass=lists, baseline=False))


@pytest.fixture
def reference(task: Task) -> str:
    """The exercise's own solution, out of its patch (which replaces all that is there)."""
    lines = (task.solution or "").splitlines()
    return "\n".join(line[1:] for line in lines if line[:1] in "+ " and not line.startswith("+++")) + "\n"


class Scripted:
    """An agent of the test: does what it is told to the box, and asks what now."""

    inside, mounts = False, ()

    def __init__(self, act: Any) -> None:
        self.act = act
        self.failures: list[AssertionError] = []  # an episode takes an agent's failure for the agent's own

    async def run(self, box: Box, task: Task, endpoint: Any, limits: AgentLimits, what_now: WhatNow) -> AgentExit:
        try:
            await self.act(box, limits, what_now)
        except AssertionError as failure:
            self.failures.append(failure)
        return AgentExit("finished")

    async def close(self) -> None: ...


async def play(parts: Parts, task: Task, act: Any) -> Episode:
    agent = Scripted(act)
    episode = await run_episode(attempt(task=task), dataclasses.replace(parts, agent=agent))
    for failure in agent.failures:
        raise failure
    return episode


async def test_a_second_try_goes_on_from_the_first_and_is_what_counts(parts: Parts, task: Task, reference: str) -> None:
    async def act(box: Box, limits: AgentLimits, what_now: WhatNow) -> None:
        await box.write("grep.py", b"def grep(pattern, flags, files):\n    return 'nothing'\n")
        await box.write("notes.txt", b"kept\n")
        again = await what_now()
        assert again is not None and again.box is not box
        assert "AssertionError: 'nothing' != " in again.message and "grep_test.py:" in again.message
        listed = await again.box.exec(["sh", "-c", "cat notes.txt; ls -A; grep nothing grep.py"])
        assert "kept" in listed.output and "return 'nothing'" in listed.output
        assert "grep_test.py" not in listed.output and ".crrl" not in listed.output
        with pytest.raises(LostError):
            await box.read("grep.py")  # nothing of the first try runs on
        await again.box.write("grep.py", reference.encode())
        assert await what_now() is None

    episode = await play(parts, task, act)
    assert episode.verdict is not None and episode.verdict.solved and episode.verdict.reward >= 1
    assert [v.solved for v in episode.earlier] == [False] and episode.earlier[0].reward < 1
    assert "+kept" in episode.patch and episode.timings["judge"] > 0


async def test_who_succeeds_at_first_is_not_asked_again(parts: Parts, task: Task, reference: str) -> None:
    async def act(box: Box, limits: AgentLimits, what_now: WhatNow) -> None:
        await box.write("grep.py", reference.encode())
        assert await what_now() is None

    episode = await play(parts, task, act)
    assert episode.verdict is not None and episode.verdict.solved and episode.earlier == []
    assert not episode.verdict.cached and episode.verdict.cpu_s > 0  # judged once, and counted once


async def test_tasks_have_one_try_unless_they_say_so(parts: Parts) -> None:
    async def act(box: Box, limits: AgentLimits, what_now: WhatNow) -> None:
        assert await what_now() is None
        assert (await box.exec(["true"])).code == 0

    assert (await play(parts, attempt().task, act)).earlier == []


async def test_judging_is_not_charged(parts: Parts, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    run = type(parts.judge).run_cached

    async def slowly(judge: Any, *args: Any) -> Any:
        await asyncio.sleep(0.5)
        return await run(judge, *args)

    monkeypatch.setattr(type(parts.judge), "run_cached", slowly)

    async def act(box: Box, limits: AgentLimits, what_now: WhatNow) -> None:
        before, start = limits.spent_s(), time.monotonic()
        await what_now()
        waited = time.monotonic() - start
        assert limits.spent_s() - before <= waited - 0.49

    start = time.monotonic()
    episode = await play(parts, task, act)
    took = time.monotonic() - start
    assert 0.98 < episode.timings["judge"] <= took - episode.timings["agent"]


async def test_a_judge_that_fails_between_tries_is_not_the_agents_fault(
    parts: Parts, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [LostError("judge_died"), CrrlError("no javac")]

    async def fail(*_: Any) -> Any:
        raise errors[0]

    monkeypatch.setattr(type(parts.judge), "run_cached", fail)

    async def act(box: Box, limits: AgentLimits, what_now: WhatNow) -> None:
        await what_now()

    while errors:
        with pytest.raises(type(errors[0]), match=str(errors[0])[:8]):
            await play(parts, task, act)
        errors.pop(0)


# The agents there are -----------------------------------------------------------------------------------------------


def call(name: str = "edit", **arguments: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.fixture
async def built(state_dir: Path) -> AsyncIterator[Any]:
    """built(answers, *settings) -> Parts whose policy gives these answers in turn."""
    tokenizer = load_tokenizer(model_folder("tiny"))
    async with AsyncExitStack() as closing:

        async def make(answers: list[str], *settings: str) -> Parts:
            ids = [tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"] for text in answers]
            engine = ScriptedEngine(ids, step=64, context=1 << 16)
            return await build(rollout_config(state_dir, "unix:unused", *settings), engine, closing)

        yield make


async def test_the_built_in_agent_goes_on_with_its_conversation(built: Any, task: Task, reference: str) -> None:
    stub = (task.source.files or {})["grep.py"]
    wrong = call(path="grep.py", old=stub, new=stub.replace("pass", "return 'nothing'"))
    right = call(path="grep.py", old=stub.replace("pass", "return 'nothing'"), new=reference)
    settings = ["agent.tokens=20000", "agent.turns=9"]
    hashes = set()
    for _ in range(2):
        parts = await built([wrong, "Done.", right, "Done."], *settings)
        episode = await run_episode(attempt(task=task), parts)
        assert episode.verdict is not None and episode.verdict.solved and len(episode.earlier) == 1
        assert episode.outcome == "scored" and episode.counts["turns"] == 4 and episode.counts["edits"] == 2
        assert episode.counts["repeated"] == episode.counts["commands"] == episode.counts["turns_before_edit"] == 0
        (row,), counts = rows_of(episode, 1.0)  # one conversation, each sampled token trained once
        assert counts.left_out == {} and sum(row.loss_mask) == sum(len(s.ids) for s in episode.samples)
        hashes.add(content_hash(episode))
    assert len(hashes) == 1  # what it is told does not differ from run to run (invariant 10)


async def test_what_failed_and_was_repeated_is_counted(built: Any, task: Task) -> None:
    look, read = (call("shell", cmd=cmd) for cmd in ("ls nowhere", "cat grep.py"))
    parts = await built([look, look, read, "Done.", "Done."], "agent.tokens=20000", "agent.turns=9")
    counts = (await run_episode(attempt(task=task), parts)).counts
    told = {"commands": 3, "files_read": 1, "tests_run": 0, "failed": 2, "repeated": 1}
    assert told.items() <= counts.items() and counts["turns_before_edit"] == counts["turns"] == 5


async def test_a_command_is_started_again_where_it_left_off(built: Any, task: Task) -> None:
    line = "echo $(ls | wc -l) files; echo made > made$(ls | wc -l); printf '%s' {{ instruction }} | tail -n 4"
    parts = await built([], "agent=command", f"agent.command={line}", "agent.mounts=[]")
    episode = await run_episode(attempt(task=task), parts)
    first, second = episode.agent_output.split(" files\n")[1:]
    assert "Fill in grep.py" in first and "The tests are right" not in first
    assert "The tests are right" in second and len(episode.earlier) == 1
    assert "+++ b/made" in episode.patch and episode.patch.count("+made") == 2
    assert episode.exit_reason == "finished" and episode.verdict is not None and not episode.verdict.solved


# What it is told ----------------------------------------------------------------------------------------------------


def test_the_message_is_cut_and_does_not_tell_the_time() -> None:
    lines = [f"line {i} {'x' * 900}" for i in range(100)]
    message = told(TestResults({}, output="\n".join(lines)))
    assert message.count("line ") == LINES and max(map(len, message.splitlines())) == LINE_CHARS
    timed = "--- FAIL: TestX (0.03s)\nFAIL\tgrep\t0.004s\n3 failed, 1 passed in 0.21s\n<O at 0x7f00aa> waits (3 items)"
    assert told(TestResults({}, output=timed)).startswith(
        "--- FAIL: TestX\nFAIL\tgrep\n3 failed, 1 passed\n<O> waits (3 items)\n"
    )
    slow = "1 failed in 61.02s (0:01:01)\nTest run finished after 64 ms\nTests: 1 failed, 1 total\nTime:    0.5 s\nend"
    assert told(TestResults({}, output=slow)).startswith("1 failed\nTest run finished\nTests: 1 failed, 1 total\n\nend")


def test_the_message_says_how_a_run_ended_that_printed_nothing() -> None:
    assert told(TestResults({}, reason="timeout")).startswith("The tests did not finish in time.\n")
    assert told(TestResults({})).startswith("The tests did not pass.\n")
