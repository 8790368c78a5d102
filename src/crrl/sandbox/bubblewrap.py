"""The default back end: bubblewrap boxes (`box.py`), forked by one launcher process (`launcher.py`).

Invariant 4: of the host, a box sees only `keeper.BOX`, `Spec.root` and `Spec.mounts`, all read-only, and, if
`Spec.gateway_socket` names it, one session of the gateway (`relay.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import marshal
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from crrl.errors import LostError
from crrl.sandbox import cgroup, in_use, seccomp, workspace
from crrl.sandbox.api import GATEWAY_PORT, Spec, Workspace
from crrl.sandbox.availability import PYTHON, dropped_uid, require, require_mount, state_dirs
from crrl.sandbox.box import BubblewrapBox
from crrl.sandbox.served_box import START_S
from crrl.sandbox.whole import whole
from crrl.task import Source


class BubblewrapSandbox:
    """Boxes on this host. Raises CrrlError, with the remedy, if bubblewrap does not work.

    Args:
        state_dir: prepared workspaces; on a disk, readable by the uid that boxes run as, never under HOME.
        cgroups: False: a watchdog keeps the memory limit, as where no cgroup can be made.
    """

    def __init__(self, *, state_dir: Path, cgroups: bool = True) -> None:
        self.state_dir = Path(state_dir).absolute()
        self.uid = dropped_uid()
        state_dirs(self.state_dir)
        in_use.hold(self.state_dir)
        require(self.state_dir, self.uid)
        self._pid1 = _compile_pid1(self.state_dir)
        self._groups = cgroup.find() if cgroups else None
        self._seccomp = seccomp.build(uncounted=self._groups is not None)
        self._boxes: set[BubblewrapBox] = set()
        self._launcher, self._orders = self._start_launcher()

    @property
    def launcher_pid(self) -> int:
        return self._launcher.pid

    def _start_launcher(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        source = str(Path(__file__).resolve().parents[2])
        code = f"import sys; sys.path.insert(0, {source!r}); from crrl.sandbox.launcher import main; main()"
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-ISEc", code, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                cwd="/",
            )
        ours.setblocking(False)
        return process, ours

    async def prepare(self, source: object, paths: Sequence[str] = ()) -> Workspace:
        """Works in a thread, once for concurrent calls with the same source. It always prepares whole commits, so all
        tasks that take `paths` from one share it."""
        if not isinstance(source, Source):
            raise TypeError(f"a tasks.task.Source, not {type(source).__name__}")
        return await asyncio.to_thread(workspace.prepare, source, self.state_dir, self.uid)

    async def start(self, spec: Spec) -> BubblewrapBox:
        """A box that is ready. Raises LostError (`sandbox_start`), CrrlError (a mount that boxes cannot read)."""
        for mount in spec.mounts:
            require_mount(mount, self.uid)
        if self._launcher.poll() is not None:
            self._orders.close()
            self._launcher, self._orders = self._start_launcher()
        channel, keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, output_w = os.pipe()
        group: cgroup.Group | None = None

        def on_close(box: BubblewrapBox) -> None:
            self._boxes.discard(box)
            if group is not None:
                group.remove()

        box = BubblewrapBox(channel, control, output, has_root=spec.root is not None, env=spec.env, on_close=on_close)
        self._boxes.add(box)
        try:
            try:
                if self._groups is not None:
                    group = cgroup.make(self._groups, spec.limits.memory_bytes, spec.limits.processes)
                order, fds = marshal.dumps(self._order(spec)), [keeper.fileno(), inner.fileno(), output_w]
                await self._send_order(order, fds + (group.fds if group is not None else []))
            finally:
                keeper.close()
                inner.close()
                os.close(output_w)
                if group is not None:
                    group.close_fds()
            await box.ready(spec.gateway_socket)
        except BaseException:
            await box.close()
            raise
        return box

    async def _send_order(self, order: bytes, fds: list[int]) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.send_fds(self._orders, [order], fds)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LostError("sandbox_start", "the launcher hangs") from None
                await asyncio.sleep(0.005)
            except OSError as error:
                raise LostError("sandbox_start", f"the launcher is gone: {error}") from error

    def _order(self, spec: Spec) -> dict[str, object]:
        limits = spec.limits
        return {
            "uid": self.uid,
            "mount_point": str(self.state_dir / "mnt"),
            "lower": str(spec.root.lower) if spec.root else "",
            "git_dir": str(spec.root.git_dir) if spec.root else "",
            "mounts": [(str(mount.source), mount.target) for mount in spec.mounts],
            "bwrap": shutil.which("bwrap"),
            "pid1": self._pid1,
            "port": GATEWAY_PORT if spec.gateway_socket is not None else 0,
            "seccomp": self._seccomp,
            "disk": limits.disk_bytes,
            "tmp": limits.tmp_bytes,
            "inodes": limits.inodes,
            "memory": limits.memory_bytes,
            "processes": limits.processes,
            "file": limits.file_bytes,
            "open_files": limits.open_files,
        }

    async def close(self) -> None:
        await asyncio.gather(*(box.close() for box in list(self._boxes)))
        self._orders.close()
        try:
            await asyncio.to_thread(self._launcher.wait, 10)
        except subprocess.TimeoutExpired:
            self._launcher.send_signal(signal.SIGKILL)
            self._launcher.wait()


def _compile_pid1(state_dir: Path) -> str:
    """A folder with pid1.py and what it imports, as bytecode of the box's interpreter: compiling at each start would
    cost as much as the start."""
    sources = [Path(__file__).with_name(name) for name in ("pid1.py", "memory_use.py", "memory_watch.py")]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    made = state_dir / "tools" / f"pid1-{digest.hexdigest()[:12]}-{Path(PYTHON).stat().st_mtime_ns:x}"
    code = "import sys, py_compile; py_compile.compile(*sys.argv[1:3], dfile=sys.argv[3], doraise=True)"
    while not in_use.use(made, state_dir):
        with whole(made) as folder:
            for source in sources:
                target = folder / f"{source.stem}.pyc"
                subprocess.run([PYTHON, "-ISEc", code, str(source), str(target), source.name], check=True, cwd="/")
                target.chmod(0o644)
    return str(made)
