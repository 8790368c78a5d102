"""The protocol of sandbox back ends, and its types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

ExecReason = Literal["exit", "timeout", "output", "memory", "disk", "lost"]
GATEWAY_PORT = 8000  # on a box's loopback: its session of the gateway


@dataclass(frozen=True)
class Limits:
    """Limits of one box, each for its whole process tree."""

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

    The uid that boxes run as must be able to read all of `source`; never under HOME."""

    source: Path
    target: str


@dataclass(frozen=True)
class Workspace:
    """A prepared repository: shared, read-only, made once per task source and cached by content.

    Args:
        lower: the tree that an episode sees (its own `.git` has one commit, no later history); the overlay's lower
            layer.
        git_dir: a bare git dir of the host, never shown inside a box; patches are taken against it.
        base: the commit in `git_dir` that equals `lower`.
        image: the image its boxes run in; None: they use this machine's own /usr.
    """

    lower: Path
    git_dir: Path
    base: str
    image: ImageRoot | None = None


@dataclass(frozen=True)
class ImageRoot:
    """A repository inside a container image. `lower` then has the files tracked by its git, for reading.

    Args:
        name: the image's name and id, so that the image that was prepared is the one that runs.
        workdir: the repository's folder in the image.
        user: the user that commands run as, from the image's configuration; "": root.
        layer: host folder laid over the image's root: the `.git` with one commit.
        hide: paths of the image hidden from every box: other git stores with the repository's history.
        hidden: paths shown only in the judge's boxes: hidden tests.
        changed: files of the repository changed by the task's own patches; None: deleted.
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
    """A box to start: over `root` (the episode's repository), or over an empty workspace if None.

    Args:
        gateway_socket: host path of a unix socket that appears inside as loopback port 8000 (third-party agents). It
            need not listen yet. It leads to one session of the gateway, and nothing else outside is reachable.
        env: variables of every command; a command's own take precedence.
        judge: a judge's box, which shows files hidden from agents (`ImageRoot.hidden`).
    """

    root: Workspace | None
    mounts: Sequence[Mount] = ()
    limits: Limits = field(default_factory=Limits)
    gateway_socket: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    judge: bool = False


@dataclass(frozen=True)
class ExecResult:
    """The result of a command. `code` is None unless `reason == "exit"`; `output` is stdout and stderr merged.

    `reason == "lost"`: our side failed (the exec server or the box died, and not because of the agent).
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
        """`on_output` gets all output as it arrives: the only way to see the output of a cancelled command."""
        ...

    async def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """Raises FileNotFoundError, IsADirectoryError, PermissionError or ValueError (leaves the
        workspace)."""
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Same errors as `read`; OSError(ENOSPC) at the box's own disk limit."""
        ...

    async def patch(self) -> str:
        """Kill everything in the box, then take the unified diff (git, binary, full index) of the workspace against the
        base, with the host's git dir. The box runs nothing afterwards."""
        ...

    async def close(self) -> None:
        """Idempotent. Leaves no process and no file of the episode."""
        ...


class Sandbox(Protocol):
    """A back end: prepares workspaces and starts boxes."""

    async def prepare(self, source: object, paths: Sequence[str] = ()) -> Workspace:
        """`task.Source` -> Workspace, cached by content under `state_dir`. Idempotent, safe to call concurrently. With
        `paths`: at least these files as of `source.base_commit`, even if an image is at another commit (tests that came
        with a repair); for the host to read, never for a box."""
        ...

    async def start(self, spec: Spec) -> Box: ...

    async def close(self) -> None: ...
