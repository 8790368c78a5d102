"""Boxes in containers, for tasks whose repository and dependencies come as an image: Docker, Podman or Apptainer.

`init.py` starts the same exec server as in every box (`pid1.py`), over a socket mounted into the container, so
commands, limits, kills, reads, writes and the patch work as in bubblewrap boxes. No file of an episode is on a disk:
all writes go to the container's own tmpfs (invariant 4).
"""

from __future__ import annotations

import asyncio
import marshal
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from crrl.errors import CrrlError, LostError
from crrl.sandbox import in_use, seccomp
from crrl.sandbox.api import GATEWAY_PORT, ImageRoot, Limits, Spec, Workspace
from crrl.sandbox.availability import state_dirs
from crrl.sandbox.containers import python, workspace
from crrl.sandbox.containers.api import Engine, Start
from crrl.sandbox.containers.apptainer import Apptainer
from crrl.sandbox.containers.box import ContainerBox
from crrl.sandbox.containers.engine import ContainerEngine
from crrl.sandbox.containers.images import Images
from crrl.sandbox.served_box import START_S
from crrl.task import Source

FIND_S = 300.0


class ContainerSandbox:
    """Boxes of tasks with an image. Raises CrrlError, with the remedy, if no engine answers.

    Args:
        engine: `docker`, `podman`, `apptainer`, or `auto`: the first that is there.
        state_dir: prepared workspaces and the exec server's interpreter; on a disk with extended attributes.
        cpus: CPUs per box; 0: all.
    """

    def __init__(self, engine: str = "auto", *, state_dir: Path, cpus: float = 0.0) -> None:
        self.state_dir = Path(state_dir).absolute()
        state_dirs(self.state_dir)
        in_use.hold(self.state_dir)
        self.engine = make_engine(engine, self.state_dir)
        self.cpus = cpus
        self.engine.sweep()
        self._images = Images(self.state_dir)
        self._python, version = python.make(self.state_dir)
        self._command = python.command(version)
        self._seccomp = seccomp.build()
        self._doors = self.state_dir / f"doors-{secrets.token_hex(8)}"
        self._doors.mkdir()
        self._doors.chmod(0o711)
        self._boxes: set[ContainerBox] = set()
        self._preparing: dict[str, asyncio.Lock] = {}
        self._keeper: subprocess.Popen[bytes] | None = None
        if self.engine.keeper:
            argv = [sys.executable, "-m", "crrl.sandbox.containers.keeper", str(self._doors), *self.engine.keeper]
            self._keeper = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True, cwd="/")

    async def prepare(self, source: object, paths: Sequence[str] = ()) -> Workspace:
        """The workspace of an image's repository. Raises CrrlError: the image is not on this machine, its history
        cannot be hidden, or it lacks the commit (`paths`)."""
        if not isinstance(source, Source) or source.image is None:
            raise TypeError(f"a tasks.task.Source with an image, not {source!r:.200}")
        async with self._preparing.setdefault(source.image, asyncio.Lock()):
            return await asyncio.to_thread(self._prepare, source, paths, asyncio.get_running_loop())

    def _prepare(self, source: Source, paths: Sequence[str], loop: asyncio.AbstractEventLoop) -> Workspace:
        assert source.image is not None
        self._images.used(source.image)
        image = self.engine.image(source.image)

        def find(root: ImageRoot, commits: list[str]) -> list[str]:
            return asyncio.run_coroutine_threadsafe(self._find(root, commits), loop).result()

        def archive(path: str) -> Iterator[bytes]:
            return self.engine.archive(image.id, path)

        if paths:
            return workspace.of_history(source, paths, self.state_dir, id=image.id, archive=archive)
        return workspace.prepare(source, self.state_dir, id=image.id, user=image.user, archive=archive, find=find)

    async def start(self, spec: Spec) -> ContainerBox:
        """A box that is ready. Raises LostError (`sandbox_start`)."""
        if spec.root is None or spec.root.image is None:
            raise CrrlError("A container box needs a workspace with an image.", "Use sandbox.name=bubblewrap.")
        image = spec.root.image
        if not spec.judge:
            image = replace(image, hide=(*image.hide, *image.hidden))
        mounts = {str(mount.source): mount.target for mount in spec.mounts}
        port = GATEWAY_PORT if spec.gateway_socket is not None else 0
        control, output, container = await self._launch(image, spec.limits, mounts, port=port)
        box = ContainerBox(
            control,
            output,
            root=spec.root,
            env=spec.env,
            remove=self._removing(container),
            on_close=self._boxes.discard,
        )
        self._boxes.add(box)
        try:
            await box.ready(spec.gateway_socket)
            await box.write_changes(image.changed)
        except BaseException:
            await box.close()
            raise
        return box

    def _removing(self, container: str) -> Callable[[], object]:
        return lambda: self.engine.remove(container)

    async def _launch(
        self, image: ImageRoot, limits: Limits, mounts: dict[str, str], *, port: int = 0, find: list[str] | None = None
    ) -> tuple[socket.socket, int, str]:
        """(control socket, output pipe, id) of a container whose first program has its order."""
        door = self._doors / secrets.token_hex(8)
        door.mkdir()
        door.chmod(0o755)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        container = ""
        try:
            listener.bind(str(door / "socket"))
            os.chmod(door / "socket", 0o666)
            listener.listen(1)
            listener.setblocking(False)
            binds = {str(self._python): "/.crrl", str(door): "/.crrl/door", str(image.layer): "/.crrl/layer", **mounts}
            wanted = Start(image.name, self._command, binds, limits, self.cpus)
            starting = asyncio.get_running_loop().run_in_executor(None, self.engine.start, wanted)
            try:
                container = await asyncio.shield(starting)
            except asyncio.CancelledError:
                starting.add_done_callback(self._unwanted)
                raise
            try:
                async with asyncio.timeout(START_S):
                    control, _ = await asyncio.get_running_loop().sock_accept(listener)
            except TimeoutError:
                raise LostError("sandbox_start", f"{self.engine.name}: the exec server does not start") from None
            output, output_w = os.pipe()
            try:
                order = self._order(image, limits, list(mounts.values()), port, find)
                socket.send_fds(control, [marshal.dumps(order, 2)], [output_w])
            except BaseException:
                control.close()
                os.close(output)
                raise
            finally:
                os.close(output_w)
            return control, output, container
        except BaseException:
            if container:
                await asyncio.to_thread(self.engine.remove, container)
            raise
        finally:
            listener.close()
            shutil.rmtree(door, ignore_errors=True)

    def _unwanted(self, starting: asyncio.Future[str]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            asyncio.get_running_loop().run_in_executor(None, self.engine.remove, starting.result())

    def _order(
        self, image: ImageRoot, limits: Limits, mounts: list[str], port: int, find: list[str] | None
    ) -> dict[str, object]:
        return {
            "workdir": image.workdir,
            "user": image.user,
            "layer": True,
            "hide": list(image.hide),
            "find": find,
            "mounts": mounts,
            "seccomp": self._seccomp,
            "disk": limits.disk_bytes + limits.tmp_bytes,
            "inodes": limits.inodes,
            "memory": limits.memory_bytes,
            "processes": limits.processes,
            "file": limits.file_bytes,
            "open_files": limits.open_files,
            "port": port,
        }

    async def _find(self, root: ImageRoot, commits: list[str]) -> list[str]:
        control, output, container = await self._launch(root, Limits(inodes=200_000), {}, find=commits)
        try:
            control.setblocking(False)
            async with asyncio.timeout(FIND_S):
                word, *found = (await asyncio.get_running_loop().sock_recv(control, 1 << 16)).split(b"\0")
            if word != b"found":
                raise LostError("sandbox_start", b" ".join(found).decode(errors="replace") or "no word from it")
            return [os.fsdecode(path) for path in found]
        finally:
            control.close()
            os.close(output)
            await asyncio.to_thread(self.engine.remove, container)

    async def close(self) -> None:
        await asyncio.gather(*(box.close() for box in list(self._boxes)))
        await asyncio.to_thread(self.engine.sweep, True)
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.communicate()
        shutil.rmtree(self._doors, ignore_errors=True)
        self.engine.close()


def make_engine(name: str, state_dir: Path) -> Engine:
    """`docker`, `podman`, `apptainer`; `auto`: the first that is there. Raises CrrlError, with the remedy."""
    if name == "apptainer":
        return Apptainer(state_dir)
    try:
        return ContainerEngine(name)
    except CrrlError:
        if name == "auto" and shutil.which("apptainer"):
            return Apptainer(state_dir)
        raise
