"""The only way out of a box: its loopback port, joined to one unix socket of the host (a session of the gateway).

The box's PID 1 (`pid1.py`) makes the listening socket, on the box's own loopback, and hands it out; connections are
accepted and forwarded here. None of this runs in the box, so the agent can neither end nor replace it, and sees no
socket or file of the host (invariant 4). Only bytes pass, and only to this session of the gateway.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

MOST = 64  # connections of one box at a time; further ones are closed: an agent must not use up the host's descriptors


class Relay:
    """Made by `start`; `close` cuts open connections."""

    def __init__(self, gateway: Path) -> None:
        self._gateway = str(gateway)
        self._server: asyncio.Server | None = None
        self._inside: set[_End] = set()
        self._outside: set[_End] = set()
        self._joining: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, listener: socket.socket, gateway: Path) -> Relay:
        """Accept from `listener`; each connection opens one to `gateway`, which may begin to listen later."""
        relay = cls(gateway)
        loop = asyncio.get_running_loop()
        relay._server = await loop.create_server(lambda: _End(relay._inside, relay._accepted), sock=listener)
        return relay

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._joining:
            task.cancel()
        for end in (*self._inside, *self._outside):
            end.transport.abort()

    def _accepted(self, inside: _End) -> None:
        if len(self._inside) > MOST:
            return inside.transport.abort()
        # Later: Python 3.11 starts reading right after this call, paused or not, and would lose that data.
        asyncio.get_running_loop().call_soon(inside.transport.pause_reading)
        task = asyncio.create_task(self._join(inside))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, inside: _End) -> None:
        try:
            _, outside = await asyncio.get_running_loop().create_unix_connection(
                lambda: _End(self._outside), self._gateway
            )
        except OSError:  # no session is listening
            return inside.transport.abort()
        inside.other, outside.other = outside, inside
        if inside.transport.is_closing():
            return outside.transport.abort()
        inside.transport.resume_reading()


class _End(asyncio.Protocol):
    """One end of a joined pair: the other writes what it reads, and sets the pace."""

    def __init__(self, open: set[_End], on_open: Callable[[_End], None] = lambda _: None) -> None:
        self._open, self._on_open = open, on_open
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._open.add(self)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)
        if self.other is not None:
            self.other.transport.close()
