"""The gateway: what an agent takes to be the OpenAI API, with the policy behind it.

One `Gateway` serves many sessions over one engine, each under its own URL with a random token in it, so
that one sandbox cannot reach another's session. Handlers are plain ASGI behind FastAPI's routing: bodies are
parsed by msgspec, because pydantic's validation would cost more than all the rest of a request.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from crrl.engines.api import Engine
from crrl.errors import CrrlError
from crrl.gateway import chat
from crrl.gateway.api import Budget, SessionRecord
from crrl.gateway.renderer import Renderer
from crrl.gateway.session import GRACE_S, EngineFailed, Refused, SamplingPolicy, Session
from crrl.gateway.tree import Turn

_JSON = (b"content-type", b"application/json")
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
MAX_BODY = 64 * 2**20


@dataclass(frozen=True)
class SessionHandle:
    """An open session, for whoever runs the agent."""

    session: str
    base_url: str
    api_key: str
    model: str
    _session: Session

    @property
    def engine_wait_s(self) -> float:
        """So far, a wait that is still going on included."""
        return self._session.clock.read()

    @property
    def engine_failed(self) -> str:
        return self._session.engine_failed

    @property
    def exhausted(self) -> str:
        return self._session.exhausted


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the process's signals belong to whoever runs the loop


class Gateway:
    """Args:
    engine: where tokens come from. renderer: of the policy's tokenizer. sampling: the recipe's.
    model: the name shown to agents. grace_s: how long a generation outlives its client.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        sampling: SamplingPolicy | None = None,
        *,
        model: str = "policy",
        grace_s: float = GRACE_S,
    ) -> None:
        self.engine = engine
        self.renderer = renderer
        self.sampling = sampling or SamplingPolicy()
        self.model = model
        self.grace_s = grace_s
        self.base_url = ""
        self._sessions: dict[str, tuple[str, Session]] = {}  # by session id
        self._by_token: dict[str, Session] = {}
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.app = FastAPI(openapi_url=None)
        self.app.mount("/s", self._asgi)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve in the running loop; returns the base address. Raises CrrlError when the port is taken."""
        self._info = await self.engine.info()
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            raise CrrlError(
                f"gateway: cannot listen on {host}:{port}: {error.strerror}.",
                "Choose another port, or port 0 for any free one.",
            ) from error
        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http="httptools",
            timeout_keep_alive=75,
            server_header=False,
            date_header=False,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.005)
        self.base_url = f"http://{host}:{sock.getsockname()[1]}"
        return self.base_url

    async def stop(self) -> None:
        """Close every session and the listening socket."""
        for session in list(self._sessions):
            await self.close(session)
        if self._server is not None and self._serving is not None:
            self._server.should_exit = self._server.force_exit = True
            with suppress(asyncio.CancelledError):
                await self._serving
        self._server = self._serving = None

    def open(
        self,
        session_id: str,
        budget: Budget | None = None,
        *,
        seed: int = 0,
        temperature: float | None = None,
    ) -> SessionHandle:
        """Open a session; its URL works until `close`. The same id may be opened again once it is closed."""
        if session_id in self._sessions:
            raise ValueError(f"session {session_id!r} is already open")
        session = Session(
            id=session_id,
            budget=budget or Budget(),
            seed=seed,
            temperature=self.sampling.temperature if temperature is None else temperature,
            engine=self.engine,
            info=self._info,
            renderer=self.renderer,
            policy=self.sampling,
            grace_s=self.grace_s,
        )
        token = secrets.token_urlsafe(18)
        self._sessions[session_id] = (token, session)
        self._by_token[token] = session
        return SessionHandle(session_id, f"{self.base_url}/s/{token}/v1", f"crrl-{token}", self.model, session)

    async def close(self, session_id: str) -> SessionRecord:
        """End the session: running generations are cancelled, its URL is gone. KeyError for unknown ids."""
        token, session = self._sessions.pop(session_id)
        del self._by_token[token]
        return await session.close()

    async def _asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        token, _, path = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/").partition("/")
        session = self._by_token.get(token)
        method = scope["method"]
        if session is None:
            await _reply(send, 404, chat.error("No such session.", "invalid_request_error", "session_not_found"))
        elif path == "v1/models" and method in ("GET", "HEAD"):
            await _reply(send, 200, chat.models(self.model, self._info.context))
        elif path != "v1/chat/completions":
            await _reply(send, 404, chat.error(f"Unknown path /{path}.", "invalid_request_error", "not_found"))
        elif method != "POST":
            await _reply(send, 405, chat.error("Use POST.", "invalid_request_error", "method_not_allowed"))
        else:
            await self._chat(session, Request(scope, receive), receive, send)

    async def _chat(self, session: Session, request: Request, receive: Receive, send: Send) -> None:
        try:
            call = chat.read(await _body(request))
            retry = request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
            turn = session.ask(call.messages, call.tools, call.asked, retry=retry)
        except ClientDisconnect:
            return
        except chat.BadRequest as bad:
            return await _reply(send, 400, chat.error(bad.message, "invalid_request_error", bad.code, bad.param))
        except Refused as refused:
            body = chat.error(refused.message, "invalid_request_error", "context_length_exceeded", "messages")
            return await _reply(send, 400, body)
        except EngineFailed as failed:
            return await _reply(send, 503, _unavailable(str(failed)), _NO_RETRY)
        session.join(turn)
        gone = asyncio.ensure_future(receive())
        gone.add_done_callback(lambda _: session.wake(turn))
        try:
            await _answer(session, turn, call, send, gone)
        finally:
            session.leave(turn)
            gone.cancel()


async def _answer(session: Session, turn: Turn, call: chat.ChatCall, send: Send, gone: asyncio.Future[Any]) -> None:
    """Stream the turn, or wait for all of it. Returns early when the client is gone.

    The status is sent with the first token, so an engine that fails before is an honest 503."""
    created = int(time.time())
    while not turn.ends and not turn.done and not gone.done():
        await session.changed(turn)
    streaming = call.stream and not turn.failed
    events = chat.Events(turn, call.model, created, call.include_usage)
    shown, sent, text = "", 0, session.renderer.stream()
    if streaming and not gone.done():
        await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
        await _more(send, events.delta({"role": "assistant", "content": ""}))
    while not gone.done():
        while streaming and sent < len(turn.ends) and not gone.done():  # one event per chunk
            start = turn.ends[sent - 1] if sent else 0
            delta = text.feed(turn.ids[start : turn.ends[sent]])
            sent += 1
            if delta:
                shown += delta
                await _more(send, events.delta({"content": delta}))
        if turn.done and (sent == len(turn.ends) or not streaming):
            break
        if not turn.done and (sent == len(turn.ends) or not streaming):
            await session.changed(turn)
    if gone.done():
        return
    if not turn.whole:
        why = turn.failed or "the generation was cancelled"
        if streaming:
            return await send({"type": "http.response.body", "body": b"data: " + _unavailable(why) + b"\n\n"})
        return await _reply(send, 503, _unavailable(why), _NO_RETRY)
    turn.delivered = True
    if streaming:
        await send({"type": "http.response.body", "body": events.end(shown)})
    else:
        await _reply(send, 200, chat.completion(turn, call.model, created))


_NO_RETRY = ((b"x-should-retry", b"false"),)  # the episode is lost already: clients need not try again


def _unavailable(why: str) -> bytes:
    return chat.error(f"The engine failed: {why}", "server_error", "engine_failed")


async def _reply(send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _more(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise chat.BadRequest(f"The request body is larger than {MAX_BODY} bytes.")
        parts.append(part)
    return b"".join(parts)
