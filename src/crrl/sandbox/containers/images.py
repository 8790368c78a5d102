"""Images of tasks on this machine: fetched ahead, kept within a limit, the least recently used given up first.

Which ones are ours, and when each was last used, is kept in `images.json` of the state folder; an image that was there
before is never removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import in_use
from crrl.sandbox.containers.api import Engine


@dataclass(frozen=True)
class Fetched:
    """`how`: there | fetched. `evicted`: images that made room for it."""

    name: str
    how: str
    evicted: tuple[str, ...] = ()


class Images:
    """The record of what was fetched. Safe for several processes."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "images.json"

    def recorded(self) -> dict[str, float]:
        """Each image that was fetched, and when it was last used (a Unix time)."""
        if not self._file.exists():
            return {}
        with self._record() as record:
            return dict(record)

    def forget(self, name: str) -> None:
        """It was removed."""
        with self._record() as record:
            record.pop(name, None)

    def used(self, name: str) -> None:
        """Note a use, of an image that was fetched; it stays while this process lives."""
        in_use.hold(self._file.parent, f"images/{name}")
        with self._record() as record:
            if name in record:
                record[name] = time.time()

    def fetch(
        self, names: Iterable[str], engine: Engine, max_bytes: int | None, progress: Callable[[str, int, int], object]
    ) -> Iterator[Fetched]:
        """Each as it is there. The images that a stopped fetch has brought stay, and the next goes on with the one that
        it was at.

        Raises CrrlError: an image cannot be pulled, or max_bytes does not hold what is asked for.
        """
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            in_use.hold(self._file.parent, f"images/{name}")
            how = "there"
            if not _is_there(engine, name):
                with self._record() as record:  # before it comes: one that a killed fetch brought is ours, too
                    record[name] = time.time()
                engine.pull(name, lambda here, all, name=name: progress(name, here, all))  # type: ignore[misc]
                how = "fetched"
            with self._record() as record:
                if how == "fetched" or name in record:
                    record[name] = time.time()  # again: another process drops what is not there
                evicted = _make_room(engine, record, max_bytes, wanted)
            yield Fetched(name, how, tuple(evicted))

    @contextmanager
    def _record(self) -> Iterator[dict[str, float]]:
        with open(self._file.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = json.loads(self._file.read_text()) if self._file.exists() else {}
            yield record
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps(record, indent=1))
            os.replace(part, self._file)


def disk_bytes(engine: Engine, names: Iterable[str]) -> int:
    """What these images take together: a layer that several share counts once."""
    return sum(
        {layer: size for name in names if _is_there(engine, name) for layer, size in engine.image(name).layers}.values()
    )


def _make_room(engine: Engine, record: dict[str, float], max_bytes: int | None, wanted: Sequence[str]) -> list[str]:
    evicted: list[str] = []
    for name in [name for name in record if not _is_there(engine, name)]:
        del record[name]
    if max_bytes is None:
        return evicted
    if (size := disk_bytes(engine, [name for name in record if name in wanted])) > max_bytes:
        raise CrrlError(
            f"max_disk holds {max_bytes >> 20} MiB; what is fetched of these tasks takes {size >> 20} MiB.",
            "Ask for fewer (ids=...), or allow more (max_disk=GB).",
        )
    while disk_bytes(engine, record) > max_bytes:
        _, name = min((used, name) for name, used in record.items() if name not in wanted)
        engine.delete(name)
        del record[name]
        evicted.append(name)
    return evicted


def _is_there(engine: Engine, name: str) -> bool:
    try:
        engine.image(name)
    except CrrlError:
        return False
    return True
