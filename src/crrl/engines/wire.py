"""An engine in another process, over a unix socket: `EngineServer` runs next to the engine, `RemoteEngine` at the
user's (`engines.connect` makes it). What passes is the sampler's half of an engine, `api.Engine`: weights go into an
engine in its own process.

Frames are a 4-byte big-endian length and a msgpack list. One connection carries any number of requests, told apart by a
number the client chooses. Chunks that become ready together travel in one frame. When a connection drops, every request
on it fails: the server cancels them, the client raises `EngineError` in each.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from crrl.engines import ContextLengthError, EngineError
from crrl.engines.api import Chunk, Engine, EngineInfo, Request, Served

_LENGTH = struct.Struct(">I")
_MAX_FRAME = 1 << 28


def _frame(message: object) -> bytes:
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


async def _read(reader: asyncio.StreamReader) -> list[Any]:
    """The next frame; `EOFError` or `ConnectionError` when the other end is gone or speaks something else."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _MAX_FRAME:
        raise ConnectionError(f"a frame of {length} bytes")
    try:
        message = msgspec.msgpack.decode(await reader.readexactly(length))
    except msgspec.DecodeError as e:
        raise ConnectionError(f"not a frame: {e}") from None
    if not isinstance(message, list) or not message:
        raise ConnectionError("not a frame")
    return message


class _Connection:
    """One client, on the server's side: [number, verb, arguments...] in, [[number, kind, payload], ...] out."""

    def __init__(
        self,
        engine: Engine,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int], None],
    ) -> None:
        self._engine, self._reader, self._writer, self._count = engine, reader, writer, count
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._out: list[tuple[int, str, object]] = []

    async def run(self) -> None:
        try:
            while True:
                number, verb, *arguments = await _read(self._reader)
                if verb == "close":
                    if task := self._tasks.get(arguments[0]):
                        task.cancel()
                    continue
                task = asyncio.create_task(self._serve(number, verb, arguments))
                self._tasks[number] = task
                task.add_done_callback(lambda _, number=number: self._tasks.pop(number, None))  # type: ignore[misc]
        except (EOFError, ConnectionError, ValueError, TypeError):
            pass
        finally:
            for task in self._tasks.values():
                task.cancel()
            self._writer.close()

    async def _serve(self, number: int, verb: str, arguments: list[Any]) -> None:
        try:
            if verb == "generate":
                chunks = self._engine.generate(msgspec.convert(arguments[0], Request))
                async with contextlib.aclosing(chunks):  # type: ignore[type-var]
                    async for chunk in chunks:
                        self._count(len(chunk.ids))
                        self._send(number, "chunk", [chunk.ids, chunk.logprobs, chunk.versions, chunk.finish])
                return
            if verb not in ("score", "cancel", "info"):
                raise ValueError(f"unknown verb {verb!r}")
            self._send(number, "result", await getattr(self._engine, verb)(*arguments))
        except ContextLengthError as e:
            self._send(number, "context", [e.prompt, e.context])
        except EngineError as e:
            self._send(number, "error", e.detail)
        except Exception as e:
            self._send(number, "error", f"{type(e).__name__}: {e}")

    def _send(self, number: int, kind: str, payload: object) -> None:
        """Everything sent within one turn of the event loop leaves in one frame."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._write)
        self._out.append((number, kind, payload))

    def _write(self) -> None:
        batch, self._out = self._out, []
        if not self._writer.is_closing():
            self._writer.write(_frame(batch))


class EngineServer:
    """Serves an engine on a unix socket (mode 0600) from a thread with its own event loop, until `close`.
    `address` is what `engines.connect` takes; `tokens`: how many have been sampled."""

    def __init__(self, engine: Engine, socket_path: str | Path) -> None:
        self._engine = engine
        self.path = Path(socket_path)
        self.address = f"unix:{socket_path}"
        self.tokens = 0
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()
        started: threading.Event = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, args=(started,), name="crrl-engine-server", daemon=True)
        self._thread.start()
        started.wait()
        if self._failure:
            raise self._failure

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._server = self._loop.run_until_complete(self._listen())
        except OSError as e:
            self._failure = e
            return
        finally:
            started.set()
        self._loop.run_forever()

    async def _listen(self) -> asyncio.Server:
        self.path.unlink(missing_ok=True)
        previous = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(self._connect, str(self.path))
        finally:
            os.umask(previous)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _Connection(self._engine, reader, writer, self._sampled).run()
        except asyncio.CancelledError:  # by close(); a cancelled task would be logged as an error by the stream
            pass
        finally:
            self._connections.discard(task)

    def _sampled(self, tokens: int) -> None:
        self.tokens += tokens

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def serving(engine: Engine, socket_path: str | Path) -> Iterator[Served]:
    """Where the worker reaches an engine: at its own address if it has one, else at a socket that is opened for it."""
    if isinstance(engine, Served):
        yield engine
        return
    server = EngineServer(engine, socket_path)
    try:
        yield server
    finally:
        server.close()


class RemoteEngine:
    """The `Engine` behind a socket. Connects at first use; belongs to the event loop that used it first.

    Once the connection is lost, every call raises `EngineError`: the engine's process is gone.
    """

    def __init__(self, socket_path: str | Path) -> None:
        self._path = str(socket_path)
        self._numbers = itertools.count()
        self._inboxes: dict[int, asyncio.Queue[tuple[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._lost: str | None = None
        self._listener: asyncio.Task[None] | None = None

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        number, inbox = await self._ask("generate", request)
        ended = False
        try:
            while not ended:
                kind, payload = await inbox.get()
                ended = kind != "chunk" or payload[3] is not None
                self._raise(kind, payload)
                yield Chunk(*payload)
        finally:
            del self._inboxes[number]
            if not ended and not self._lost and self._writer:
                self._writer.write(_frame([next(self._numbers), "close", number]))

    async def score(self, ids: list[int]) -> list[float]:
        return await self._result("score", ids)

    async def cancel(self, id: str) -> None:
        await self._result("cancel", id)

    async def info(self) -> EngineInfo:
        return msgspec.convert(await self._result("info"), EngineInfo)

    async def close(self) -> None:
        self._fail("closed")
        if self._listener:
            self._listener.cancel()
        if self._writer:
            self._writer.close()

    async def _result(self, verb: str, *arguments: object) -> Any:
        number, inbox = await self._ask(verb, *arguments)
        try:
            kind, payload = await inbox.get()
        finally:
            del self._inboxes[number]
        self._raise(kind, payload)
        return payload

    async def _ask(self, verb: str, *arguments: object) -> tuple[int, asyncio.Queue[tuple[str, Any]]]:
        async with self._connecting:
            if self._writer is None and self._lost is None:
                await self._connect()
        if self._lost is not None or self._writer is None:
            raise EngineError(f"the engine at {self._path} is gone: {self._lost}")
        number = next(self._numbers)
        inbox = self._inboxes[number] = asyncio.Queue()
        self._writer.write(_frame([number, verb, *arguments]))
        return number, inbox

    async def _connect(self) -> None:
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._path)
        except OSError as e:
            raise EngineError(f"no engine at {self._path}: {e}") from e
        self._listener = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                for number, kind, payload in await _read(reader):
                    if inbox := self._inboxes.get(number):
                        inbox.put_nowait((kind, payload))
        except (EOFError, OSError, ValueError, TypeError) as e:
            self._fail(f"{type(e).__name__}: {e}")

    def _fail(self, why: str) -> None:
        self._lost = why
        for inbox in self._inboxes.values():
            inbox.put_nowait(("error", f"the connection to the engine was lost ({why})"))

    def _raise(self, kind: str, payload: Any) -> None:
        if kind == "context":
            raise ContextLengthError(*payload)
        if kind == "error":
            raise EngineError(payload)
