"""The one way out of a box: loopback port 8000 is one session's socket (invariant 4)."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.sandbox import relay
from crrl.sandbox.api import GATEWAY_PORT, Mount, Spec
from crrl.sandbox.box import BubblewrapBox

ASK = f"""
import http.client, sys
def ask(path="/v1/models", body=b""):
    c = http.client.HTTPConnection("127.0.0.1", {GATEWAY_PORT}, timeout=10)
    c.request("POST", path, body)
    return c.getresponse().read().decode()
"""
HALF = f"""
import os, socket, time
s = socket.create_connection(("127.0.0.1", {GATEWAY_PORT}))
s.send(b"POST /v1/half HTTP/1.1\\r\\n")
"""


class Host:
    """Answers each request with its own name, the path, and a hash of the body's length; knows who is connected."""

    def __init__(self, name: str) -> None:
        self.name, self.open, self.bodies = name, 0, 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = re.search(rb"content-length: (\d+)", head, re.I)
                body = await reader.readexactly(int(size[1])) if size else b""
                self.bodies += len(body)
                answer = f"{self.name} {head.split()[1].decode()} {size[1].decode() if size else 0}".encode()
                if b"/large" in head:
                    answer = b"x" * (8 << 20)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def sockets() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crrl-gw-") as folder:  # mode 0700: a box's uid could not enter it
        yield Path(folder)


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Host]:
    host = Host(path.name)
    server = await asyncio.start_unix_server(host, path)
    yield host
    server.close()


@pytest.fixture
async def start(sandbox, workspace) -> AsyncIterator:
    async with AsyncExitStack() as closing:

        async def one(socket_path: Path | None, **spec) -> BubblewrapBox:
            box = await sandbox.start(Spec(root=workspace, gateway_socket=socket_path, **spec))
            closing.push_async_callback(box.close)
            return box

        yield one


async def py(box: BubblewrapBox, code: str, timeout_s: float = 20):
    return await box.exec(["/usr/bin/python3", "-c", ASK + code], timeout_s=timeout_s)


async def eventually(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (the conditions are the operating system's)
            await asyncio.sleep(0.01)


async def test_each_box_reaches_its_own_session_and_no_other(start, sockets):
    boxes = [await start(sockets / name) for name in ("a", "b")]  # before the sessions open: set-up runs first
    none = await start(None)
    assert (await py(boxes[0], "ask()")).code == 1
    async with served(sockets / "a") as a, served(sockets / "b"):
        said = await asyncio.gather(*(py(box, "print(ask(body=b'12345'))") for box in boxes))
        assert [r.output for r in said] == ["a /v1/models 5\n", "b /v1/models 5\n"]
        assert "ConnectionRefusedError" in (await py(none, "ask()")).output
        await eventually(lambda: a.open == 0)


async def test_large_bodies_both_ways_and_many_at_once(start, sockets):
    box = await start(sockets / "a")
    async with served(sockets / "a") as host:
        code = (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(16) as pool:\n"
            "  sizes = list(pool.map(lambda i: len(ask('/large', b'y' * (4 << 20))), range(16)))\n"
            "print(sum(sizes))"
        )
        assert (await py(box, code, 60)).output == f"{16 * (8 << 20)}\n"
        assert host.bodies == 16 * (4 << 20)


async def test_nothing_in_the_box_ends_or_takes_the_port(start, sockets):
    box = await start(sockets / "a")
    async with served(sockets / "a"):
        kill = await box.exec(["bash", "-c", "kill -9 -1; for p in /proc/[0-9]*; do kill -9 ${p#/proc/}; done; true"])
        assert kill.reason == "exit"
        code = (
            "import socket\n"
            f"for where in ('127.0.0.1', '0.0.0.0'):\n"
            "  s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
            "  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
            f"  try: s.bind((where, {GATEWAY_PORT})); s.listen(); print('TAKEN')\n"
            "  except OSError as e: print(e.errno)\n"
            "print(ask())"
        )
        assert (await py(box, code)).output == "98\n98\na /v1/models 0\n"  # EADDRINUSE


async def test_a_command_killed_in_the_middle_of_a_request_hangs_up(start, sockets):
    box = await start(sockets / "a")
    async with served(sockets / "a") as host:
        running = asyncio.create_task(py(box, HALF + "time.sleep(0.3); os.kill(-1, 9)"))
        await eventually(lambda: host.open == 1)
        assert (await running).reason == "exit"
        await eventually(lambda: host.open == 0)
        assert (await py(box, "print(ask())")).output == "a /v1/models 0\n"


async def test_nothing_else_of_the_host_is_reached_through_it(start, sockets):
    """No socket file is shown, no other port answers, and what goes through arrives at this session alone."""
    box = await start(sockets / "a")
    listener = socket.create_server(("127.0.0.1", 0))
    async with served(sockets / "a"), served(sockets / "b"):
        code = (
            "import socket\n"
            f"for where in (('127.0.0.1', {listener.getsockname()[1]}), ('127.0.0.2', {GATEWAY_PORT}),\n"
            f"              ('127.0.0.1', {GATEWAY_PORT + 1}), ('1.1.1.1', 80)):\n"
            "  s = socket.socket(); s.settimeout(2)\n"
            "  try: s.connect(where); print('REACHED', where)\n  except OSError as e: pass\n"
            f"for path in ('{sockets}/a', '{sockets}/b'):\n"
            "  try: socket.socket(socket.AF_UNIX).connect(path); print('REACHED', path)\n"
            "  except FileNotFoundError: pass\n"
            "print(ask('/../../s/other/v1/models'), ask('http://other/v1/models'))"
        )
        assert (await py(box, code)).output == "a /../../s/other/v1/models 0 a http://other/v1/models 0\n"
        found = await box.exec(
            ["bash", "-c", "find / -type s 2>/dev/null; ls -d /tmp/* /var/tmp /run 2>/dev/null; true"]
        )
        assert found.output == ""
    listener.close()


async def test_a_flood_of_connections_costs_the_host_a_bounded_number(start, sockets):
    box = await start(sockets / "a")
    before = len(os.listdir("/proc/self/fd"))
    async with served(sockets / "a"):
        code = (
            "import socket, time\nopen = []\n"
            "for i in range(400):\n"
            f"  s = socket.socket(); s.settimeout(1); open.append(s)\n"
            f"  try: s.connect(('127.0.0.1', {GATEWAY_PORT}))\n  except OSError: pass\n"
            "print('flooded', flush=True); time.sleep(3)"
        )
        said = bytearray()
        running = asyncio.create_task(box.exec(["/usr/bin/python3", "-c", code], timeout_s=60, on_output=said.extend))
        await eventually(lambda: b"flooded" in said)
        await asyncio.sleep(0.2)
        assert len(os.listdir("/proc/self/fd")) - before <= 3 * relay.MOST + 16  # both ends, and this test's server
        await running
        assert (await py(box, "print(ask())")).output == "a /v1/models 0\n"


async def test_a_closed_box_leaves_no_connection_and_no_descriptor(start, sockets):
    async with served(sockets / "a") as host:
        before = len(os.listdir("/proc/self/fd"))
        box = await start(sockets / "a")
        running = asyncio.create_task(py(box, HALF + "time.sleep(60)"))
        await eventually(lambda: host.open == 1)
        await box.close()
        assert (await running).reason == "lost"
        await eventually(lambda: host.open == 0)
        await eventually(lambda: len(os.listdir("/proc/self/fd")) == before)


async def test_mounts_are_read_only_and_refused_where_a_box_could_not_read_them(start, state_dir):
    tool = state_dir / "tool"
    (tool / "bin").mkdir(parents=True)
    (tool / "bin" / "run").write_text("#!/bin/sh\necho run $0\n")
    (tool / "bin" / "run").chmod(0o755)
    box = await start(None, mounts=[Mount(tool, "/opt/agent")])
    assert (await box.exec(["/opt/agent/bin/run"])).output == "run /opt/agent/bin/run\n"
    attack = "echo x > /opt/agent/new; rm /opt/agent/bin/run; chmod 777 /opt/agent/bin; ls /opt/agent/.. /var/tmp"
    assert "agent" in (await box.exec(["bash", "-c", attack])).output
    assert sorted(p.name for p in tool.rglob("*")) == ["bin", "run"]
    with pytest.raises(CrrlError, match="does not exist"):
        await start(None, mounts=[Mount(state_dir / "no", "/opt/agent")])
    with pytest.raises(CrrlError, match="not a place"):
        await start(None, mounts=[Mount(tool, "../opt")])
    with pytest.raises(CrrlError, match="HOME"):
        await start(None, mounts=[Mount(Path.home(), "/opt/agent")])
    if os.getuid() == 0:
        tool.chmod(0o700)
        with pytest.raises(CrrlError, match="cannot enter"):
            await start(None, mounts=[Mount(tool, "/opt/agent")])
