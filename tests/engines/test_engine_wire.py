"""The engine over its socket: the same answers, and what happens when either end is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from engine_kit import Answer, collect, collect_all, prompt, until

from crrl.engines import ContextLengthError, EngineError, Request, connect
from crrl.engines.scripted import ScriptedEngine
from crrl.engines.wire import EngineServer
from crrl.errors import UsageError


async def test_the_same_answers_through_the_socket(make, tmp_path: Path) -> None:
    requests = [Request(str(i), prompt(i, 10), 40, seed=i, stop_ids=[7]) for i in range(16)]
    direct = await collect_all(make(), requests)
    engine = make()
    server = EngineServer(engine, tmp_path / "engine.sock")
    assert stat.S_IMODE((tmp_path / "engine.sock").stat().st_mode) == 0o600
    remote = connect(server.address)
    answers = await collect_all(remote, requests)
    assert [(a.ids, a.finish) for a in answers] == [(a.ids, a.finish) for a in direct]
    for a, b in zip(answers, direct, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert await remote.info() == await engine.info()
    assert await remote.score([1, 2, 3]) == await engine.score([1, 2, 3])
    with pytest.raises(ContextLengthError):
        await collect(remote, Request("long", [1] * 600, 1))
    with pytest.raises(EngineError, match="max_tokens"):
        await collect(remote, Request("bad", [1], 0))
    await remote.close()
    server.close()
    assert not (tmp_path / "engine.sock").exists()


async def test_cancel_and_closing_reach_the_engine_and_its_rest_is_felt(make, tmp_path: Path) -> None:
    engine = make(context=100_000)
    server = EngineServer(engine, tmp_path / "s")
    remote = connect(server.address)
    task = asyncio.create_task(collect(remote, Request("a", [1], 90_000)))
    stream = remote.generate(Request("b", [2], 90_000))
    await anext(stream)
    await stream.aclose()
    with engine.resting():
        await until(lambda: len(engine._rows) == 1)
        steps = engine.steps
        await asyncio.sleep(0.1)
        assert engine.steps == steps
    await remote.cancel("a")
    assert (await asyncio.wait_for(task, 5)).finish == "cancelled"
    await remote.close()
    server.close()


async def test_no_engine_there(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no engine at"):
        await connect(f"unix:{tmp_path}/nothing").info()


@pytest.mark.parametrize("address", ["", "unix", "unix:", "/tmp/s", "http:", "ftp://host", "unixx:/tmp/s"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UsageError, match="not an engine's address") as error:
        connect(address)
    assert "unix:/" in error.value.remedy


async def test_what_the_worker_sees_has_no_weights(tmp_path: Path) -> None:
    """Nor can a client of the socket reach them by name."""
    server = EngineServer(engine := ScriptedEngine(lambda _: [1]), tmp_path / "s")
    remote = connect(server.address)
    assert not any(hasattr(remote, name) for name in ("push", "resting"))
    for verb in ("push", "resting", "_play", "version"):
        with pytest.raises(EngineError, match="unknown verb"):
            await remote._result(verb)  # type: ignore[attr-defined]
    assert engine.version == 0 and (await collect(remote, Request("a", [1], 5))).ids == [1]
    await remote.close()
    server.close()


async def test_a_client_that_speaks_nonsense_is_dropped_and_others_are_served(tmp_path: Path) -> None:
    server = EngineServer(ScriptedEngine(lambda _: [1, 2]), tmp_path / "s")
    for junk in (b"\xff\xff\xff\xffgarbage", b"\x00\x00\x00\x03abc", b"\x00\x00\x00\x01\x01", b"\x00"):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(junk)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    remote = connect(f"unix:{tmp_path}/s")
    assert (await collect(remote, Request("a", [1], 5))).ids == [1, 2]
    await remote.close()
    server.close()


def _child(code: str, *arguments: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


async def test_killing_the_engine_process_fails_what_is_in_flight(tmp_path: Path) -> None:
    child = _child(
        """
        import sys, time
        from crrl.engines.scripted import ScriptedEngine
        from crrl.engines.wire import EngineServer
        EngineServer(ScriptedEngine(lambda _: [1] * 4000, delay=0.01), sys.argv[1])
        print("ready", flush=True)
        time.sleep(60)
        """,
        tmp_path / "s",
    )
    assert child.stdout is not None
    await asyncio.to_thread(child.stdout.readline)
    remote = connect(f"unix:{tmp_path}/s")
    answers = [Answer(Request(str(i), [1], 4000)) for i in range(3)]
    tasks = [asyncio.create_task(collect(remote, a.request, a)) for a in answers]
    await until(lambda: all(a.ids for a in answers))
    os.kill(child.pid, signal.SIGKILL)
    for task in tasks:
        with pytest.raises(EngineError, match="lost"):
            await asyncio.wait_for(task, 5)
    with pytest.raises(EngineError, match="gone"):
        await remote.info()
    child.wait()


async def test_killing_the_client_process_cancels_its_requests(make, tmp_path: Path) -> None:
    engine = make(context=100_000)
    server = EngineServer(engine, tmp_path / "s")
    child = _child(
        """
        import asyncio, sys
        from crrl.engines import Request, connect
        async def main():
            async for chunk in connect("unix:" + sys.argv[1]).generate(Request("a", [1], 90_000)):
                print("token", flush=True)
        asyncio.run(main())
        """,
        tmp_path / "s",
    )
    assert child.stdout is not None
    await asyncio.to_thread(child.stdout.readline)
    assert len(engine._rows) == 1
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: not engine._rows)
    child.wait()
    child.stdout.close()
    server.close()
