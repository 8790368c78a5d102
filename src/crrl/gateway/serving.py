"""One HTTP request, from its bytes to the last event: read in its dialect, asked of its session, answered.

Nothing is refused for want of an engine: a request that is held by a weight update or a queue waits. The status is
sent with the first token, so an engine that fails before it is an honest 503.

No client waits in silence, because many give up after five minutes of it: where nothing was sent for `silence_s`
seconds, a stream gets a comment or a ping of its API, and an answer in one piece gets white space, which JSON allows in
front of a value. The status, 200, is sent with the first of those; an engine that fails later breaks the answer off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from crrl.gateway.api import Ask
from crrl.gateway.dialects import DIALECTS, Answer, BadRequest, Dialect, Incoming, messages
from crrl.gateway.dialects.common import UNSUPPORTED
from crrl.gateway.intake import SMALL, Body, Gone, Intake, TooLong
from crrl.gateway.session import EngineFailed, Refused, Session
from crrl.gateway.tree import Turn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
Whose = Callable[[Ask], Session]  # the session that a request belongs to

_JSON = (b"content-type", b"application/json")
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_NO_RETRY = ((b"x-should-retry", b"false"),)  # the episode is lost already: clients need not try again


async def serve(whose: Whose, intake: Intake, path: str, scope: Scope, receive: Receive, send: Send) -> str:
    """Answer a request to `path`, one of `DIALECTS`. What was refused of one that is well-formed: the recipe, or the
    policy's renderer, cannot do what it asks; "" for any other."""
    dialect = DIALECTS[path]
    incoming: Incoming | None = None
    try:
        with intake.request() as body:
            incoming, large = await _read(dialect, intake, body, scope, receive)
            session = whose(incoming.ask)
            turns = [await session.ask(incoming.ask, choice, apart=large) for choice in range(incoming.ask.n)]
            body.read()
            await _answer_all(session, dialect, incoming, turns, receive, send)
        return ""
    except Gone:
        return ""
    except BadRequest as bad:
        await reply(send, bad.status, dialect.error(bad.status, bad.message, bad.code, bad.param))
        return bad.message if incoming is not None or bad.code == UNSUPPORTED else ""
    except Refused as refused:
        await reply(send, 400, dialect.context_full(refused.message))
        return ""
    except EngineFailed as failed:
        await reply(send, 503, _unavailable(dialect, str(failed)), _NO_RETRY)
        return ""


async def _answer_all(
    session: Session, dialect: Dialect, incoming: Incoming, turns: Sequence[Turn], receive: Receive, send: Send
) -> None:
    more = asyncio.Event()
    for turn in turns:
        session.join(turn, more)
    gone = asyncio.ensure_future(receive())
    gone.add_done_callback(lambda _: more.set())
    try:
        await _answer(session, dialect, incoming, turns, send, more, gone)
    finally:
        for turn in turns:
            session.leave(turn, more)
        gone.cancel()


async def _read(dialect: Dialect, intake: Intake, body: Body, scope: Scope, receive: Receive) -> tuple[Incoming, bool]:
    """A request, and whether it is large. Raises BadRequest, Refused, Gone."""
    headers = _headers(scope)
    raw = await body.receive(receive, headers.get("content-length"))

    def read() -> Incoming:
        incoming = dialect.read(raw, headers)
        intake.limits.check(incoming.ask)
        return incoming

    try:
        if len(raw) <= SMALL:
            return read(), False
        async with intake.reading:
            return await asyncio.to_thread(read), True
    except TooLong:
        raise Refused(
            "context", f"The prompt has more than the {intake.limits.context} tokens of the context."
        ) from None


async def count(whose: Whose, intake: Intake, scope: Scope, receive: Receive, send: Send) -> None:
    """`messages/count_tokens`: how long the prompt would be; nothing is sampled."""
    try:
        with intake.request() as body:
            incoming, large = await _read(messages, intake, body, scope, receive)
            tokens = await whose(incoming.ask).count(incoming.ask, apart=large)
        await reply(send, 200, messages.counted(tokens))
    except Gone:
        return
    except BadRequest as bad:
        await reply(send, bad.status, messages.error(bad.status, bad.message, bad.code, bad.param))
    except Refused as refused:
        await reply(send, 400, messages.context_full(refused.message))


class _Silence:
    """How long a client has heard nothing. Wakes `more` every `seconds`, so that no silence lasts twice as long."""

    def __init__(self, seconds: float, more: asyncio.Event) -> None:
        self._seconds, self._more = seconds, more
        self._heard = self.broken = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self.broken, self._heard = not self._heard, False
        if self.broken:
            self._more.set()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick)

    def heard(self) -> None:
        self._heard, self.broken = True, False

    def end(self) -> None:
        self._timer.cancel()


async def _answer(
    session: Session,
    dialect: Dialect,
    incoming: Incoming,
    turns: Sequence[Turn],
    send: Send,
    more: asyncio.Event,
    gone: asyncio.Future[Any],
) -> None:
    """Stream the turns, or wait for all of them. Returns early when the client is gone."""
    answer = Answer(incoming, turns, int(time.time()), session.renderer)
    if not incoming.stream:
        return await _whole(dialect, answer, send, gone, session.silence_s)
    silence = _Silence(session.silence_s, more)
    try:
        while not (gone.done() or silence.broken or any(turn.ids or turn.done for turn in turns)):
            await more.wait()
            more.clear()
        if any(turn.done and not turn.whole for turn in turns):
            await _whole(dialect, answer, send, gone, session.silence_s)
        else:
            await _stream(dialect, answer, send, more, gone, silence)
    finally:
        silence.end()


async def _whole(dialect: Dialect, answer: Answer, send: Send, gone: asyncio.Future[Any], silence_s: float) -> None:
    """All at once; not woken by every token."""
    begun = False
    running: set[asyncio.Future[Any]] = {turn.task for turn in answer.turns if turn.task is not None}
    while running and not gone.done():
        done, waiting = await asyncio.wait({*running, gone}, timeout=silence_s, return_when=asyncio.FIRST_COMPLETED)
        running = waiting - {gone}
        if not done:
            if not begun:
                await send({"type": "http.response.start", "status": 200, "headers": [_JSON]})
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            begun = True
    failed = next((turn for turn in answer.turns if not turn.whole), None)
    if gone.done() or (begun and failed is not None):
        return  # without an end: the client sees that the answer broke off, and a 503 when it asks again
    if failed is not None:
        return await reply(send, 503, _unavailable(dialect, _why(failed)), _NO_RETRY)
    for turn in answer.turns:
        turn.delivered = True
    if begun:
        return await send({"type": "http.response.body", "body": dialect.whole(answer)})
    await reply(send, 200, dialect.whole(answer))


async def _stream(
    dialect: Dialect,
    answer: Answer,
    send: Send,
    more: asyncio.Event,
    gone: asyncio.Future[Any],
    silence: _Silence,
) -> None:
    events = dialect.events(answer)
    sent = [0] * len(answer.turns)
    open_turns = dict(enumerate(answer.turns))
    out = [events.start()]
    await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
    while not gone.done():
        more.clear()
        for choice, turn in list(open_turns.items()):
            out += [events.delta(choice, delta) for delta in turn.deltas[sent[choice] :]]
            sent[choice] = len(turn.deltas)
            if turn.whole:
                out.append(events.finish(choice))
                del open_turns[choice]
            elif turn.done:
                out.append(events.broken(f"The engine failed: {_why(turn)}"))
                return await send({"type": "http.response.body", "body": b"".join(out)})
        if not open_turns:
            for turn in answer.turns:
                turn.delivered = True
            out.append(events.end())
            return await send({"type": "http.response.body", "body": b"".join(out)})
        if silence.broken:
            out.append(events.keep_alive())
        if out:
            await send({"type": "http.response.body", "body": b"".join(out), "more_body": True})
            silence.heard()
            out = []
        await more.wait()


def _why(turn: Turn) -> str:
    return turn.failed or "the generation was cancelled"


def _unavailable(dialect: Dialect, why: str) -> bytes:
    return dialect.error(503, f"The engine failed: {why}", "engine_failed")


async def reply(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
