"""Limits that the kernel keeps: one cgroup for each box and each judged run, where cgroups can be made.

v2 as root or below a delegated subtree (`systemd-run --user --scope`), v1 where that is all. Groups are made below this
process's own cgroup, or below an ancestor if nothing on the way there has a memory limit: limits that somebody set for
this process hold for its boxes too. Only what an agent or a patch starts is in a group, never the supervisor: the
kernel kills whatever it finds there when the limit is reached, and a killed supervisor would be a lost episode
(invariant 2). A process joins by writing "0" to a descriptor that it was handed; it sees no cgroup file system.
Standard library only: `crrl doctor` and the judge use it too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from crrl.errors import LostError

PREFIX = "crrl"
_numbers = itertools.count()
_left: set[Path] = set()


@dataclass(frozen=True)
class Place:
    """Where groups can be made. `pids`: of v1, which has one hierarchy for each resource; None: in `memory`'s."""

    version: int
    memory: Path
    pids: Path | None = None

    @property
    def folders(self) -> list[Path]:
        return [self.memory, *([self.pids] if self.pids is not None else [])]


@dataclass
class Group:
    """One group. `fds`: what is handed to a supervisor: the counter of kills, then one to join by each hierarchy."""

    folders: list[Path]
    fds: list[int]

    def close_fds(self) -> None:
        """They have been handed over."""
        while self.fds:
            os.close(self.fds.pop())

    def remove(self) -> None:
        """When its processes have ended, or are about to: tried again with each further group, and by the next run."""
        self.close_fds()
        _left.update(self.folders)
        for folder in list(_left):
            if _removed(folder):
                _left.discard(folder)


@cache
def find() -> Place | None:
    """Where this process can make groups, tried with one; None: nowhere, and a watchdog has to do."""
    for place in _places():
        _sweep(place)
        try:
            group = make(place, 64 << 20, 16)
        except LostError:
            continue
        try:
            if all(_joins(folder) for folder in group.folders):
                return place
        finally:
            group.remove()
    return None


def kept_by() -> str:
    """Who keeps memory limits here, as `crrl doctor` and a run's summary say it."""
    place = find()
    return f"cgroup v{place.version}" if place is not None else "watchdog"


def make(place: Place, memory_bytes: int, processes: int) -> Group:
    """A new group with these limits, and no swap. Raises LostError."""
    name = f"{PREFIX}-{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}"
    group = Group([folder / name for folder in place.folders], [])
    try:
        for folder in group.folders:
            folder.mkdir()
        memory, pids = group.folders[0], group.folders[-1]
        if place.version == 2:
            _write(memory / "memory.max", memory_bytes)
            _write(memory / "memory.swap.max", 0, optional=True)
            _write(memory / "memory.oom.group", 1, optional=True)
        else:
            _write(memory / "memory.limit_in_bytes", memory_bytes)
            _write(memory / "memory.memsw.limit_in_bytes", memory_bytes, optional=True)
            _write(memory / "memory.kmem.tcp.limit_in_bytes", memory_bytes // 16, optional=True)  # counted apart
        if place.version == 2 or place.pids is not None:
            _write(pids / "pids.max", processes)
        events = memory / ("memory.events" if place.version == 2 else "memory.oom_control")
        group.fds.append(os.open(events, os.O_RDONLY | os.O_CLOEXEC))
        for folder in group.folders:
            group.fds.append(os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        group.remove()
        raise LostError("sandbox_start", f"no cgroup: {error}") from error
    return group


def _write(file: Path, value: int, *, optional: bool = False) -> None:
    """`optional`: kernels without swap accounting, and old ones, lack the file."""
    if not optional or file.exists():
        file.write_text(str(value))


def _places() -> Iterator[Place]:
    own = _own()
    if "" in own:
        yield from (Place(2, folder) for folder in _v2_folders(*own[""]))
    if "memory" in own:
        _, memory = own["memory"]
        yield Place(1, memory, own["pids"][1] if "pids" in own else None)


def _v2_folders(top: Path, own: Path) -> Iterator[Path]:
    """This process's own cgroup or the nearest ancestor that gives its children the memory controller."""
    for folder in (own, *own.parents):
        with contextlib.suppress(OSError):
            if {"memory", "pids"} <= set((folder / "cgroup.subtree_control").read_text().split()):
                yield folder
        with contextlib.suppress(FileNotFoundError):  # the root has none
            if (folder / "memory.max").read_text().strip() != "max":
                return
        if folder == top:
            return


def _own() -> dict[str, tuple[Path, Path]]:
    """Controller ("" for v2) -> (top of its file system, this process's folder in it)."""
    mounts: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        root, point = head.split(" ")[3:5]
        if kind == "cgroup2":
            mounts[""] = (root, Path(point))
        elif kind == "cgroup":
            mounts |= {name: (root, Path(point)) for name in options.split(",")}
    found: dict[str, tuple[Path, Path]] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in mounts:
                root, top = mounts[name]
                if os.path.commonpath([root, path]) == root:
                    found[name] = (top, top / os.path.relpath(path, root))
    return {name: (top, Path(os.path.normpath(folder))) for name, (top, folder) in found.items()}


def _joins(folder: Path) -> bool:
    done = subprocess.run(["/bin/sh", "-c", f"echo 0 > '{folder}/cgroup.procs'"], capture_output=True, check=False)
    return done.returncode == 0


def _sweep(place: Place) -> None:
    """Remove what owners left behind that were killed."""
    for folder in place.folders:
        with contextlib.suppress(OSError):
            for group in folder.glob(f"{PREFIX}-*-*-*"):
                _, pid, started, _ = group.name.split("-")
                if _started(int(pid)) != started:
                    _removed(group)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _started(pid: int) -> str:
    """When a process began, in ticks since boot: with its pid it is unmistakable. "": there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
