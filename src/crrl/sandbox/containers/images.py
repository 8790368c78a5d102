"""Images of tasks on this machine: fetched in advance, within a limit; the least recently used are removed first.

`images.json` in the state folder records which images we fetched, and when each was last used. Images that were already
there are never removed.
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
    """`how`: there | fetched. `evicted`: images removed to make room for it."""

    name: str
    how: str
    evicted: tuple[str, ...] = ()


class Images:
    """The record of fetched images. Safe for several processes."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "images.json"

    def recorded(self) -> dict[str, float]:
        """Each fetched image and its last use, as a Unix time."""
        if not self._file.exists():
            return {}
        with self._record() as record:
            return dict(record)

    def forget(self, name: str) -> None:
        """Drop a removed image from the record."""
        with self._record() as record:
            record.pop(name, None)

    def used(self, name: str) -> None:
        """Record a use of a fetched image; it stays while this process lives."""
        in_use.hold(self._file.parent, f"images/{name}")
        with self._record() as record:
            if name in record:
                record[name] = time.time()

    def fetch(
        self, names: Iterable[str], engine: Engine, max_bytes: int | None, progress: Callable[[str, int, int], object]
    ) -> Iterator[Fetched]:
        """Yields each image once it is there. If you stop, fetched images stay, and the next call continues with the
        one in progress.

        Raises CrrlError: an image cannot be pulled, or the images do not fit into max_bytes.
        """
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            in_use.hold(self._file.parent, f"images/{name}")
            how = "there"
            if not _is_there(engine, name):
                with self._record() as record:  # before the pull: an image from a killed fetch is ours, too
                    record[name] = time.time()
                engine.pull(name, lambda here, all, name=name: progress(name, here, all))  # type: ignore[misc]
                how = "fetched"
            with self._record() as record:
                if how == "fetched" or name in record:
                    record[name] = time.time()  # again: another process drops images that are not there
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
            f"max_disk is {max_bytes >> 20} MiB, but the images of these tasks take {size >> 20} MiB.",
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
