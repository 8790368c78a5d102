"""One episode, from a task to a verdict: box, session, agent, patch, judge.

The one place that says what an episode's outcome is (invariant 2): `truncated` if a budget ran out, else `scored`;
`lost` only through LostError, which is raised for causes on our side of the wall alone and is caught by the scheduler.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crrl.agents.api import Agent, AgentExit, AgentLimits, Endpoint, finished_within
from crrl.errors import CrrlError, LostError
from crrl.gateway import Budget, Gateway, SessionHandle, SessionRecord
from crrl.rewards import conduct
from crrl.rewards.judge import PytestJudge
from crrl.rewards.verdict import Combine
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.tries import Tries
from crrl.sandbox.api import GATEWAY_PORT, Box, Limits, Sandbox, Spec
from crrl.task import Task
from crrl.tasks.setup import toolchains
from crrl.tasks.setup.environments import Environment

log = logging.getLogger(__name__)

BUDGET_REASONS = {"turn_limit", "token_limit", "time_limit", "context_length"}
EXHAUSTED = {
    "turns": "turn_limit",
    "tokens": "token_limit",
    "seconds": "time_limit",
    "context": "context_length",
}
WALL_GRACE_S = 5.0  # an agent that does not stop by itself at its wall limit is stopped this much later
INSIDE_URL = f"http://127.0.0.1:{GATEWAY_PORT}/v1"  # of every session, as seen from its own box


@dataclass(frozen=True)
class Parts:
    """What episodes run on; shared by all of them."""

    sandbox: Sandbox
    gateway: Gateway
    agent: Agent
    judge: PytestJudge
    weigh: Combine
    box_limits: Limits
    budget: Budget
    wall_s: float
    command_s: float
    output_chars: int
    sockets: Path  # where agents inside a box are met: one socket per episode


async def run_episode(attempt: Attempt, parts: Parts) -> Episode:
    """One try at an attempt. Raises LostError: our side failed, and nothing of the try counts."""
    clock = _Timings()
    task = attempt.task
    workspace = await parts.sandbox.prepare(task.source)
    door = parts.sockets / secrets.token_hex(8) if parts.agent.inside else None
    mounts = (*parts.agent.mounts, *toolchains.mounts(task.test.needs))
    env = toolchains.environment(task.test.needs)
    if (environment := await _set_up(task, parts)) is not None:
        mounts, env = (*mounts, environment.mount), env | environment.variables

    async def start() -> Box:
        return await parts.sandbox.start(Spec(workspace, mounts, parts.box_limits, gateway_socket=door, env=env))

    tries = Tries(task, start, parts.judge, parts.weigh)
    try:
        box = await tries.first()
        clock.mark("start")
        exit, record = await _converse(box, door, attempt, parts, tries)
        clock.mark("agent")
        patch = await tries.patch()
        clock.mark("patch")
    finally:
        await tries.close()
    if record.engine_failed:
        raise LostError("engine_failed", record.engine_failed)
    results, cached = await tries.results()
    if tried := _conduct(task, record, parts.gateway):
        results = dataclasses.replace(results, exploits=list(dict.fromkeys([*results.exploits, *tried])))
    verdict = parts.weigh(task, patch, results, record.samples, cached=cached)
    clock.mark("judge")
    clock.move(tries.judging_s, "agent", "judge")
    reason = EXHAUSTED.get(record.exhausted, exit.reason)
    return Episode(
        id=attempt.id,
        group=attempt.group,
        task=task.id,
        attempt=attempt.attempt,
        seed=attempt.seed,
        outcome="truncated" if reason in BUDGET_REASONS else "scored",
        samples=record.samples,
        patch=patch,
        verdict=verdict,
        earlier=tries.earlier,
        exit_reason=reason,
        temperature=attempt.temperature,
        timings={**clock.spent, "engine_wait": record.engine_wait_s},
        counts=exit.counts,
        agent_output=exit.output,
        well_formed=reason == "finished" and bool(patch) and not exit.counts.get("malformed"),
    )


def _conduct(task: Task, record: SessionRecord, gateway: Gateway) -> list[str]:
    """What the policy tried in the box besides repairing, by name."""
    read = gateway.renderer.parse
    calls = [call for sample in record.samples for call in read(sample.ids, prompt_ids=sample.prompt_ids).calls]
    return conduct.attempted(task, calls)


def lost_episode(attempt: Attempt, error: LostError, tries: int) -> Episode:
    """What is left of an attempt whose last try was lost."""
    return Episode(
        id=attempt.id,
        group=attempt.group,
        task=attempt.task.id,
        attempt=attempt.attempt,
        seed=attempt.seed,
        outcome="lost",
        lost_reason=str(error),
        tries=tries,
        temperature=attempt.temperature,
    )


async def _set_up(task: Task, parts: Parts) -> Environment | None:
    """What the task's set-up built, once for its repository. A task whose set-up fails is our fault."""
    try:
        return await parts.judge.environment(task)
    except CrrlError as error:
        raise LostError("setup_failed", error.message) from error


async def _converse(
    box: Box, door: Path | None, attempt: Attempt, parts: Parts, tries: Tries
) -> tuple[AgentExit, SessionRecord]:
    """Let the agent work until it stops or is stopped. The session is closed in any case."""
    gateway = parts.gateway
    handle = gateway.open(attempt.id, parts.budget, seed=attempt.seed, temperature=attempt.temperature)
    try:
        endpoint = Endpoint(handle.base_url, handle.api_key, handle.model)
        if door is not None:
            await gateway.listen(attempt.id, door)
            endpoint = dataclasses.replace(endpoint, base_url=INSIDE_URL)
        exit = await _supervised(box, attempt.task, handle, endpoint, parts, tries)
    except BaseException:
        record = await gateway.close(attempt.id)
        if record.engine_failed:  # the cause; what the agent met is its consequence
            raise LostError("engine_failed", record.engine_failed) from None
        raise
    return exit, await gateway.close(attempt.id)


async def _supervised(
    box: Box, task: Task, handle: SessionHandle, endpoint: Endpoint, parts: Parts, tries: Tries
) -> AgentExit:
    """The agent under its wall budget, to which waiting for the engine and judging are not charged."""
    charged = _charged(handle, tries)
    limits = AgentLimits(
        turns=parts.budget.turns,
        tokens=parts.budget.tokens,
        wall_s=parts.wall_s,
        spent_s=charged,
        command_s=parts.command_s,
        output_chars=parts.output_chars,
    )
    running = asyncio.create_task(parts.agent.run(box, task, endpoint, limits, tries.again))
    try:
        if not await finished_within(running, parts.wall_s + WALL_GRACE_S, charged):
            return AgentExit("time_limit", detail="stopped from outside")
        return running.result()
    except LostError:
        raise
    except Exception as error:  # the agent's own failure: scored on what it left
        log.exception("agent failed on task %s", task.id)
        return AgentExit("error", detail=f"{type(error).__name__}: {error}")
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await running


def _charged(handle: SessionHandle, tries: Tries) -> Callable[[], float]:
    started = time.monotonic()
    return lambda: time.monotonic() - started - handle.engine_wait_s - tries.judging_s


class _Timings:
    """Wall seconds by part, each since the mark before it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.monotonic()

    def mark(self, part: str) -> None:
        now = time.monotonic()
        self.spent[part] = now - self._last
        self._last = now

    def move(self, seconds: float, source: str, target: str) -> None:
        self.spent[source] -= seconds
        self.spent[target] += seconds
