"""Cuts a command's output: keeps its beginning and its end, and the number of bytes between."""

from __future__ import annotations

from collections.abc import Callable

HARD_OUTPUT = 16 << 20  # bytes after which a command is killed, however little of its output is kept


class Sink:
    """Collects the beginning and the end of an output. `add` returns True once: when it is too much."""

    def __init__(self, limit: int, also: Callable[[bytes], object] | None = None, *, hard: bool = True) -> None:
        self.also = also
        self.half = max(1, limit // 2)
        self.most = max(HARD_OUTPUT, 4 * limit) if hard else None
        self.clear()

    def clear(self) -> None:
        self.head, self.tail, self.total = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> bool:
        if self.also is not None:
            self.also(data)
        before = self.total
        self.total += len(data)
        room = self.half - len(self.head)
        if room > 0:
            self.head += data[:room]
        self.tail = (self.tail + data[max(0, room) :])[-self.half :]
        return self.most is not None and before <= self.most < self.total

    def text(self) -> str:
        omitted = self.total - len(self.head) - len(self.tail)
        middle = b"\n[... %d bytes omitted ...]\n" % omitted if omitted else b""
        return (self.head + middle + self.tail).decode("utf-8", "replace")
