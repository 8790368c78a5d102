"""The protocol of an agent, and how it reaches the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from crrl.sandbox.api import Box
from crrl.tasks.task import Task

ExitReason = Literal["finished", "turn_limit", "token_limit", "time_limit", "context_length", "error"]


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint. `base_url` ends in `/v1` and names the session."""

    base_url: str
    api_key: str
    model: str


@dataclass(frozen=True)
class AgentLimits:
    """Budgets of one episode. `wall_s` excludes time spent waiting for the engine (held or queued requests);
    `spent_s` says how much of it is charged so far."""

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
    process's exit code for command-line agents. `counts`: what the agent did, by name (`tool_calls`, `tool_errors`,
    `malformed`, `edits`...); agents that cannot tell leave it empty."""

    reason: ExitReason
    code: int | None = None
    detail: str = ""
    counts: dict[str, int] = field(default_factory=dict)


class Agent(Protocol):
    """Raises LostError only for faults on our side (box lost, endpoint gone)."""

    async def run(self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit: ...

    async def close(self) -> None: ...
