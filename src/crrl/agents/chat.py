"""The way to the policy of agents that run on the host: one streamed answer after the other, by the `openai` client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from openai import APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

from crrl.agents.api import Endpoint
from crrl.errors import LostError

ANSWER_S = 600.0  # without an answer, because a weight push may hold the request
FAILURES = (OpenAIError, httpx2.HTTPError)


@dataclass
class Answer:
    """One streamed answer, put together."""

    content: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str = ""
    tokens: int = 0

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.content or None}
        if self.calls:
            message["tool_calls"] = self.calls
        return message


def connections() -> DefaultAsyncHttpxClient:
    """One for all episodes: making a TLS context costs more than an episode. It ignores the environment's proxies."""
    return DefaultAsyncHttpxClient(timeout=ANSWER_S, limits=httpx2.Limits(), trust_env=False)


class Chat:
    """Args:
    http: of `connections`.
    """

    def __init__(self, http: DefaultAsyncHttpxClient, endpoint: Endpoint) -> None:
        self._client = AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key, http_client=http)
        self._model = endpoint.model

    async def ask(
        self, messages: Sequence[dict[str, Any]], tokens: int, tools: Sequence[dict[str, Any]] = ()
    ) -> Answer:
        """Raises one of `FAILURES` (`ended_by` tells what it means), LostError."""
        create: Any = self._client.chat.completions.create
        stream = await create(
            model=self._model,
            messages=messages,
            max_completion_tokens=tokens,
            stream=True,
            stream_options={"include_usage": True},
            **({"tools": tools} if tools else {}),
        )
        answer = Answer()
        async for chunk in stream:
            if chunk.usage:
                answer.tokens = chunk.usage.completion_tokens
            for choice in chunk.choices:
                answer.content += choice.delta.content or ""
                answer.finish = choice.finish_reason or answer.finish
                for part in choice.delta.tool_calls or []:
                    _extend(answer.calls, part)
        if not answer.finish:
            raise LostError("endpoint_failed", "the answer ended without a finish_reason")
        return answer


def ended_by(error: Exception) -> tuple[str, str]:
    """(reason, detail) of an agent whose request was refused. Raises LostError: the endpoint failed."""
    if not isinstance(error, APIStatusError):
        raise LostError("endpoint_failed", f"{type(error).__name__}: {error}") from error
    if error.status_code >= 500:
        raise LostError("endpoint_failed", f"{error.status_code}: {error.message}") from error
    return ("context_length" if error.code == "context_length_exceeded" else "error"), error.message


def _extend(calls: list[dict[str, Any]], part: Any) -> None:
    """Adds one streamed piece to a tool call."""
    while len(calls) <= part.index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[part.index]
    call["id"] = part.id or call["id"]
    if part.function is not None:
        call["function"]["name"] += part.function.name or ""
        call["function"]["arguments"] += part.function.arguments or ""
