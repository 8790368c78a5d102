"""The sampler's side of a vLLM server (`api.Connection`): the rollout worker speaks to it directly.

Invariants 2 and 6: whatever fails here is an `EngineError` (the episode is lost and tried again, never scored), and so
is a token whose weights no run has pushed. A server that is being started again is waited for: nothing is refused for
want of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

import httpx

from crrl.engines import ContextLengthError, EngineError
from crrl.engines.api import Chunk, EngineInfo, Request
from crrl.engines.vllm import protocol

START_S = 900.0
"""How long a server that does not answer is waited for: it may be starting again."""
HEAL_S = 30.0
"""How long one that answers with its own failure is asked again: it is dying, and will be started again."""
BETWEEN_S = 0.5
CONNECT_S = 10.0
MODEL = "policy"
"""The name under which a server of ours serves the model."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and what it serves. `where`: the path of its socket, or http://HOST:PORT. `seeds`: it takes
    them; on a CPU vLLM 0.32 dies of one when it prefills a prompt in two parts."""

    where: str
    context: int
    vocab_size: int
    tokenizer_hash: str
    seeds: bool
    model: str = MODEL

    @property
    def address(self) -> str:
        """For `engines.connect`."""
        told = {"context": self.context, "vocabulary": self.vocab_size, "tokenizer": self.tokenizer_hash}
        return f"vllm:{self.where}?{urlencode({**told, 'seeds': int(self.seeds), 'model': self.model})}"

    @classmethod
    def at(cls, rest: str) -> Server:
        """`rest`: of an address, behind the colon."""
        where, _, query = rest.rpartition("?")
        told = {key: values[0] for key, values in parse_qs(query).items()}
        sizes = int(told["context"]), int(told["vocabulary"])
        return cls(where, *sizes, told["tokenizer"], told["seeds"] == "1", told["model"])

    @property
    def base_url(self) -> str:
        return self.where if self.where.startswith("http") else "http://vllm"

    @property
    def socket(self) -> str | None:
        return None if self.where.startswith("http") else self.where


class VllmClient:
    """A `Connection`, for the event loop that uses it first.

    Args:
        rest: an address behind `vllm:`.
    """

    def __init__(self, rest: str) -> None:
        self.server = Server.at(rest)
        self._http: httpx.AsyncClient | None = None
        self._cancelled: set[str] = set()

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        server = self.server
        if len(request.prompt_ids) + 1 > server.context:
            raise ContextLengthError(len(request.prompt_ids), server.context)
        if not request.prompt_ids or request.max_tokens < 1:
            raise ValueError(f"request {request.id}: an empty prompt, or max_tokens < 1")
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= server.vocab_size:
            raise ValueError(f"request {request.id}: a token id outside the vocabulary of {server.vocab_size}")
        if request.grammar:
            raise EngineError("vLLM serves no grammars here")
        body = {"model": server.model, **protocol.body(request, server.context, seeded=server.seeds)}
        stream = protocol.Stream(request.id)
        response = await self._send(protocol.PATH, body, {protocol.SESSION: request.scope} if request.scope else {})
        try:
            with _named(request.id):
                await _require_ok(response)
                async for line in response.aiter_lines():
                    if (chunk := stream.read(line)) is None:
                        continue
                    if chunk.finish == "cancelled" and request.id not in self._cancelled:
                        raise EngineError(f"the vLLM server broke off request {request.id}")
                    yield chunk
                    if stream.finished:
                        return
            raise EngineError(f"the vLLM server ended request {request.id} without a finish reason")
        finally:
            self._cancelled.discard(request.id)
            await response.aclose()  # which cancels the generation, if it goes on

    async def score(self, ids: list[int]) -> list[float]:
        if len(ids) + 1 > self.server.context:
            raise ContextLengthError(len(ids), self.server.context)
        response = await self._send(protocol.PATH, {"model": self.server.model, **protocol.score_body(ids)}, {})
        with _named("score"):
            await _require_ok(response)
            await response.aread()
        return protocol.scores(response.json(), ids)

    async def cancel(self, id: str) -> None:
        self._cancelled.add(id)
        response = await self._send(protocol.ABORT, {"request_ids": [f"generate-tokens-{id}"]}, {})
        with _named(id):
            await _require_ok(response)
        await response.aclose()

    async def info(self) -> EngineInfo:
        server = self.server
        response = await self._send("/weight_info", None, {})
        with _named("info"):
            await _require_ok(response)
            await response.aread()
        version = protocol.version_of(response.json()["weight_version"])
        return EngineInfo(server.context, version, server.tokenizer_hash, server.vocab_size)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _send(self, path: str, body: object, headers: dict[str, str]) -> httpx.Response:
        """The beginning of the answer, which its receiver closes. Waits for a server that is not there, or dying."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=64), uds=self.server.socket
                ),
                base_url=self.server.base_url,
                timeout=httpx.Timeout(None, connect=CONNECT_S),  # a push or a queue may hold any request
                trust_env=False,
            )
        began = time.monotonic()
        while True:
            request = self._http.build_request("GET" if body is None else "POST", path, json=body, headers=headers)
            try:
                response = await self._http.send(request, stream=True)
                if response.status_code < 500 or time.monotonic() - began > HEAL_S:
                    return response
                await response.aclose()
            except httpx.ConnectError as error:
                if time.monotonic() - began > START_S:
                    raise EngineError(f"no vLLM server answers at {self.server.where}: {error}") from error
            except httpx.HTTPError as error:  # before it has answered anything
                if time.monotonic() - began > HEAL_S:
                    raise EngineError(f"the vLLM server is gone: {_said(error)}") from error
            await asyncio.sleep(BETWEEN_S)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise EngineError(f"the connection to the vLLM server was lost ({what}: {_said(error)})") from error


async def _require_ok(response: httpx.Response) -> None:
    """Raises EngineError: the server refuses the request."""
    if response.status_code == 200:
        return
    text = (await response.aread()).decode(errors="replace")
    with contextlib.suppress(ValueError):
        text = protocol.message_of(response.json())
    await response.aclose()
    raise EngineError(f"the vLLM server answers {response.status_code}: {text[:500]}")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
