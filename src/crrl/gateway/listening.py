"""HTTP in the running loop: an address, and a server on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from crrl.errors import CrrlError

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def bound(host: str, port: int) -> socket.socket:
    """A socket with this address. Raises CrrlError if it is not available."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # without it asyncio sets no TCP_NODELAY
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise CrrlError(
            f"gateway: cannot listen on {host}:{port}: {error.strerror}.",
            "Choose another port, or port 0 for any free one.",
        ) from error
    return sock


class Server(uvicorn.Server):
    """uvicorn over a plain ASGI app. The process's signals belong to whoever runs the loop."""

    def __init__(self, app: App) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http=HttpToolsProtocol,
            timeout_keep_alive=75,
            server_header=False,
            date_header=False,
        )
        super().__init__(config)
        self._serving: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def protocol(self) -> HttpToolsProtocol:
        """Of one more connection, from wherever it comes."""
        return HttpToolsProtocol(self.config, self.server_state, {})

    async def begin(self, sock: socket.socket) -> None:
        """Returns when it answers."""
        self._serving = asyncio.create_task(self.serve(sockets=[sock]))
        while not self.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        """Does not wait for open connections. Does nothing if the server has not started."""
        if self._serving is not None:
            self.should_exit = self.force_exit = True
            await asyncio.wait({self._serving})
            self._serving = None
