"""The protocol of an agent, and how it reaches the policy."""

from __future__ import annotations

from dataclasses import dataclass
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
    """Budgets of one episode. `wall_s` excludes time spent waiting for the engine (held or queued requests)."""

    turns: int = 8
    tokens: int = 4096
    wall_s: float = 60.0
    command_s: float = 10.0
    output_chars: int = 4000


@dataclass(frozen=True)
class AgentExit:
    """Why the agent stopped. `finished` is the agent's own decision; every `*_limit` and `context_length`
    makes the episode `truncated`; `error` is the agent's own failure (scored on what it left). `code` is the
    process's exit code for command-line agents."""

    reason: ExitReason
    code: int | None = None
    detail: str = ""


class Agent(Protocol):
    """Raises LostError only for faults on our side (box lost, endpoint gone)."""

    async def run(self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits) -> AgentExit: ...
