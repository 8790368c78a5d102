"""A box whose PID 1 is our exec server (`pid1.py`): commands, reads and writes, from the worker's event loop.

No thread per box: the loop watches each box's control socket and output pipe. The back ends start such boxes, take
their patches and end them (`box.py`: bubblewrap; `containers/box.py`). Invariant 2: a box that dies unasked is `lost`.
An agent cannot cause that: nothing inside can signal or trace PID 1, and killing anything else only yields an exit
code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from crrl.errors import LostError
from crrl.sandbox.api import ExecReason, ExecResult
from crrl.sandbox.output import Sink
from crrl.sandbox.relay import Relay

CHUNK = 1 << 16
START_S, GRACE_S, PATCH_S = 60.0, 20.0, 120.0
ERRORS = {e.__name__: e for e in (FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError)}


class ServedBox:
    """Commands, reads and writes run one at a time; a second caller waits.

    Args:
        env: variables of every command; a command's own take precedence.
    """

    def __init__(self, control: socket.socket, output: int, *, env: Mapping[str, str]) -> None:
        self._env = env
        self._loop = asyncio.get_running_loop()
        self._control, self._output = control, output
        self._turn = asyncio.Lock()
        self._closed = False
        self._why = ""  # why no further command can run
        self._dead = False  # ended by itself
        self._stale = 0  # answers of cancelled commands, still to come
        self._reply: asyncio.Future[list[str]] | None = None
        self._sink: Sink | None = None
        self._passed: list[int] = []  # descriptors that came with an answer
        self._relay: Relay | None = None
        control.setblocking(False)
        os.set_blocking(output, False)
        self._loop.add_reader(control, self._on_reply)
        self._loop.add_reader(output, self._on_output)

    async def ready(self, gateway: Path | None) -> None:
        """Wait until the box is ready, and join its loopback port to the host's socket `gateway`. Raises LostError."""
        fields = await self._answer(START_S)
        if fields != ["ready"] or len(self._passed) != (gateway is not None):
            raise LostError("sandbox_start", " ".join(fields[1:]) or await self._post_mortem())
        if gateway is not None:
            self._relay = await Relay.start(socket.socket(fileno=self._passed.pop()), gateway)

    async def _post_mortem(self) -> str:
        """The back end's information on a box that did not start."""
        return self._why or "no word from it"

    async def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        output_limit: int = 65536,
        on_output: Callable[[bytes], object] | None = None,
    ) -> ExecResult:
        pairs = [f"{k}={v}" for k, v in {**self._env, **(env or {})}.items()]
        request = message_of("exec", timeout_s, cwd, len(argv), *argv, *pairs)
        async with self._turn:
            start = time.monotonic()
            self._sink = sink = Sink(output_limit, on_output)
            try:
                fields = await self._ask(request, timeout_s + GRACE_S)
            finally:
                self._drain()
                self._sink = None
            wall = time.monotonic() - start
            if len(fields) != 4:
                return ExecResult(None, sink.text(), "lost", wall, 0.0)
            reason, code, inner_wall, cpu = fields
            return ExecResult(
                int(code) if code else None,
                sink.text(),
                cast(ExecReason, reason),
                float(inner_wall),
                float(cpu),
            )

    async def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """The first `limit` bytes of a file."""
        async with self._turn:
            self._sink = sink = Sink(2 * limit, hard=False)
            try:
                _raise(await self._ask(message_of("read", path, limit), GRACE_S), path)
            finally:
                self._drain()
                self._sink = None
            return bytes(sink.head)

    async def write(self, path: str, data: bytes) -> None:
        async with self._turn:
            messages = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
            _raise(await self._ask(message_of("write", path, len(data)), GRACE_S, messages), path)

    def _let_go(self) -> None:
        """This side's part of `close`."""
        for fd in (self._control, self._output):
            self._loop.remove_reader(fd)
        self._control.close()
        os.close(self._output)
        if self._relay is not None:
            self._relay.close()
        for fd in self._passed:
            os.close(fd)
        if self._reply is not None and not self._reply.done():
            self._reply.set_result([])

    async def _ask(self, request: bytes, within: float, more: Sequence[bytes] = ()) -> list[str]:
        """PID 1's answer; [] if the box is gone or does not answer (it is then closed, so no late answer can
        follow)."""
        if self._closed or self._why:
            return []
        try:
            self._reply = self._loop.create_future()
            for message in (request, *more):
                await self._loop.sock_sendall(self._control, message)
        except OSError:
            return []
        except asyncio.CancelledError:
            self._why = "cancelled in the middle of a request"
            raise
        reply = self._reply
        try:
            return await self._answer(within)
        except asyncio.CancelledError:  # the agent's time is up: end the command, and keep the box usable
            if reply.cancelled():  # no answer has come yet
                self._stale += 1
                with contextlib.suppress(OSError):
                    self._control.send(b"abort")
            raise

    async def _answer(self, within: float) -> list[str]:
        if self._reply is None:
            self._reply = self._loop.create_future()
        try:
            async with asyncio.timeout(within):  # wait_for loses a cancellation that comes with the answer (3.11)
                return await self._reply
        except TimeoutError:
            self._why = "the exec server hangs"
            return []
        finally:
            self._reply = None

    def _on_reply(self) -> None:
        try:
            message, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
            self._passed += fds
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._why, self._dead = self._why or "the box ended by itself", True
            self._loop.remove_reader(self._control)
        elif self._stale > 0:
            self._stale -= 1
            self._drain()
            if self._sink is not None:
                self._sink.clear()
            return
        if self._reply is not None and not self._reply.done():
            self._reply.set_result([os.fsdecode(f) for f in message.split(b"\0")] if message else [])

    def _on_output(self) -> None:
        try:
            data = os.read(self._output, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
        elif self._sink is not None and self._sink.add(data):
            with contextlib.suppress(OSError):
                self._control.send(b"abort")

    def _drain(self) -> None:
        """The rest of the output, in the pipe after the command has ended and all writers are dead."""
        while not self._closed:
            try:
                data = os.read(self._output, CHUNK)
            except BlockingIOError:
                return
            if not data:
                return
            if self._sink is not None:
                self._sink.add(data)


def message_of(*fields: object) -> bytes:
    parts = [os.fsencode(str(f)) for f in fields]
    if any(b"\0" in p for p in parts):
        raise ValueError("a NUL byte in a command or path")
    message = b"\0".join(parts)
    if len(message) > 1 << 17:
        raise ValueError("the command is longer than 128 KiB")
    return message


def _raise(fields: list[str], path: str) -> None:
    if not fields:
        raise LostError("sandbox_died", f"while at {path}")
    if fields[0] == "ok":
        return
    name, number, text = fields
    if name == "ValueError":
        raise ValueError(f"{path}: {text}")
    if name in ERRORS:
        raise ERRORS[name](int(number), text, path)
    raise OSError(int(number), text, path)
