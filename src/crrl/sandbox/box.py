"""One bubblewrap box: a `ServedBox` whose keeper (`keeper.py`) takes the patch and ends it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Mapping

from crrl.errors import LostError
from crrl.sandbox.served_box import GRACE_S, PATCH_S, ServedBox

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/agent", "LANG": "C.UTF-8", "TERM": "dumb"}


class BubblewrapBox(ServedBox):
    def __init__(
        self,
        channel: socket.socket,
        control: socket.socket,
        output: int,
        *,
        has_root: bool,
        env: Mapping[str, str],
        on_close: Callable[[BubblewrapBox], None],
    ) -> None:
        super().__init__(control, output, env={**ENV, **env})
        self._on_close = on_close
        self._has_root = has_root
        self._channel = channel
        channel.setblocking(False)

    async def patch(self) -> str:
        """See `Box.patch`; leaves out content beyond the limits in `patch.py`. Raises LostError, ValueError (no
        root)."""
        if not self._has_root:
            raise ValueError("a box without a repository has no patch")
        async with self._turn:
            if self._closed or self._dead:
                raise LostError("sandbox_died", self._why or "the box is closed")
            self._why = "its patch was taken"
            self._loop.remove_reader(self._control)
            self._loop.remove_reader(self._output)
            try:
                async with asyncio.timeout(PATCH_S):
                    await self._loop.sock_sendall(self._channel, b"patch")
                    text, fds = await self._receive_channel()
            except (OSError, TimeoutError) as error:
                raise LostError("sandbox_died", f"no patch: {error}") from error
            if text.startswith(b"exited"):
                raise LostError("sandbox_died", text.decode("utf-8", "replace"))
            if text != b"ok":
                raise LostError("patch_failed", text.decode("utf-8", "replace"))
            size = os.fstat(fds[0]).st_size
            try:
                return os.pread(fds[0], size, 0).decode("utf-8")
            finally:
                os.close(fds[0])

    async def close(self) -> None:
        """Returns when no process of the box is left and its keeper is reaped. The box's files, in the keeper's tmpfs,
        are gone with it."""
        if self._closed:
            return
        self._closed = True
        for fd in (self._control, self._output):
            self._loop.remove_reader(fd)
        try:
            async with asyncio.timeout(GRACE_S):
                await self._loop.sock_sendall(self._channel, b"close")
                while await self._loop.sock_recv(self._channel, 4096):
                    pass
        except (OSError, TimeoutError):
            pass  # the keeper is gone already, and its box with it
        finally:
            self._channel.close()
            self._let_go()
            self._on_close(self)

    async def _receive_channel(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                text, fds, _, _ = socket.recv_fds(self._channel, 4096, 1)
            except BlockingIOError:
                readable: asyncio.Future[None] = self._loop.create_future()
                self._loop.add_reader(self._channel, _wake, readable)
                try:
                    await readable
                finally:
                    self._loop.remove_reader(self._channel)
                continue
            if not text:
                raise OSError(errno.EPIPE, "the keeper is gone")
            return text, fds

    async def _post_mortem(self) -> str:
        try:
            async with asyncio.timeout(2):
                text, _ = await self._receive_channel()
                return text.decode("utf-8", "replace")
        except (OSError, TimeoutError):
            return self._why or "no word from it"


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
