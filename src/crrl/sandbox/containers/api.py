"""The protocol of container engines for `backend.py`: Docker, Podman (`engine.py`) or Apptainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from crrl.sandbox.api import Limits


@dataclass(frozen=True)
class Image:
    """`id`: by content. `user`: from its configuration; "": root."""

    name: str
    id: str
    user: str
    size: int
    layers: tuple[tuple[str, int], ...]  # (id of all up to here, bytes), from the lowest


@dataclass(frozen=True)
class Start:
    """A container to start. `binds`: host path -> path inside, read-only."""

    image: str
    command: list[str]
    binds: dict[str, str]
    limits: Limits
    cpus: float

    @property
    def memory_bytes(self) -> int:
        """The kernel's limit. Files count as memory, too (tmpfs). PID 1 ends a command at `limits.memory_bytes` and
        says so; if it is too slow, the kernel kills the largest process, which at this limit is never PID 1."""
        limits = self.limits
        return max(limits.memory_bytes * 3 // 2, limits.processes << 24) + limits.disk_bytes + limits.tmp_bytes


class Engine(Protocol):
    """All methods block."""

    name: str
    keeper: list[str]  # arguments of `keeper.py`; []: containers are child processes, and need none

    def image(self, name: str) -> Image:
        """Raises CrrlError if it is not on this machine: this never pulls."""
        ...

    def archive(self, image: str, path: str) -> Iterator[bytes]:
        """A tar stream of one path of an image. Raises FileNotFoundError."""
        ...

    def start(self, wanted: Start) -> str:
        """The id of a running container. Raises LostError."""
        ...

    def remove(self, container: str) -> None:
        """Kill and remove it; returns when it is gone. Raises LostError."""
        ...

    def sweep(self, mine: bool = False) -> int:
        """Remove containers of dead owners and, with `mine`, this owner's. Returns their number."""
        ...

    def pull(self, name: str, progress: Callable[[int, int], object]) -> None:
        """`progress`: called with bytes so far and total bytes known so far. Raises CrrlError."""
        ...

    def delete(self, name: str) -> None:
        """Remove an image. Raises CrrlError if a container still uses it."""
        ...

    def close(self) -> None: ...
