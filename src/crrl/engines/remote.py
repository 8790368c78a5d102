"""`engine=remote`: a model behind an OpenAI-compatible endpoint, as a baseline in evaluations.

The worker asks it directly (`Endpoint`, at an address of the scheme `remote`); the run only makes sure at the start
that it answers (`RemoteEngine`). The key comes from an environment variable: its name alone is in settings, journal and
messages. Invariant 2: what fails on the way (429, 5xx, a connection, a timeout) is tried again for some minutes, then
the episode is lost; it is never a failed attempt.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from crrl.engines import EngineError
from crrl.engines.api import Chunk, EngineInfo, FinishReason, Request
from crrl.engines.chat import NotAnswered, Question, Said, TooLong
from crrl.errors import CrrlError, UsageError

TRIES = 9
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # doubled each time: about three minutes in all, or what the endpoint asks for
TIMEOUT = httpx.Timeout(30.0, read=900.0)
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)
FOR_GOOD = (401, 403, 404)
CONTEXT = 1 << 17  # what agents are told of the context, unless engine.context says another
FULL = re.compile(r"context.?(length|window|limit)|too (long|many tokens)|maximum.{0,30}tokens|prompt is too", re.I)
FINISHES: dict[str, FinishReason] = {"length": "length", "max_tokens": "length"}


class Endpoint:
    """The worker's side. `rest`: JSON of `url`, `model`, `key_variable` and `context`. Implements `ChatEngine`.

    Args:
        first_wait_s: before the second try.
    """

    def __init__(self, rest: str, first_wait_s: float = FIRST_WAIT_S) -> None:
        known = json.loads(rest)
        self.url, self.model, self.key_variable = known["url"], known["model"], known["key_variable"]
        self.context, self._first_wait_s = known["context"], first_wait_s
        key = os.environ.get(self.key_variable, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(timeout=TIMEOUT, headers=headers, limits=httpx.Limits(max_connections=None))
        self._length = "max_tokens"  # what the endpoint calls the limit

    async def answer(self, question: Question) -> Said:
        reply = await self._ask(question)
        try:
            return _said(reply)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise EngineError(f"{self.url} sent no chat completion: {json.dumps(reply)[:300]}") from error

    async def info(self) -> EngineInfo:
        """Of text, not tokens: the vocabulary is the stand-in renderer's affair."""
        return EngineInfo(self.context, 0, "", 1 << 31, truncates=True)

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(self, question: Question) -> Any:
        wait_s, said = self._first_wait_s, ""
        for left in reversed(range(TRIES)):
            asked_for_s = 0.0
            try:
                response = await self._http.post(f"{self.url}/chat/completions", json=self._body(question))
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    try:
                        return response.json()
                    except ValueError:
                        said = f"no JSON: {response.text[:200]}"
                elif response.status_code in AGAIN:
                    said, asked_for_s = _told(response), _seconds(response.headers.get("retry-after"))
                elif not self._renamed(response):
                    raise self._refused(response)
                else:
                    continue
            if left:
                await asyncio.sleep(max(asked_for_s, wait_s * random.uniform(0.5, 1.0)))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        raise EngineError(f"{self.url} failed {TRIES} times; at last: {said}")

    def _renamed(self, response: httpx.Response) -> bool:
        """Newer models of OpenAI's call the limit otherwise."""
        newer = "max_completion_tokens"
        if response.status_code != 400 or self._length == newer or newer not in response.text:
            return False
        self._length = newer
        return True

    def _refused(self, response: httpx.Response) -> Exception:
        told = _told(response)
        if response.status_code in FOR_GOOD:
            return EngineError(f"{self.url} refuses: {told}")
        if response.status_code == 413 or FULL.search(told):
            return TooLong(told)
        return NotAnswered(told)

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": question.messages,
            self._length: question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed & (2**63 - 1),
        }
        if question.top_p < 1:
            body["top_p"] = question.top_p
        if question.stop:
            body["stop"] = question.stop
        if question.tools:
            body |= {"tools": question.tools, "tool_choice": question.tool_choice}
            if not question.parallel_calls:
                body["parallel_tool_calls"] = False
        return body


class RemoteEngine:
    """The run's side: nothing is computed here. `folder`, `version` and what a local model needs are not used."""

    def __init__(
        self, folder: Path, *, url: str, model: str, key_variable: str, context: int | None = None, **_: Any
    ) -> None:
        if not re.match(r"https?://[^/]", url):
            raise UsageError(f"engine.url={url} is no address.", "Write engine.url=https://HOST/v1.")
        if not model:
            raise UsageError(
                "Which model of the endpoint?", "Write its name: crrl eval BENCHMARK NAME engine=remote ..."
            )
        self._context = context or CONTEXT
        known = {"url": url.rstrip("/"), "model": model, "key_variable": key_variable, "context": self._context}
        self._rest = json.dumps(known)
        self.address = f"remote:{self._rest}"
        self.tokens = 0  # the worker counts them, sample by sample
        self.busy_s = 0.0

    def start(self, note: Callable[[str], None], failed: Callable[[CrrlError], None]) -> None:
        """One short question: key, model and form are right. Raises CrrlError."""
        asyncio.run(self._try())

    async def _try(self) -> None:
        endpoint = Endpoint(self._rest)
        hello = Question("hello", [{"role": "user", "content": "Say hello."}], max_tokens=16)
        try:
            await endpoint.answer(hello)
        except EngineError as error:
            raise CrrlError(error.detail, self._remedy(endpoint)) from error
        except (TooLong, NotAnswered) as error:
            raise CrrlError(f"{endpoint.url} refuses a short question: {error}", self._remedy(endpoint)) from error
        finally:
            await endpoint.close()

    def _remedy(self, endpoint: Endpoint) -> str:
        key = "is set" if os.environ.get(endpoint.key_variable) else "is not set"
        return (
            f"See that engine.url is right (with its /v1), that it has a model {endpoint.model}, and the key in "
            f"{endpoint.key_variable}, which {key} (engine.key_variable names another)."
        )

    def forget(self, scope: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        raise EngineError("a remote endpoint gives no tokens")
        yield  # which makes it an iterator

    async def score(self, ids: list[int]) -> list[float]:
        raise EngineError("a remote endpoint gives no log-probs")

    async def cancel(self, id: str) -> None:
        """A question ends with whoever asked it."""

    async def info(self) -> EngineInfo:
        return EngineInfo(self._context, 0, "", 1 << 31, truncates=True)


def _said(reply: Any) -> Said:
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    message = choice["message"]
    calls = [
        (call["function"]["name"], call["function"]["arguments"] or "{}") for call in message.get("tool_calls") or []
    ]
    return Said(
        content=message.get("content") or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
        calls=calls,
        finish=FINISHES.get(choice.get("finish_reason") or "stop", "stop"),
        prompt_tokens=int(usage["prompt_tokens"]),
        tokens=int(usage["completion_tokens"]),
    )


def _told(response: httpx.Response) -> str:
    """What an error says, without what else it sends."""
    try:
        error = response.json()["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        text = response.text
    return f"{response.status_code} {text[:500]}"


def _seconds(retry_after: str | None) -> float:
    try:
        return min(float(retry_after or 0), 600.0)
    except ValueError:  # a date: our own wait will do
        return 0.0
