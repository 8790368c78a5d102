"""The protocol of an agent, and its way to the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from crrl.sandbox.api import Box, Mount
from crrl.task import Task

CANCEL_S = 5.0
"""Between two cancellations."""
ExitReason = Literal["finished", "turn_limit", "token_limit", "time_limit", "context_length", "error"]


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint. `base_url` ends in `/v1` and names the session; `context`: tokens that a prompt
    and its answer may have together."""

    base_url: str
    api_key: str
    model: str
    context: int


@dataclass(frozen=True)
class AgentLimits:
    """Budgets of one episode. `wall_s` does not count the time in which a request is at the engine;
    `spent_s` says how much is charged so far."""

    turns: int
    tokens: int
    wall_s: float
    spent_s: Callable[[], float]
    command_s: float = 10.0
    output_chars: int = 4000


@dataclass(frozen=True)
class AgentExit:
    """Why the agent stopped. `finished` is the agent's own decision; every `*_limit` and `context_length`
    makes the episode `truncated`; `error` is the agent's own failure (scored on what it left). `code` is the
    process's exit code for command-line agents, `output` what it printed. `counts`: the agent's actions, by name
    (`tool_calls`, `tool_errors`, `malformed`, `edits`...); agents that do not know leave it empty."""

    reason: ExitReason
    code: int | None = None
    detail: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True)
class Again:
    """One more try: the new box (with the work so far; the earlier box is gone), and the next user message."""

    box: Box
    message: str


WhatNow = Callable[[], Awaitable[Again | None]]
"""An agent calls this when it stops by itself; None: no more tries. Raises LostError."""


async def nothing_more() -> Again | None:
    return None


class Agent(Protocol):
    """Raises LostError only for faults on our side (box lost, endpoint gone).

    `inside`: it runs in the box, and its endpoint is the box's own loopback port, which leads only to its session;
    otherwise it runs on the host, and acts through the box's methods. `mounts`: its files, mounted in the box."""

    inside: bool
    mounts: Sequence[Mount]

    async def run(
        self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits, what_now: WhatNow = nothing_more
    ) -> AgentExit: ...

    async def close(self) -> None: ...


async def ended(running: asyncio.Task[Any]) -> None:
    """Cancels it until it is done: what is in between may lose a cancellation."""
    while not running.done():
        running.cancel()
        await asyncio.wait({running}, timeout=CANCEL_S)
    if not running.cancelled():
        running.exception()  # seen, so that nobody logs it


async def finished_within(running: asyncio.Task[Any], wall_s: float, spent_s: Callable[[], float]) -> bool:
    """Wait until the task is done, or until `wall_s` of the budget is spent (which does not go on while the engine is
    waited for): True if it is done."""
    while not running.done() and (left := wall_s - spent_s()) > 0:
        await asyncio.wait({running}, timeout=left)
    return running.done()
