"""The protocol every sandbox back end speaks, and the types that cross it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

ExecReason = Literal["exit", "timeout", "output", "memory", "disk", "lost"]
GATEWAY_PORT = 8000  # of a box's loopback, where its session of the gateway is seen


@dataclass(frozen=True)
class Limits:
    """What one box may use. All of it holds for the whole process tree of the box."""

    memory_bytes: int = 1 << 30
    processes: int = 128
    disk_bytes: int = 256 << 20  # the workspace's writable layer
    inodes: int = 20_000
    file_bytes: int = 128 << 20
    tmp_bytes: int = 64 << 20
    open_files: int = 4096


@dataclass(frozen=True)
class Mount:
    """A host path (a tool, a virtual environment, a node tree) shown read-only inside the box, at an absolute path.

    Whatever is in `source` must be readable by the uid that boxes run as; never under HOME."""

    source: Path
    target: str


@dataclass(frozen=True)
class Workspace:
    """A prepared repository: shared, read-only, made once per task source and cached by content.

    Args:
        lower: the tree an episode sees (its own `.git` with one commit, no later history), the overlay's
            lower layer.
        git_dir: pristine bare git dir owned by the host; never shown inside a box; patches are taken
            against it.
        base: commit id in `git_dir` that equals `lower`.
        image: where its boxes run; None: on this machine's own /usr.
    """

    lower: Path
    git_dir: Path
    base: str
    image: ImageRoot | None = None


@dataclass(frozen=True)
class ImageRoot:
    """A repository inside a container image. `lower` then holds the files that its git tracks, for reading.

    Args:
        name: of the image, with its id: what was prepared is what runs.
        workdir: where the repository is in it.
        user: whom commands run as, as the image says; "": root.
        layer: host folder laid over the image's root: the `.git` with one commit.
        hide: paths of the image that no box shows: other git stores that hold the repository's history.
        hidden: paths that only the judge's boxes show: hidden tests.
        changed: files of the repository that differ from the image's (the task's own patches); None: not there.
    """

    name: str
    workdir: str
    user: str
    layer: Path
    hide: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    changed: Mapping[str, tuple[int, bytes] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """What to start: a box over `root` (the episode's repository), or over an empty workspace if None.

    Args:
        gateway_socket: host path of a unix socket shown inside as loopback port 8000 (third-party agents); it need
            not listen yet. One session of the gateway: nothing else outside the box can be reached from it.
        env: of every command of the box, below what the command itself brings.
        judge: what is hidden from agents (`ImageRoot.hidden`) is shown.
    """

    root: Workspace | None
    mounts: Sequence[Mount] = ()
    limits: Limits = field(default_factory=Limits)
    gateway_socket: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    judge: bool = False


@dataclass(frozen=True)
class ExecResult:
    """What a command did. `code` is None unless `reason == "exit"`; `output` is stdout and stderr merged.

    `reason == "lost"`: our side failed (the exec server or the box died without the agent's doing).
    """

    code: int | None
    output: str
    reason: ExecReason
    wall_s: float
    cpu_s: float


class Box(Protocol):
    """One running sandbox. Commands run one at a time; paths are relative to `/workspace`."""

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
        """`on_output` gets all output as it comes: what a cancelled command wrote is known by it alone."""
        ...

    async def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """Raises FileNotFoundError, IsADirectoryError, PermissionError or ValueError (leaves the
        workspace)."""
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Same errors as `read`; OSError(ENOSPC) where the box's own disk limit is reached."""
        ...

    async def patch(self) -> str:
        """Kill everything in the box, then the unified diff (git, binary, full index) of the workspace
        against the base, taken with the host-owned git dir. The box runs nothing afterwards."""
        ...

    async def close(self) -> None:
        """Idempotent. Afterwards no process and no file of the episode exists."""
        ...


class Sandbox(Protocol):
    """A back end: starts boxes. One file in this room, one line in `sandbox/__init__.py`."""

    async def prepare(self, source: object, paths: Sequence[str] = ()) -> Workspace:
        """`tasks.task.Source` -> Workspace, cached by content under `state_dir`. Idempotent, safe
        concurrently. With `paths`: at least these files as they are at `source.base_commit`, where an image is at
        another commit (tests that came with a repair): for the host to read, never for a box."""
        ...

    async def start(self, spec: Spec) -> Box: ...

    async def close(self) -> None: ...
