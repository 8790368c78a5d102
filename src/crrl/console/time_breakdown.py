"""Where the time went: wall seconds by part. Parts may overlap (several threads, episodes side by side)."""

from __future__ import annotations

import resource
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class TimeBreakdown:
    """`with breakdown("push"): ...`, or `add_timings` for episodes, whose parts are timed where they run.
    Thread-safe."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._add(part, time.monotonic() - started)

    def _add(self, part: str, wall_s: float) -> None:
        with self._lock:
            self._parts[part] += wall_s

    def add_timings(self, timings: Mapping[str, float]) -> None:
        """`Episode.timings`, as parts named `episode ...`."""
        for part, wall_s in timings.items():
            self._add(f"episode {part}", wall_s)

    def parts(self) -> dict[str, float]:
        """A copy, in the order in which parts first occurred."""
        with self._lock:
            return dict(self._parts)

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


def peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tree_cpu_s() -> float:
    """CPU seconds so far of this process and its children, reaped ones included."""
    import psutil

    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of waited-for children
        except psutil.Error:
            continue  # it has ended; its parent's times include it once it is reaped
    return total
