"""Engines that speak text: they answer a conversation, and tell neither tokens nor log-probs.

Invariants 1 and 6 have no place here: there is nothing to train on, and whoever trains refuses such an engine by name.
An evaluation can use one as a baseline, through the same agents, gateway, budgets and judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from crrl.engines.api import EngineInfo, FinishReason


@dataclass(frozen=True)
class Question:
    """One request.

    Args:
        messages, tools: as chat completions has them.
        tool_choice: `auto` or `none`. parallel_calls: False: at most one call. Both only where there are tools.
        temperature: 0 is greedy. seed: 64 bits; whether it is heeded is the endpoint's affair.
    """

    id: str
    messages: list[dict[str, Any]]
    max_tokens: int
    tools: list[dict[str, Any]] | None = None
    tool_choice: str = "auto"
    parallel_calls: bool = True
    temperature: float = 1.0
    top_p: float = 1.0
    stop: list[str] = field(default_factory=list)
    seed: int = 0


@dataclass(frozen=True)
class Said:
    """The answer. `calls`: (name, arguments as JSON text). `prompt_tokens`, `tokens`: as the endpoint counted them;
    `tokens` include its reasoning."""

    content: str
    reasoning: str
    calls: list[tuple[str, str]]
    finish: FinishReason
    prompt_tokens: int
    tokens: int


class TooLong(Exception):
    """The endpoint's context has no room for this conversation."""


class NotAnswered(Exception):
    """The endpoint refuses this conversation for what is in it; another one it may answer."""


@runtime_checkable
class ChatEngine(Protocol):
    """Errors: `EngineError` where the endpoint failed (the episode is lost, not scored); `TooLong`, `NotAnswered`."""

    async def answer(self, question: Question) -> Said: ...

    async def info(self) -> EngineInfo: ...
