"""The warm interpreter from the host's side: the process, and the socket over which it is handed one socket a run.

Invariant 3: the zygote runs in a box of its own, without network; each run is a fork of it (`zygote.py`), which is
killed when the socket of its run is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import socket
import struct
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError, LostError
from crrl.rewards import harness
from crrl.sandbox import cgroup

BOX = shlex.split("""
--unshare-user --uid 1000 --gid 1000 --unshare-pid --as-pid-1 --unshare-ipc --unshare-uts --unshare-net
--unshare-cgroup-try --hostname judge --new-session --die-with-parent --cap-drop ALL --ro-bind /usr /usr
--symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/sbin /sbin
--ro-bind-try /etc/ld.so.cache /etc/ld.so.cache --ro-bind-try /etc/alternatives /etc/alternatives
--ro-bind-try /etc/passwd /etc/passwd --ro-bind-try /etc/group /etc/group
--ro-bind-try /etc/hosts /etc/hosts --ro-bind-try /etc/localtime /etc/localtime --proc /proc --dev /dev
--dir /workspace --dir /scratch --dir /tmp --dir /state --dir /environment
""")


class Zygote:
    """The warm process and the socket over which it is handed one socket per run."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self.control = control

    @classmethod
    async def start(cls, built: harness.Harness, state_dir: Path) -> Zygote:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        mounts = ["--ro-bind", str(built.path), "/harness", "--ro-bind", str(state_dir), "/state"]
        command = [
            "bwrap",
            *BOX,
            *mounts,
            "--remount-ro",
            "/dev",
            "--remount-ro",
            "/",
            "--chdir",
            "/",
            "--clearenv",
        ]
        command += [built.python, "-I", "-B", "/harness/zygote.py", str(theirs.fileno())]
        dropped: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                **dropped,
            )
        except FileNotFoundError as error:
            control.close()
            raise CrrlError("The judge needs bubblewrap.", "apt-get install bubblewrap") from error
        finally:
            theirs.close()
        zygote = cls(process, control)
        ready = await asyncio.get_running_loop().sock_recv(control, 16)
        if ready != b"ready":
            assert process.stderr is not None
            said = (await process.stderr.read()).decode("utf-8", "replace")
            await zygote.close()
            raise LostError("judge_died", f"the judge's interpreter did not start: {said[-2000:]}")
        return zygote

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def run(self, request: dict[str, Any], groups: cgroup.Place | None) -> dict[str, Any]:
        """One judged run, in a cgroup of its own below `groups`. Cancelling it closes the socket, and that kills it."""
        ours, theirs = socket.socketpair()
        group: cgroup.Group | None = None
        try:
            ours.setblocking(False)
            if groups is not None:
                group = cgroup.make(groups, request["limits"]["memory_bytes"], request["limits"]["nproc"])
            socket.send_fds(self.control, [b"run"], [theirs.fileno(), *(group.fds if group is not None else [])])
            theirs.close()
            loop = asyncio.get_running_loop()
            data = json.dumps(request).encode()
            await loop.sock_sendall(ours, struct.pack("!I", len(data)) + data)
            (size,) = struct.unpack("!I", await _receive(ours, 4))
            reply: dict[str, Any] = json.loads(await _receive(ours, size))
            return reply
        finally:
            theirs.close()
            ours.close()
            if group is not None:
                group.remove()

    async def close(self) -> None:
        self.control.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


async def _receive(sock: socket.socket, size: int) -> bytes:
    loop, parts = asyncio.get_running_loop(), bytearray()
    while len(parts) < size:
        chunk = await loop.sock_recv(sock, min(size - len(parts), 1 << 20))
        if not chunk:
            raise EOFError("the judge's supervisor is gone")
        parts += chunk
    return bytes(parts)
