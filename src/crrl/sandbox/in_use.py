"""Which entries of the caches below `state_dir` living processes use, and when each was last used.

Invariant: once `use` has said that an entry is there, nobody who cleans (`cleaning`) removes it until this process has
ended, however it ends. Each process keeps one file below `in-use/`, which names what it uses and which the kernel keeps
locked for as long as the process lives; the modification time of an entry's folder says when it was last used.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RESTAMP_S = 600.0
_holders: dict[str, _Holder] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Living:
    """What living processes hold. `entries`: paths relative to the state folder. `since`: when the oldest of these
    processes came (None: there is none); what is older than that and half made has no maker any more."""

    entries: frozenset[str]
    since: float | None


def hold(state_dir: Path, name: str = "") -> None:
    """From now on, while it lives, this process is known to work below `state_dir`, and to use what is called `name`
    (`images/NAME`). Raises OSError."""
    holder = _holder(state_dir)
    if name:
        holder.note(name)


def use(path: Path, state_dir: Path) -> bool:
    """Whether `path` is there; if so the entry that it is (part of) stays while this process lives. Raises OSError."""
    return _holder(state_dir).use(Path(os.path.abspath(path)))


def use_mount(path: Path, state_dir: Path) -> None:
    """As `use`, for a folder shown in boxes: it may lie elsewhere, or be a link to an entry. Raises OSError."""
    root = Path(os.path.abspath(state_dir))
    for place in {Path(os.path.abspath(path)), path.resolve()}:
        if place.is_relative_to(root) and place != root:
            use(place, root)


@contextlib.contextmanager
def cleaning(state_dir: Path) -> Iterator[Living]:
    """Nobody begins to use an entry while this is open: look and rename, and delete afterwards."""
    folder = state_dir / "in-use"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(state_dir, fcntl.LOCK_EX):
        entries: set[str] = set()
        since: list[float] = []
        for file in folder.iterdir():
            with file.open() as held:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    entries.update(held.read().splitlines())
                    since.append(float(file.name.partition("-")[0]))
                else:
                    file.unlink(missing_ok=True)  # its process is gone
        yield Living(frozenset(entries), min(since, default=None))


class _Holder:
    """This process's file. Safe for threads; a forked child shares it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._mutex = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._stamped: dict[str, float] = {}
        folder = self.state_dir / "in-use"
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.state_dir, fcntl.LOCK_SH):
            name = folder / f"{time.time():.3f}-{secrets.token_hex(8)}"
            self._fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        atexit.register(_unlink, name, os.getpid())

    def note(self, entry: str) -> None:
        with self._mutex, _locked(self.state_dir, fcntl.LOCK_SH):
            if entry not in self._stamped:
                os.write(self._fd, f"{entry}\n".encode())
                self._stamped[entry] = time.monotonic()

    def use(self, path: Path) -> bool:
        entry = entry_of(path.relative_to(self.state_dir))
        with self._mutex:
            if os.fstat(self._fd).st_nlink == 0:  # somebody removed the whole state folder
                os.close(self._fd)
                self._begin()
            now = time.monotonic()
            if (stamped := self._stamped.get(entry)) is None:
                with _locked(self.state_dir, fcntl.LOCK_SH):
                    if not path.exists():
                        return False
                    os.write(self._fd, f"{entry}\n".encode())
            if stamped is None or now - stamped > RESTAMP_S:
                self._stamped[entry] = now
                with contextlib.suppress(OSError):  # one that another user installed
                    os.utime(self.state_dir / entry)
        return path.exists()


def entry_of(path: Path) -> str:
    """The cache entry that a path below the state folder is part of; both are relative to that folder."""
    deep = path.parts[0] == "workspaces" or path.parts[:2] == ("toolchains", "python")
    return "/".join(path.parts[: 3 if deep else 2])


def _unlink(name: Path, pid: int) -> None:
    if os.getpid() == pid:  # not a forked child
        name.unlink(missing_ok=True)


def _holder(state_dir: Path) -> _Holder:
    key = os.path.abspath(state_dir)
    with _lock:
        if key not in _holders:
            _holders[key] = _Holder(Path(key))
        return _holders[key]


@contextlib.contextmanager
def _locked(state_dir: Path, how: int) -> Iterator[None]:
    with open(state_dir / "in-use.lock", "w") as lock:
        fcntl.flock(lock, how)
        yield
