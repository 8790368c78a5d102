"""One episode: what its outcome is, and whose fault (invariant 2)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import httpx
import psutil
import pytest
from rollout_kit import BUGS, attempt

from crrl.agents.api import AgentExit, AgentLimits, Endpoint
from crrl.engines.scripted import ScriptedEngine
from crrl.errors import LostError, RunError
from crrl.gateway.canonical import Message
from crrl.learning.rows import rows_of
from crrl.rollout import episode as episode_module
from crrl.rollout.episode import Parts, run_episode
from crrl.sandbox.api import Box
from crrl.task import Command, Task


async def test_a_repair_is_scored(parts: Parts) -> None:
    episode = await run_episode(attempt(), parts)
    assert episode.outcome == "scored" and episode.exit_reason == "finished" and episode.well_formed
    assert episode.verdict is not None and episode.verdict.solved and episode.verdict.reward == 1.3
    assert episode.verdict.components["diff_similarity"] == 1.0
    assert BUGS[0].new_line in episode.patch
    assert [len(s.ids) == len(s.logprobs) == len(s.versions) for s in episode.samples] == [True] * 3
    looked = {"commands": 1, "files_read": 1, "tests_run": 0, "failed": 0, "repeated": 0, "turns_before_edit": 1}
    assert looked.items() <= episode.counts.items()
    assert {"start", "agent", "engine_wait", "patch", "judge"} <= set(episode.timings)


async def test_every_sampled_token_of_an_episode_is_trained_once(parts: Parts) -> None:
    """Token truth, through agent, client, gateway and renderer (invariant 1)."""
    episode = await run_episode(attempt(), parts)
    rows, counts = rows_of(episode, 1.0)
    sampled = [id for sample in episode.samples for id in sample.ids]
    (row,) = rows
    assert [id for id, trained in zip(row.ids, row.loss_mask, strict=True) if trained] == sampled
    assert counts.left_out == {} and row.ids == episode.samples[-1].prompt_ids + episode.samples[-1].ids


async def test_the_same_attempt_gives_the_same_episode(parts: Parts) -> None:
    first, second = [await run_episode(attempt(3), parts) for _ in range(2)]
    assert [s.ids for s in first.samples] == [s.ids for s in second.samples] and first.patch == second.patch
    assert second.verdict is not None and second.verdict.cached


class Scripted:
    """An agent of the test: does what it is told to the box."""

    inside, mounts = False, ()

    def __init__(self, act: Any) -> None:
        self.act = act

    async def run(self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits, what_now: Any) -> AgentExit:
        return await self.act(box, task, endpoint, limits)

    async def close(self) -> None: ...


def with_agent(parts: Parts, act: Any, **changed: Any) -> Parts:
    return dataclasses.replace(parts, agent=Scripted(act), **changed)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("finished", "scored"),
        ("error", "scored"),
        ("turn_limit", "truncated"),
        ("token_limit", "truncated"),
        ("time_limit", "truncated"),
        ("context_length", "truncated"),
    ],
)
async def test_outcomes(parts: Parts, reason: Any, outcome: str) -> None:
    async def act(*_: Any) -> AgentExit:
        return AgentExit(reason)

    episode = await run_episode(attempt(), with_agent(parts, act))
    assert episode.outcome == outcome and episode.exit_reason == reason
    assert episode.verdict is not None and not episode.verdict.solved and not episode.well_formed


async def test_an_agent_that_crashes_is_scored_on_what_it_left(parts: Parts) -> None:
    async def act(box: Box, task: Task, *_: Any) -> AgentExit:
        bug = BUGS[0]
        await box.write(bug.path, bug.fixed.encode())
        raise RuntimeError("agent bug")

    episode = await run_episode(attempt(), with_agent(parts, act))
    assert episode.outcome == "scored" and episode.exit_reason == "error"
    assert episode.verdict is not None and episode.verdict.solved


@pytest.mark.parametrize("error", [RuntimeError("agent bug"), asyncio.CancelledError(), KeyError("k"), TimeoutError()])
async def test_an_agent_that_fails_has_ended(parts: Parts, error: BaseException) -> None:
    """Its own failure, whatever it raises: never lost, and never an episode without an end."""

    async def act(*_: Any) -> AgentExit:
        raise error

    episode = await asyncio.wait_for(run_episode(attempt(), with_agent(parts, act)), 20)
    assert episode.outcome == "scored" and episode.exit_reason == "error"


async def test_a_cancelled_episode_leaves_no_agent_and_no_session(parts: Parts) -> None:
    """A run that is stopped: the agent may still be cleaning up, and its end is waited for."""
    began, ended = asyncio.Event(), False

    async def act(*_: Any) -> AgentExit:
        nonlocal ended
        try:
            began.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            ended = True
        raise AssertionError("not reached")

    running = asyncio.create_task(run_episode(attempt(), with_agent(parts, act)))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended
    with pytest.raises(KeyError):
        await parts.gateway.close(attempt().id)


@pytest.mark.parametrize("command", ["kill -9 -1", "kill -9 1", "kill -STOP -1 & sleep 60", ":(){ :|:& };: ; sleep 60"])
async def test_an_agent_that_attacks_its_own_box_is_scored(parts: Parts, command: str) -> None:
    """Lost needs a cause on our side of the wall."""

    async def act(box: Box, *_: Any) -> AgentExit:
        result = await box.exec(["bash", "-c", command], timeout_s=2)
        assert result.reason != "lost"
        return AgentExit("finished")

    assert (await run_episode(attempt(), with_agent(parts, act))).outcome == "scored"


async def test_an_agent_that_does_not_stop_is_stopped(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_module, "WALL_GRACE_S", 0.2)

    async def act(box: Box, *_: Any) -> AgentExit:
        await box.exec(["sleep", "100"], timeout_s=100)
        raise AssertionError("not reached")

    episode = await asyncio.wait_for(run_episode(attempt(), with_agent(parts, act, wall_s=0.3)), 20)
    assert episode.outcome == "truncated" and episode.exit_reason == "time_limit"


async def test_waiting_for_the_engine_is_not_charged(parts: Parts, engine: ScriptedEngine) -> None:
    with engine.resting():
        running = asyncio.create_task(run_episode(attempt(), dataclasses.replace(parts, wall_s=2.0)))
        await asyncio.sleep(3.0)
    episode = await running
    assert episode.outcome == "scored" and episode.exit_reason == "finished"
    assert episode.timings["engine_wait"] > 2.0


async def test_a_reward_that_takes_its_time_holds_up_no_other_agent(parts: Parts) -> None:
    weigh, longest = parts.weigh, 0.0

    def slowly(*args: Any, **named: Any) -> Any:
        time.sleep(2)
        return weigh(*args, **named)

    running = asyncio.create_task(run_episode(attempt(), dataclasses.replace(parts, weigh=slowly)))  # type: ignore[arg-type]
    while not running.done():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - began)
    assert (await running).verdict is not None and longest < 1.5


async def test_an_engine_that_fails_loses_the_try(parts: Parts, engine: ScriptedEngine) -> None:
    empty = ScriptedEngine([])
    parts.gateway.engine = empty
    with pytest.raises(LostError, match="engine_failed"):
        await run_episode(attempt(), parts)


async def test_a_box_that_dies_by_our_fault_loses_the_try(parts: Parts) -> None:
    async def act(box: Box, *_: Any) -> AgentExit:
        for process in psutil.Process().children(recursive=True):
            if process.name() == "bwrap":
                process.kill()
        result = await box.exec(["true"])
        raise LostError("sandbox_died") if result.reason == "lost" else AssertionError(result)

    with pytest.raises(LostError):
        await run_episode(attempt(), with_agent(parts, act))


async def test_set_up_runs_first_and_a_failing_one_is_our_fault(parts: Parts) -> None:
    made = "mkdir -p /environment/bin && printf '#!/bin/sh\\necho made' > /environment/bin/made"
    script = f"{made} && chmod +x /environment/bin/made"
    task = dataclasses.replace(attempt().task, setup=[Command(["bash", "-c", script])])

    async def act(box: Box, *_: Any) -> AgentExit:
        assert (await box.exec(["made"])).output == "made\n"  # below /environment, and on the path
        assert (await box.exec(["rm", "/environment/bin/made"])).code != 0
        return AgentExit("finished")

    await run_episode(attempt(task=task), with_agent(parts, act))
    broken = dataclasses.replace(task, setup=[Command(["bash", "-c", "echo no compiler; exit 2"])])
    with pytest.raises(LostError, match="no compiler"):
        await run_episode(attempt(task=broken), with_agent(parts, act))


async def test_sessions_cannot_reach_each_other(parts: Parts) -> None:
    """What an agent knows opens its own session alone, and only until its episode is over."""
    import httpx

    endpoints: list[Endpoint] = []

    async def act(box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        endpoints.append(endpoint)
        return AgentExit("finished")

    await run_episode(attempt(), with_agent(parts, act))
    body = json.dumps({"model": "policy", "messages": [{"role": "user", "content": "x"}]})
    async with httpx.AsyncClient() as client:
        headers = {"authorization": f"Bearer {endpoints[0].api_key}"}
        answer = await client.post(endpoints[0].base_url + "/chat/completions", content=body, headers=headers)
    assert answer.status_code in (401, 404)


async def _asks(endpoint: Endpoint, **body: Any) -> int:
    """One request of an agent of its own; the status of the answer."""
    message = {"model": endpoint.model, "messages": [{"role": "user", "content": BUGS[0].issue}], **body}
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{endpoint.base_url}/chat/completions", json=message, headers=headers)
    return answer.status_code


async def test_an_answer_cut_by_the_token_budget_is_truncated_whatever_the_agent_says(parts: Parts) -> None:
    async def act(box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        assert await _asks(endpoint) == 200
        return AgentExit("finished")

    cut = dataclasses.replace(parts, agent=Scripted(act), budget=dataclasses.replace(parts.budget, tokens=3))
    episode = await run_episode(attempt(), cut)
    assert (episode.outcome, episode.exit_reason) == ("truncated", "token_limit")
    assert [len(sample.ids) for sample in episode.samples] == [3]
    assert not episode.well_formed


async def test_an_answer_that_fills_the_context_is_truncated(parts: Parts) -> None:
    async def act(box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        assert await _asks(endpoint) == 200
        return AgentExit("finished")

    used = len(parts.gateway.renderer.prompt([Message("user", BUGS[0].issue)], []))
    cut = dataclasses.replace(parts, agent=Scripted(act), budget=dataclasses.replace(parts.budget, context=used + 4))
    episode = await run_episode(attempt(), cut)
    assert (episode.outcome, episode.exit_reason) == ("truncated", "context_length")


async def test_an_answer_cut_by_the_agents_own_limit_is_scored(parts: Parts) -> None:
    async def act(box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        assert await _asks(endpoint, max_tokens=3) == 200
        return AgentExit("finished")

    episode = await run_episode(attempt(), dataclasses.replace(parts, agent=Scripted(act)))
    assert (episode.outcome, episode.exit_reason) == ("scored", "finished")


@pytest.mark.parametrize("asked", [{"logit_bias": {"5": 1.0}}, {"n": 2, "temperature": "hot"}])
async def test_an_agent_whose_every_request_we_refuse_is_no_zero(parts: Parts, asked: dict[str, Any]) -> None:
    async def act(box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        assert [await _asks(endpoint, **asked) for _ in range(2)] == [400, 400]
        return AgentExit("finished")

    refused = dataclasses.replace(parts, agent=Scripted(act))
    if "logit_bias" in asked:
        with pytest.raises(RunError, match="refused every request of the agent: 'logit_bias'"):
            await run_episode(attempt(), refused)
    else:  # no request at all: the agent's own fault
        assert (await run_episode(attempt(), refused)).outcome == "scored"


async def test_one_request_that_we_refuse_beside_others_is_the_agents(parts: Parts) -> None:
    async def act(box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        assert [await _asks(endpoint, logit_bias={"5": 1.0}), await _asks(endpoint)] == [400, 200]
        return AgentExit("finished")

    assert (await run_episode(attempt(), dataclasses.replace(parts, agent=Scripted(act)))).outcome == "scored"
