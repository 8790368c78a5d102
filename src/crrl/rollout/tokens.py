"""Token arrays on disk: append-only segment files beside the journal, with a checksum per record.

A record is on disk (`fdatasync`) before `append` returns, so the journal row that refers to it always commits later.
Bytes after the last record with a row are the tail of a write that was killed; the journal cuts them off when it opens
(`cut`).
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from crrl.errors import CrrlError

SEGMENT_BYTES = 256 << 20


@dataclass(frozen=True)
class Place:
    """The position of a record."""

    segment: int
    offset: int
    length: int
    crc: int


class Segments:
    """The folder `tokens/`. One writer; any number of readers."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._limit = segment_bytes
        self._fd: int | None = None
        self._segment = 1
        self._end = 0

    def path(self, segment: int) -> Path:
        return self._folder / f"segment-{segment:05d}.bin"

    def cut(self, ends: dict[int, int]) -> int:
        """Cut each segment after its last record (`ends`: segment -> that record's end). Returns the bytes dropped.

        Raises:
            CrrlError: a segment is shorter than the journal says.
        """
        self._folder.mkdir(exist_ok=True)
        dropped = 0
        for segment, end in ends.items():
            size = self.path(segment).stat().st_size if self.path(segment).exists() else -1
            if size < end:
                state = "missing" if size < 0 else f"cut off at byte {size} of {end}"
                raise CrrlError(
                    f"{self.path(segment)} is {state}: records of the journal are missing.",
                    "Restore the file from a copy of the run folder: the run cannot resume without it.",
                )
        for file in sorted(self._folder.glob("segment-" + "[0-9]" * 5 + ".bin")):
            segment = int(file.stem.rpartition("-")[2])
            end, size = ends.get(segment, 0), file.stat().st_size
            if size > end:
                os.truncate(file, end)
                dropped += size - end
        self._segment = max(ends, default=1)
        self._end = ends.get(self._segment, 0)
        return dropped

    def append(self, record: bytes) -> Place:
        """Raises OSError, with nothing half-written left behind."""
        if self._end >= self._limit:
            self.close()
            self._segment, self._end = self._segment + 1, 0
        if self._fd is None:
            self._fd = os.open(self.path(self._segment), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            done = 0
            while done < len(record):
                done += os.pwrite(self._fd, memoryview(record)[done:], self._end + done)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        place = Place(self._segment, self._end, len(record), zlib.crc32(record))
        self._end += len(record)
        return place

    def forget(self, place: Place) -> None:
        """Undo the last `append`: its row did not commit."""
        self._end = place.offset
        if self._fd is not None:
            os.ftruncate(self._fd, place.offset)

    def read(self, place: Place) -> bytes:
        """Raises CrrlError: the record is missing or damaged."""
        try:
            with open(self.path(place.segment), "rb") as file:
                file.seek(place.offset)
                record = file.read(place.length)
        except OSError as error:
            raise CrrlError(f"{self.path(place.segment)}: {error.strerror}") from error
        if len(record) != place.length or zlib.crc32(record) != place.crc:
            raise CrrlError(
                f"{self.path(place.segment)} is damaged at byte {place.offset}: the checksum differs.",
                "Restore the file from a copy of the run folder.",
            )
        return record

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
