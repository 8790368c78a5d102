"""`unsafe_host`: no isolation at all. Commands run as you, on this host, in a temporary copy of the
repository.

Only where bubblewrap cannot work and the agent's commands are trusted. Invariant 4 does NOT hold here, nor
do the limits on memory, disk and processes; the patch is taken as for every other back end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crrl.errors import CrrlError, LostError
from crrl.sandbox import patch, workspace
from crrl.sandbox.api import ExecReason, ExecResult, Spec, Workspace
from crrl.sandbox.availability import state_dirs
from crrl.sandbox.output import Sink
from crrl.task import Source

WARNING = """
*** sandbox.name=unsafe_host: NO ISOLATION. Whatever the model writes runs as you, on this machine, with
*** your files, your network and your secrets. Use it only with commands you would run yourself.
"""


class UnsafeHostSandbox:
    """Same protocol as every back end; warns on stderr each time one is made."""

    def __init__(self, *, state_dir: Path, uid: int | None = None) -> None:
        if uid not in (None, os.getuid()):
            raise CrrlError("sandbox.uid has no meaning with sandbox.name=unsafe_host.", "Leave it out.")
        print(WARNING, file=sys.stderr, flush=True)
        self.state_dir = Path(state_dir).absolute()
        state_dirs(self.state_dir)

    async def prepare(self, source: object, paths: Sequence[str] = ()) -> Workspace:
        assert isinstance(source, Source)
        return await asyncio.to_thread(workspace.prepare, source, self.state_dir, os.getuid())

    async def start(self, spec: Spec) -> UnsafeHostBox:
        if spec.mounts or spec.gateway_socket is not None:
            raise CrrlError("sandbox.name=unsafe_host has no mounts and no gateway.", "Use sandbox.name=bubblewrap.")
        folder = Path(tempfile.mkdtemp(prefix="crrl-unsafe-"))
        if spec.root is not None:
            await asyncio.to_thread(shutil.copytree, spec.root.lower, folder / "workspace", symlinks=True)
        else:
            (folder / "workspace").mkdir()
        return UnsafeHostBox(folder, spec.root, spec.env)

    async def close(self) -> None:
        return None


class UnsafeHostBox:
    def __init__(self, folder: Path, root: Workspace | None, env: Mapping[str, str]) -> None:
        self._folder, self._root, self._env = folder, root, env
        self._top = (folder / "workspace").resolve()
        self._closed = False

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
        start, sink = time.monotonic(), Sink(output_limit, on_output)
        whole = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=self._path(cwd),
                env={**whole, **self._env, **(env or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            return ExecResult(code, f"{argv[0]}: {error.strerror}\n", "exit", 0.0, 0.0)
        assert process.stdout is not None
        reason: ExecReason = "exit"
        try:
            async with asyncio.timeout(timeout_s):
                while data := await process.stdout.read(1 << 16):
                    if sink.add(data):
                        reason = "output"
                        break
                if reason == "exit":
                    await process.wait()
        except TimeoutError:
            reason = "timeout"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        code = await process.wait()
        code = code if code >= 0 else 128 - code
        return ExecResult(code if reason == "exit" else None, sink.text(), reason, time.monotonic() - start, 0.0)

    def _path(self, path: str) -> Path:
        if self._closed:
            raise LostError("sandbox_died", "the box is closed")
        full = (self._top / path).resolve()
        if full != self._top and self._top not in full.parents:
            raise ValueError(f"{path}: leaves the workspace")
        return full

    async def read(self, path: str, limit: int = 1 << 20) -> bytes:
        with self._path(path).open("rb") as file:
            return file.read(limit)

    async def write(self, path: str, data: bytes) -> None:
        full = self._path(path)
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data)

    async def patch(self) -> str:
        if self._root is None:
            raise ValueError("a box without a repository has no patch")
        with tempfile.TemporaryDirectory(prefix="crrl-patch-") as scratch:
            text = await asyncio.to_thread(patch.tree_patch, str(self._root.git_dir), str(self._top), scratch)
        return text.decode("utf-8")

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
