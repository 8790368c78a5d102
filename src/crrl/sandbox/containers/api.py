"""What starts containers, as `backend.py` sees it: Docker, Podman (`engine.py`) or Apptainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from crrl.sandbox.api import Limits


@dataclass(frozen=True)
class Image:
    """`id`: by content. `user` as in its configuration, "" where it says nothing (root)."""

    name: str
    id: str
    user: str
    size: int
    layers: tuple[tuple[str, int], ...]  # (id of all up to here, bytes), from the lowest


@dataclass(frozen=True)
class Start:
    """What a container is started with. `binds`: host path -> path inside, read-only."""

    image: str
    command: list[str]
    binds: dict[str, str]
    limits: Limits
    cpus: float

    @property
    def memory_bytes(self) -> int:
        """What the kernel enforces. Files count as memory, too (tmpfs). PID 1 ends a command at `limits.memory_bytes`
        and says so; where that is too slow the kernel ends the largest process: with this much, never PID 1."""
        limits = self.limits
        return max(limits.memory_bytes * 3 // 2, limits.processes << 24) + limits.disk_bytes + limits.tmp_bytes


class Engine(Protocol):
    """Everything blocks."""

    name: str
    keeper: list[str]  # arguments of `keeper.py`; []: its containers are children, and need none

    def image(self, name: str) -> Image:
        """Raises CrrlError where it is not on this machine: nothing is pulled by the way."""
        ...

    def archive(self, image: str, path: str) -> Iterator[bytes]:
        """A tar stream of one path of an image. Raises FileNotFoundError."""
        ...

    def start(self, wanted: Start) -> str:
        """The id of a running container. Raises LostError."""
        ...

    def remove(self, container: str) -> None:
        """Kill and remove; returns when it is gone. Raises LostError."""
        ...

    def sweep(self, mine: bool = False) -> int:
        """Remove what owners that are no more left behind, and with `mine` this owner's own. How many there were."""
        ...

    def pull(self, name: str, progress: Callable[[int, int], object]) -> None:
        """`progress` gets bytes here and bytes known of so far. Raises CrrlError."""
        ...

    def delete(self, name: str) -> None:
        """Remove an image. Raises CrrlError where a container still uses it."""
        ...

    def close(self) -> None: ...
