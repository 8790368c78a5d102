"""Records a live agent: a proxy between the agent and any model server, which writes down requests and answers
(`recording.py`).

Bytes pass through unchanged, streams event by event; the recorder reads a copy. It does not record keys.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from crrl.conformance.recording import Recorded, Reply, Writer
from crrl.conformance.replies import Broken, api_of, read_reply
from crrl.gateway.listening import Server, bound

_HOP = {"host", "connection", "content-length", "transfer-encoding", "keep-alive", "accept-encoding", "date", "server"}
_SECRET = re.compile(r"authorization|cookie|api[-_]?key|token|secret", re.IGNORECASE)
_DULL = {"accept", "accept-encoding", "accept-language", "content-type", "content-length", "connection", "host"}


class Recorder:
    """Args:
    upstream: the model server; with or without a final /v1. writer: where requests go, in the order they came.
    """

    def __init__(self, upstream: str, writer: Writer, variant: str, scenario: str) -> None:
        self._upstream = upstream.rstrip("/").removesuffix("/v1")
        self._writer, self._names = writer, (variant, scenario)
        self._http = httpx.AsyncClient(timeout=None)
        self._began = 0.0
        self._seen = self._written = 0
        self._done: dict[int, Recorded] = {}

    @property
    def requests(self) -> int:
        return self._seen

    @asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve until the block ends; gives the base URL for agents, which ends in /v1. Raises CrrlError: the port is
        taken."""
        sock, server = bound(host, port), Server(self._app)
        try:
            await server.begin(sock)
            yield f"http://{host}:{sock.getsockname()[1]}/v1"
        finally:
            await server.end()
            await self._http.aclose()
            for i in sorted(self._done):
                self._writer.write(self._done[i])

    async def _app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self._seen += 1
        i, now = self._seen, time.monotonic()
        self._began = self._began or now
        body = b""
        while (message := await receive()).get("more_body"):
            body += message.get("body", b"")
        body += message.get("body", b"")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope["query_string"].decode("latin-1")
        path = scope["path"] + (f"?{query}" if query else "")
        resp = await self._forward(scope["method"], path, headers, body, receive, send)
        shown = {k: v for k, v in headers.items() if k.lower() not in _DULL and not _SECRET.search(k)}
        t = round(now - self._began, 3)
        self._done[i] = Recorded(*self._names, i, t, scope["method"], path, shown, _json(body), resp)
        while self._written + 1 in self._done:
            self._written += 1
            self._writer.write(self._done.pop(self._written))

    async def _forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes, receive: Any, send: Any
    ) -> Reply | str | int:
        """Passes a request on and its answer back. Returns the answer."""
        passed = {k: v for k, v in headers.items() if k.lower() not in _HOP}
        gone = asyncio.ensure_future(receive())
        answer = bytearray()
        try:
            async with self._http.stream(method, self._upstream + path, headers=passed, content=body) as reply:
                back = [(k.lower(), v) for k, v in reply.headers.raw if k.lower().decode() not in _HOP]
                back = [(k, v) for k, v in back if k != b"content-encoding"]
                await send({"type": "http.response.start", "status": reply.status_code, "headers": back})
                async for part in reply.aiter_bytes():
                    if gone.done():
                        return "FAIL-drop"
                    answer += part
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.HTTPError as error:
            if not answer:
                body = msgspec.json.encode({"error": {"message": f"upstream: {error}", "type": "server_error"}})
                await send({"type": "http.response.start", "status": 502, "headers": []})
                await send({"type": "http.response.body", "body": body})
            return "FAIL-502"
        finally:
            gone.cancel()
        return _answered(path, reply, bytes(answer))


def _answered(path: str, reply: httpx.Response, answer: bytes) -> Reply | str | int:
    if not api_of(path):
        return reply.status_code
    if reply.status_code == 400 and re.search(rb"context_length_exceeded|prompt is too long", answer):
        return "FAIL-ctx"
    if reply.status_code != 200:
        return f"FAIL-{reply.status_code}"
    streamed = reply.headers.get("content-type", "").startswith("text/event-stream")
    try:
        return read_reply(path, answer, streamed)
    except Broken:
        return "FAIL-drop"  # the stream broke off


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
