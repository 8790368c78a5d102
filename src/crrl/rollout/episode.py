"""One episode, top to bottom: open a box, run the agent, take its patch, judge it, close.

Invariant 2, the outcome: `truncated` if a budget ran out, else `scored`. `lost` comes only from a LostError, which
means that our side failed; the scheduler catches it. `_end_of` alone decides whose fault it was that an agent stopped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from crrl.agents.api import Agent, AgentExit, AgentLimits, Endpoint, ExitReason, ended, finished_within
from crrl.errors import CrrlError, LostError, RunError
from crrl.gateway import Budget, Gateway, SessionHandle, SessionRecord
from crrl.gateway.canonical import Call
from crrl.rewards import conduct, signals
from crrl.rewards.api import Trace
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.verdict import Combine
from crrl.rollout.api import AT_THE_ENGINE, Attempt, Episode
from crrl.rollout.tries import Tries
from crrl.sandbox.api import GATEWAY_PORT, Box, Limits, Sandbox, Spec
from crrl.task import Task
from crrl.tasks.setup.setting import setting_of

log = logging.getLogger(__name__)

BUDGET_REASONS = {"turn_limit", "token_limit", "time_limit", "context_length"}
EXHAUSTED: dict[str, ExitReason] = {
    "turns": "turn_limit",
    "tokens": "token_limit",
    "seconds": "time_limit",
    "context": "context_length",
}
WALL_GRACE_S = 5.0  # an agent that ignores its wall limit is stopped this much later
INSIDE_URL = f"http://127.0.0.1:{GATEWAY_PORT}/v1"  # of every session, as its own box sees it


@dataclass(frozen=True)
class Parts:
    """What episodes run on; shared by all of them."""

    sandbox: Sandbox
    gateway: Gateway
    agent: Agent
    judge: TaskJudge
    weigh: Combine
    box_limits: Limits
    budget: Budget
    wall_s: float
    command_s: float
    output_chars: int
    sockets: Path  # holds one socket per episode whose agent runs inside the box


async def run_episode(attempt: Attempt, parts: Parts) -> Episode:
    """One try at an attempt. Raises LostError (our side failed, nothing of the try counts) or CrrlError (the task
    cannot run on this machine)."""
    task, clock = attempt.task, _Clock()
    tries = Tries(task, parts.sandbox, await _setting(task, parts), parts.judge, parts.weigh)
    try:
        box = await tries.new_box()
        clock.mark("start")
        exit, record = await _run_agent(box, attempt, parts, tries)
        clock.mark("agent", -tries.judging_s)
        patch = await tries.patch()
        clock.mark("patch")
    finally:
        await tries.close()
    results, cached = await tries.results()
    said = _said(record, parts.gateway)
    calls = [call for made, _ in said for call in made]
    if tried := conduct.attempted(task, calls):
        results = dataclasses.replace(results, exploits=list(dict.fromkeys([*results.exploits, *tried])))
    turns = signals.turns_of(said)
    counts = {**exit.counts, **signals.counts(turns)}
    commands = [text for call in calls for text in conduct.commands(call)]
    results = dataclasses.replace(results, trace=Trace(exit.output, counts, commands, turns))
    # In a thread: a patch of megabytes, or a reward that takes its time, must not hold up the other agents.
    verdict = await asyncio.to_thread(parts.weigh, task, patch, results, record.samples, cached=cached)
    clock.mark("judge", tries.judging_s)
    return Episode(
        id=attempt.id,
        group=attempt.group,
        task=task.id,
        attempt=attempt.attempt,
        seed=attempt.seed,
        outcome="truncated" if exit.reason in BUDGET_REASONS else "scored",
        samples=record.samples,
        patch=patch,
        verdict=verdict,
        earlier=tries.earlier,
        exit_reason=exit.reason,
        temperature=attempt.temperature,
        timings={**clock.spent, **_at_the_engine(record)},
        counts=counts,
        agent_output=exit.output,
        well_formed=exit.reason == "finished" and bool(patch) and not exit.counts.get("malformed"),
    )


def lost_episode(attempt: Attempt, error: LostError, tries: int) -> Episode:
    """The record of an attempt whose last try was lost."""
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


async def _setting(task: Task, parts: Parts) -> Spec:
    """All that the episode's boxes are made of. A set-up that fails is our fault, not the agent's."""
    workspace = await parts.sandbox.prepare(task.source)
    try:
        setting = await setting_of(task, parts.judge.environments)
    except CrrlError as error:
        raise LostError("setup_failed", error.message) from error
    mounts = (*parts.agent.mounts, *setting.mounts)
    socket = parts.sockets / secrets.token_hex(8) if parts.agent.inside else None
    return Spec(workspace, mounts, parts.box_limits, gateway_socket=socket, env=setting.env)


async def _run_agent(box: Box, attempt: Attempt, parts: Parts, tries: Tries) -> tuple[AgentExit, SessionRecord]:
    """The agent in its session, until it stops or its wall budget ends. Neither outlives this."""
    gateway, socket = parts.gateway, tries.spec.gateway_socket
    session = gateway.open(
        *(attempt.id, parts.budget),
        seed=attempt.seed,
        temperature=attempt.temperature,
        top_p=attempt.top_p,
        top_k=attempt.top_k,
    )
    limits = _limits(parts, session, tries)
    try:
        if socket is not None:
            await gateway.listen(attempt.id, socket)
        base_url = session.base_url if socket is None else INSIDE_URL
        endpoint = Endpoint(base_url, session.api_key, session.model, session.context)
        running = asyncio.create_task(parts.agent.run(box, attempt.task, endpoint, limits, tries.again))
        try:
            in_time = await finished_within(running, parts.wall_s + WALL_GRACE_S, limits.spent_s)
        finally:
            await ended(running)
    finally:
        record = await gateway.close(attempt.id)
    return _end_of(running, in_time, record), record


def _limits(parts: Parts, session: SessionHandle, tries: Tries) -> AgentLimits:
    """The agent's budgets. What is spent at the engine, or by the judge between tries, is not charged."""
    started = time.monotonic()
    return AgentLimits(
        turns=parts.budget.turns,
        tokens=parts.budget.tokens,
        wall_s=parts.wall_s,
        spent_s=lambda: time.monotonic() - started - session.engine_wait_s - tries.judging_s,
        command_s=parts.command_s,
        output_chars=parts.output_chars,
    )


def _end_of(running: asyncio.Task[AgentExit], in_time: bool, record: SessionRecord) -> AgentExit:
    """Why the agent stopped, and whose fault that was: ours is raised, the agent's own is scored on what it left."""
    if record.engine_failed:  # the cause; whatever the agent met or did then follows from it
        raise LostError("engine_failed", record.engine_failed)
    if record.refused:
        raise RunError(
            f"The gateway refused every request of the agent: {record.refused}",
            "The agent and renderer.key (or what the agent sends) do not fit together: change one of them.",
        )
    if not in_time:
        exit = AgentExit("time_limit", detail="stopped from outside")
    elif running.cancelled():
        exit = AgentExit("error", detail="the agent cancelled itself")
    elif (error := running.exception()) is None:
        exit = running.result()
        if not isinstance(exit, AgentExit):
            exit = AgentExit("error", detail=f"the agent returned {exit!r:.200}, not an AgentExit")
    elif isinstance(error, LostError | CrrlError):  # the box, the endpoint or the judge failed under the agent
        raise error
    else:
        log.error("the agent failed", exc_info=error)
        exit = AgentExit("error", detail=f"{type(error).__name__}: {error}")
    return dataclasses.replace(exit, reason=EXHAUSTED.get(record.exhausted, exit.reason))


def _at_the_engine(record: SessionRecord) -> dict[str, float]:
    """`api.AT_THE_ENGINE`."""
    return dict(zip(AT_THE_ENGINE, (record.engine_wait_s, record.queued_s, record.held_s), strict=True))


def _said(record: SessionRecord, gateway: Gateway) -> list[tuple[list[Call], str]]:
    """Of each model call, in order: the policy's tool calls, and what it was told after them."""
    renderer = gateway.renderer
    told: dict[str, str] = {}
    for sample in record.samples:
        if sample.parent is not None and sample.parent not in told:
            told[sample.parent] = renderer.tokenizer.decode(sample.appended)
    calls = [(s.id, renderer.parse(s.ids, prompt_ids=s.prompt_ids).calls) for s in record.samples]
    return [(made, told.get(id, "")) for id, made in calls]


class _Clock:
    """Wall seconds by part, each since the previous mark, plus what is spent on it elsewhere."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.monotonic()

    def mark(self, part: str, elsewhere_s: float = 0.0) -> None:
        now = time.monotonic()
        self.spent[part] = now - self._last + elsewhere_s
        self._last = now
