"""The gateway for your own agent (`crrl serve`): nobody opens sessions; each conversation is one.

A request belongs to the conversation with the same beginning, up to the first answer; the session's tree matches the
rest, so a deployed policy continues from its own tokens exactly as in training. Conversations end when they are idle,
or when there are too many, and their samples go to the ledger folder; if an agent resumes one later, it is rendered
from its text.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from crrl.engines.api import Engine
from crrl.gateway.api import Ask, Budget, SessionRecord
from crrl.gateway.app import Gateway, api_key
from crrl.gateway.canonical import Message, next_digest, start_digest
from crrl.gateway.intake import Intake
from crrl.gateway.renderer import Renderer
from crrl.gateway.serving import Scope, Whose
from crrl.gateway.session import SamplingPolicy, Session

IDLE_S = 1800.0
MOST = 256  # conversations kept open
REQUESTS = 1024  # under way at once, of all clients
MOST_TURNS = 1024  # of one conversation; probes that always ask the same would fill it without end
_UNLIMITED = Budget(tokens=1 << 62, turns=1 << 62)
Keep = Callable[[SessionRecord], None]


class OpenGateway(Gateway):
    """Args:
    key: the API key that clients must send; "": any. keep: gets each conversation's samples when it has ended.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        sampling: SamplingPolicy,
        *,
        model: str,
        key: str = "",
        keep: Keep | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__(engine, renderer, sampling, model=model)
        self._key = key
        self._keep = keep
        self._idle_s = idle_s
        self._conversations: OrderedDict[bytes, tuple[Session, float]] = OrderedDict()  # the last used last
        self._ending: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._count = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        address = await super().start(host, port)
        self._shared = Intake(self._limits, REQUESTS)
        self._sweeping = asyncio.create_task(self._sweep())
        return address

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait({self._sweeping})
        for digest in list(self._conversations):
            self._end(digest)
        while self._ending:
            await asyncio.gather(*self._ending)
        await super().stop()

    def _route(self, scope: Scope) -> tuple[Whose | None, str, int]:
        known = not self._key or secrets.compare_digest(api_key(scope).encode(), self._key.encode())
        return self._conversation if known else None, scope["path"].strip("/"), 401

    def _intake(self, scope: Scope) -> Intake:
        return self._shared  # whose a request is, its conversation says, which is not read yet

    def _conversation(self, ask: Ask) -> Session:
        digest = _opening(ask)
        session, _ = self._conversations.get(digest, (None, 0.0))
        if session is not None and not session.busy and _is_over(session):
            self._end(digest)
            session = None
        session = session or self._begin()
        self._conversations[digest] = session, time.monotonic()
        self._conversations.move_to_end(digest)
        if len(self._conversations) > MOST:
            oldest = next((d for d, (s, _) in self._conversations.items() if not s.busy and d != digest), None)
            if oldest is not None:
                self._end(oldest)
        return session

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._idle_s / 10)
            before = time.monotonic() - self._idle_s
            for digest, (session, used) in list(self._conversations.items()):
                if used < before and not session.busy:
                    self._end(digest)

    def _begin(self) -> Session:
        self._count += 1
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{self._count}"
        self.open(name, _UNLIMITED, seed=secrets.randbits(63))
        return self._sessions[name].session

    def _end(self, digest: bytes) -> None:
        session, _ = self._conversations.pop(digest)
        task = asyncio.create_task(self._closed(session.id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _closed(self, name: str) -> None:
        record = await self.close(name)
        if self._keep is not None and record.samples:
            await asyncio.to_thread(self._keep, record)


def _is_over(session: Session) -> bool:
    return bool(session.engine_failed) or len(session.tree.turns) >= MOST_TURNS


def _opening(ask: Ask) -> bytes:
    """What a conversation begins with, up to its first answer."""
    digest = start_digest(None)
    if ask.prompt is not None:
        return next_digest(digest, Message("raw", repr(ask.prompt[:64])))
    for message in ask.messages:
        if message.role == "assistant":
            break
        digest = next_digest(digest, message)
    return digest
