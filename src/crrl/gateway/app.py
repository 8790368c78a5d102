"""The gateway: an OpenAI- and Anthropic-compatible API, served by the policy.

One `Gateway` serves many sessions over one engine. A random token, in the URL (`/s/TOKEN/v1/...`) or as the API key,
says which session a request belongs to, so that one sandbox cannot reach another's; or the unix socket that it came
through does, which nobody can forge. The server is plain ASGI on uvicorn, and bodies are parsed by msgspec:
validation by pydantic would cost more than all the rest of a request.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crrl.engines.api import Engine
from crrl.errors import CrrlError
from crrl.gateway.api import Budget, SessionRecord
from crrl.gateway.dialects import DIALECTS, chat, common, messages
from crrl.gateway.intake import Intake, Limits
from crrl.gateway.listening import Server, bound
from crrl.gateway.renderer import Renderer
from crrl.gateway.serving import Receive, Scope, Send, Whose, count, reply, serve
from crrl.gateway.session import GRACE_S, SILENCE_S, SamplingPolicy, Session

_KEY = "crrl-"  # an API key is this and the session's token


@dataclass(frozen=True)
class SessionHandle:
    """An open session, for the caller that runs the agent. `base_url` ends in /v1 and names the session; under the
    gateway's bare `base_url` + /v1 the session is told by `api_key`."""

    session: str
    base_url: str
    api_key: str
    model: str
    _session: Session

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._session.context

    @property
    def engine_wait_s(self) -> float:
        """So far, including a wait that is still going on."""
        return self._session.clock.read()

    @property
    def engine_failed(self) -> str:
        return self._session.engine_failed

    @property
    def exhausted(self) -> str:
        return self._session.exhausted


@dataclass
class _Open:
    """A session and the ways to reach it."""

    token: str
    session: Session
    sockets: dict[str, asyncio.Server]


class Gateway:
    """Args:
    engine: where tokens come from. renderer: of the policy's tokenizer. sampling: the recipe's.
    model: the name shown to agents. grace_s: how long a generation outlives its client.
    silence_s: after so long without a byte, something is sent.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        sampling: SamplingPolicy | None = None,
        *,
        model: str = "policy",
        grace_s: float = GRACE_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.engine = engine
        self.renderer = renderer
        self.sampling = sampling or SamplingPolicy()
        self.model = model
        self.grace_s = grace_s
        self.silence_s = silence_s
        self.base_url = ""
        self._sessions: dict[str, _Open] = {}
        self._intakes: dict[str, Intake] = {}
        self._by_token: dict[str, Session] = {}
        self._by_socket: dict[str, Session] = {}
        self._server = Server(self._asgi)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve in the running loop; returns the base address. Raises CrrlError when the port is taken."""
        self._info = await self.engine.info()
        self._limits = Limits(self._info.context, self.renderer)
        sock = bound(host, port)
        await self._server.begin(sock)
        shown = f"[{host}]" if ":" in host else host
        self.base_url = f"http://{shown}:{sock.getsockname()[1]}"
        return self.base_url

    async def stop(self) -> None:
        """Close every session and the listening sockets."""
        for session in list(self._sessions):
            await self.close(session)
        await self._server.end()

    def open(
        self,
        session_id: str,
        budget: Budget | None = None,
        *,
        seed: int = 0,
        temperature: float | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> SessionHandle:
        """Open a session; its URL works until `close`. The same id may be opened again once it is closed. `top_p`,
        `top_k`: for evaluations (`engines.api.Request`). Raises CrrlError: the engine knows none."""
        if session_id in self._sessions:
            raise ValueError(f"session {session_id!r} is already open")
        if (top_p < 1 or top_k) and not self._info.truncates:
            raise CrrlError(
                "This engine samples from the whole distribution: it has neither top_p nor top_k.",
                "Leave out evaluation.top_p and evaluation.top_k.",
            )
        session = Session(
            id=session_id,
            budget=budget or Budget(),
            seed=seed,
            temperature=self.sampling.temperature if temperature is None else temperature,
            top_p=top_p,
            top_k=top_k,
            engine=self.engine,
            info=self._info,
            renderer=self.renderer,
            policy=self.sampling,
            grace_s=self.grace_s,
            silence_s=self.silence_s,
        )
        token = secrets.token_urlsafe(18)
        self._sessions[session_id] = _Open(token, session, {})
        self._intakes[session_id] = Intake(self._limits)
        self._by_token[token] = session
        return SessionHandle(session_id, f"{self.base_url}/s/{token}/v1", _KEY + token, self.model, session)

    async def listen(self, session_id: str, path: Path) -> None:
        """Serve this session alone, with paths /v1/... and no token, on a unix socket at `path` until it is closed.
        Anybody who can reach the socket may use it (mode 0666): protect its directory. KeyError for unknown ids;
        CrrlError if the socket cannot be made."""
        opened, name = self._sessions[session_id], str(path)
        try:
            server = await asyncio.get_running_loop().create_unix_server(self._server.protocol, name)
        except OSError as error:
            raise CrrlError(
                f"gateway: cannot listen on {name}: {error}.",
                "Use a folder that exists, with a short path (a socket's may have 107 characters).",
            ) from error
        os.chmod(name, 0o666)
        opened.sockets[name] = server
        self._by_socket[name] = opened.session

    async def close(self, session_id: str) -> SessionRecord:
        """End the session: running generations are cancelled, its URL is gone. KeyError for unknown ids."""
        opened = self._sessions.pop(session_id)
        del self._intakes[session_id]
        del self._by_token[opened.token]
        for name, server in opened.sockets.items():
            server.close()
            del self._by_socket[name]
            with suppress(FileNotFoundError):
                os.unlink(name)
        return await opened.session.close()

    async def _asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        whose, path, status = self._route(scope)
        name, method = path.removeprefix("v1/"), scope["method"]
        counting = name == "messages/count_tokens"
        anthropic = counting or any(header == b"anthropic-version" for header, _ in scope["headers"])
        dialect = DIALECTS.get(name) or (messages if anthropic else chat)
        if whose is None and status == 401:
            await reply(send, 401, dialect.error(401, "No session has this API key.", "invalid_api_key"))
        elif whose is None:
            await reply(send, 404, dialect.error(404, "No such session.", "session_not_found"))
        elif path.startswith("v1/") and method == "POST" and name in DIALECTS:
            if refused := await serve(whose, self._intake(scope), name, scope, receive, send):
                self._note_refused(scope, refused)
        elif path.startswith("v1/") and method == "POST" and counting:
            await count(whose, self._intake(scope), scope, receive, send)
        elif path.startswith("v1/") and (name in DIALECTS or counting):
            await reply(send, 405, dialect.error(405, "Use POST.", "method_not_allowed"))
        elif path == "v1/models" and method in ("GET", "HEAD"):
            await reply(send, 200, common.models(self.model, self._info.context))
        elif path == f"v1/models/{self.model}" and method in ("GET", "HEAD"):
            await reply(send, 200, common.encode(common.model(self.model, self._info.context)))
        else:
            await reply(send, 404, dialect.error(404, f"Unknown path /{path}.", "not_found"))

    def _route(self, scope: Scope) -> tuple[Whose | None, str, int]:
        """The session of a request, the rest of its path, and the status if it has no session."""
        session, path, status = self._session_of(scope)
        return None if session is None else lambda _: session, path, status

    def _intake(self, scope: Scope) -> Intake:
        """What the agent behind a request may have under way."""
        session, _, _ = self._session_of(scope)
        assert session is not None, "only requests of a session are read"
        return self._intakes[session.id]

    def _note_refused(self, scope: Scope, why: str) -> None:
        session, _, _ = self._session_of(scope)
        if session is not None:
            session.refused = session.refused or why

    def _session_of(self, scope: Scope) -> tuple[Session | None, str, int]:
        address, port = scope["server"]
        path, status = scope["path"].strip("/"), 404
        if port is None:
            session = self._by_socket.get(address)
        elif path.startswith("s/"):
            token, _, path = path[2:].partition("/")
            session = self._by_token.get(token)
        else:
            session, status = self._by_token.get(api_key(scope).removeprefix(_KEY)), 401
        return session, path, status


def api_key(scope: Scope) -> str:
    """As the clients of either API send it."""
    headers = dict(scope["headers"])
    key = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
    return key.decode("latin-1").strip()
