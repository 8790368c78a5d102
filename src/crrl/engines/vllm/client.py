"""The sampler's side of one vLLM server or several (`api.Connection`): the rollout worker speaks to them directly.

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
from crrl.engines.vllm.routes import Routes

START_S = 900.0
"""How long a server that does not answer is waited for: it may be starting again."""
HEAL_S = 30.0
"""How long one that answers with its own failure is asked again: it is dying, and will be started again."""
BETWEEN_S = 0.5
CONNECT_S = 10.0
MODEL = "policy"
"""The name under which a server of ours serves the model."""


@dataclass(frozen=True)
class Serving:
    """What is served, and where: by each of `servers`, the path of a socket or http://HOST:PORT. `seeds`: they take
    them; on a CPU vLLM 0.32 dies of one when it prefills a prompt in two parts."""

    servers: tuple[str, ...]
    context: int
    vocab_size: int
    tokenizer_hash: str
    seeds: bool
    model: str = MODEL

    @property
    def address(self) -> str:
        """For `engines.connect`."""
        told = {"context": self.context, "vocabulary": self.vocab_size, "tokenizer": self.tokenizer_hash}
        servers = [("server", server) for server in self.servers]
        return f"vllm:?{urlencode([*servers, *told.items(), ('seeds', int(self.seeds)), ('model', self.model)])}"

    @classmethod
    def at(cls, rest: str) -> Serving:
        """`rest`: of an address, behind the colon."""
        told = parse_qs(rest.removeprefix("?"))
        sizes = int(told["context"][0]), int(told["vocabulary"][0])
        return cls(tuple(told["server"]), *sizes, told["tokenizer"][0], told["seeds"] == ["1"], told["model"][0])


class VllmClient:
    """A `Connection`, for the event loop that uses it first.

    Args:
        rest: an address behind `vllm:`.
    """

    def __init__(self, rest: str) -> None:
        self.served = Serving.at(rest)
        self._routes = Routes(len(self.served.servers))
        self._http: dict[int, httpx.AsyncClient] = {}
        self._running: dict[str, int] = {}
        self._cancelled: set[str] = set()

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        served = self.served
        if len(request.prompt_ids) + 1 > served.context:
            raise ContextLengthError(len(request.prompt_ids), served.context)
        if not request.prompt_ids or request.max_tokens < 1:
            raise ValueError(f"request {request.id}: an empty prompt, or max_tokens < 1")
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= served.vocab_size:
            raise ValueError(f"request {request.id}: a token id outside the vocabulary of {served.vocab_size}")
        if request.grammar:
            raise EngineError("vLLM serves no grammars here")
        body = {"model": served.model, **protocol.body(request, served.context, seeded=served.seeds)}
        with self._routes.through(request.scope) as at:
            self._running[request.id] = at
            try:
                async with contextlib.aclosing(self._generate(request, body, at)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        yield chunk
            finally:
                self._running.pop(request.id, None)
                self._cancelled.discard(request.id)

    async def _generate(self, request: Request, body: object, at: int) -> AsyncIterator[Chunk]:
        stream = protocol.Stream(request.id)
        session = {protocol.SESSION: request.scope} if request.scope else {}
        response = await self._send(protocol.PATH, body, session, at)
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
            await response.aclose()  # which cancels the generation, if it goes on

    async def score(self, ids: list[int]) -> list[float]:
        if len(ids) + 1 > self.served.context:
            raise ContextLengthError(len(ids), self.served.context)
        body = {"model": self.served.model, **protocol.score_body(ids)}
        with self._routes.through("") as at, _named("score"):
            response = await self._send(protocol.PATH, body, {}, at)
            await _require_ok(response)
            await response.aread()
        return protocol.scores(response.json(), ids)

    async def cancel(self, id: str) -> None:
        if (at := self._running.get(id)) is None:
            return
        self._cancelled.add(id)
        http, asked = self._reaching(at), {"request_ids": [f"generate-tokens-{id}"]}
        with _named(id):
            try:
                response = await http.post(protocol.ABORT, json=asked)
            except httpx.ConnectError:  # the server is not there, and the generation ended with it
                return
            await _require_ok(response)

    async def info(self) -> EngineInfo:
        """Of several servers, the oldest version: a push may be under way."""
        served = self.served
        version = min([await self._version(at) for at in range(len(served.servers))])
        return EngineInfo(served.context, version, served.tokenizer_hash, served.vocab_size)

    async def _version(self, at: int) -> int:
        response = await self._send("/weight_info", None, {}, at)
        with _named("info"):
            await _require_ok(response)
            await response.aread()
        return protocol.version_of(response.json()["weight_version"])

    def _reaching(self, at: int) -> httpx.AsyncClient:
        if at not in self._http:
            self._http[at] = _reaching(self.served.servers[at])
        return self._http[at]

    async def close(self) -> None:
        while self._http:
            await self._http.popitem()[1].aclose()

    async def _send(self, path: str, body: object, headers: dict[str, str], at: int) -> httpx.Response:
        """The beginning of the answer, which its receiver closes. Waits for a server that is not there, or dying."""
        where, http = self.served.servers[at], self._reaching(at)
        began = time.monotonic()
        while True:
            request = http.build_request("GET" if body is None else "POST", path, json=body, headers=headers)
            try:
                response = await http.send(request, stream=True)
                if response.status_code < 500 or time.monotonic() - began > HEAL_S:
                    return response
                await response.aclose()
            except httpx.ConnectError as error:
                if time.monotonic() - began > START_S:
                    raise EngineError(f"no vLLM server answers at {where}: {error}") from error
            except httpx.HTTPError as error:  # before it has answered anything
                if time.monotonic() - began > HEAL_S:
                    raise EngineError(f"the vLLM server is gone: {_said(error)}") from error
            await asyncio.sleep(BETWEEN_S)


def _reaching(where: str) -> httpx.AsyncClient:
    far = where.startswith("http")
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(limits=limits, uds=None if far else where, verify=far),  # no TLS on a socket
        base_url=where if far else "http://vllm",
        timeout=httpx.Timeout(None, connect=CONNECT_S),  # a push or a queue may hold any request
        trust_env=False,
    )


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
