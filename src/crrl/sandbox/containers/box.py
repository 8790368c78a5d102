"""One box in a container: a `ServedBox` whose PID 1 hands over the writable layer, for the patch."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from crrl.errors import LostError
from crrl.sandbox import patch
from crrl.sandbox.api import Workspace
from crrl.sandbox.output import Sink
from crrl.sandbox.served_box import PATCH_S, ServedBox, message_of
from crrl.sandbox.workspace import GIT_ENV

ENV = {"LANG": "C.UTF-8", "TERM": "dumb"}  # the rest is the image's
LAYER_BYTES = patch.TOTAL_BYTES + (64 << 20)  # contents, and the names of what the layer holds


class ContainerBox(ServedBox):
    """Args:
    remove: ends and removes the container; blocking.
    """

    def __init__(
        self,
        control: socket.socket,
        output: int,
        *,
        root: Workspace,
        env: Mapping[str, str],
        remove: Callable[[], object],
        on_close: Callable[[ContainerBox], None],
    ) -> None:
        super().__init__(control, output, env={**ENV, **env})
        self._root, self._remove, self._on_close = root, remove, on_close

    async def write_changes(self, changed: Mapping[str, tuple[int, bytes] | None]) -> None:
        """Apply the task's own patches to the image's tree. Raises LostError."""
        gone = [path for path, file in changed.items() if file is None or file[0] == 0o120000]
        links = {path: file[1] for path, file in changed.items() if file is not None and file[0] == 0o120000}
        scripts = [path for path, file in changed.items() if file is not None and file[0] == 0o100755]
        commands = [["rm", "-f", "--", *gone]] if gone else []
        commands += [["ln", "-s", "--", os.fsdecode(target), path] for path, target in links.items()]
        try:
            for path, file in changed.items():
                if file is not None and path not in links:
                    await self.write(path, file[1])
        except OSError as error:
            raise LostError("sandbox_start", f"the task's patches cannot be written: {error}") from error
        for argv in commands + ([["chmod", "+x", "--", *scripts]] if scripts else []):
            if (await self.exec(argv)).code != 0:
                raise LostError("sandbox_start", f"{argv[0]} fails while applying the task's patches")

    async def patch(self) -> str:
        """See `Box.patch`. Leaves out new files ignored by the base's own .gitignore. Raises LostError."""
        async with self._turn:
            self._sink = sink = Sink(2 * LAYER_BYTES, hard=False)
            try:
                request = message_of("layer", patch.FILE_BYTES, patch.TOTAL_BYTES)
                fields = await self._ask(request, PATCH_S)
            finally:
                self._drain()
                self._sink = None
            if fields != ["ok"]:
                raise LostError("sandbox_died", self._why or "no patch")
            self._why = "its patch was taken"
        if sink.total > LAYER_BYTES:
            raise LostError("patch_failed", f"{sink.total >> 20} MiB of changed files")
        return await asyncio.to_thread(_patch, bytes(sink.head), self._root)

    async def close(self) -> None:
        """Returns when the container is gone, with all its processes and files."""
        if self._closed:
            return
        self._closed = True
        self._let_go()
        try:
            await asyncio.to_thread(self._remove)
        finally:
            self._on_close(self)


def _patch(layer: bytes, root: Workspace) -> str:
    with tempfile.TemporaryDirectory(prefix="crrl-patch-") as scratch:
        upper = Path(scratch, "upper")
        touched, hidden = _unpack(layer, upper)
        base = patch.read_listing(str(root.git_dir))
        for path in _ignored([path for path in touched if path not in base], root):
            del touched[path]
        try:
            return patch.layer_patch(str(root.git_dir), touched, hidden, str(upper), scratch).decode()
        except (patch.PatchFailed, subprocess.TimeoutExpired, OSError) as error:
            raise LostError("patch_failed", f"{type(error).__name__}: {error}") from error


def _unpack(layer: bytes, upper: Path) -> tuple[dict[bytes, os.stat_result], set[bytes]]:
    """Write the layer's files below `upper`, a new folder: (files, hidden paths) for `patch.layer_patch`."""
    upper.mkdir()
    touched: dict[bytes, os.stat_result] = {}
    hidden: set[bytes] = set()
    at = 0
    while at < len(layer):
        end = layer.index(b"\0", at)
        kind, mode, size, path = layer[at:end].split(b" ", 3)
        at = end + 1
        if kind in (b"w", b"o"):
            hidden.add(path)
        content = b""
        if kind in (b"f", b"l"):
            content, at = layer[at : at + int(size)], at + int(size)
        if kind not in (b"f", b"l", b"b") or len(path) > patch.PATH_BYTES:
            continue
        full = os.path.join(os.fsencode(upper), path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if kind == b"l":
            os.symlink(content, full)
        else:
            with open(full, "xb") as file:
                file.write(content)
                file.truncate(int(size))  # a hole in place of what was too big to send: it is left out for its size
                os.fchmod(file.fileno(), int(mode, 8) & 0o700 | 0o600)
        touched[path] = os.lstat(full)
    return touched, hidden


def _ignored(paths: list[bytes], root: Workspace) -> list[bytes]:
    """The paths ignored by the base's .gitignore files, such as builds in place. They are read from the host's own
    tree, so an agent's changes to them have no effect."""
    git = ["/usr/bin/git", "-c", "safe.directory=*", f"--git-dir={root.git_dir}", f"--work-tree={root.lower}"]
    done = subprocess.run(
        [*git, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"\0".join(paths),
        capture_output=True,
        env=GIT_ENV,
        cwd=root.lower,
        timeout=patch.GIT_SECONDS,
        check=False,
    )
    return [path for path in done.stdout.split(b"\0") if path] if done.returncode == 0 else []
