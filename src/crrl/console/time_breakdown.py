"""Where the time went: wall and CPU seconds by part, accumulated by whoever does the part.

Parts of one breakdown may overlap in wall time (two processes, two threads); CPU seconds of the main
thread's parts do not. Thread-safe.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Spent:
    wall_s: float = 0.0
    cpu_s: float = 0.0
    times: int = 0


class TimeBreakdown:
    """`with breakdown("push"): ...`, or `breakdown.add("judge", wall_s, cpu_s)` for what was measured
    elsewhere."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._parts: dict[str, Spent] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """CPU is the calling thread's own: what other threads do meanwhile is theirs to account."""
        wall, cpu = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            self.add(part, time.monotonic() - wall, time.thread_time() - cpu)

    def add(self, part: str, wall_s: float, cpu_s: float = 0.0, times: int = 1) -> None:
        with self._lock:
            spent = self._parts.setdefault(part, Spent())
            spent.wall_s += wall_s
            spent.cpu_s += cpu_s
            spent.times += times

    def add_timings(self, timings: Mapping[str, float], prefix: str = "episode ") -> None:
        """`Episode.timings`: wall seconds by part of an episode."""
        for part, wall_s in timings.items():
            self.add(prefix + part, wall_s)

    def parts(self) -> dict[str, Spent]:
        """A copy, in the order in which parts first occurred."""
        with self._lock:
            return {name: Spent(s.wall_s, s.cpu_s, s.times) for name, s in self._parts.items()}

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


def peak_memory_bytes(pids: tuple[int, ...] = ()) -> int:
    """Peak resident memory of this process, plus that of the given living ones (Linux's VmHWM).

    A sum of peaks: an upper bound on the peak of the sum.
    """
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as status:
                total += next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            continue  # it ended meanwhile, which is not a reason to lose the number of the others
    return total


def tree_cpu_s() -> float:
    """CPU seconds of this process and everything below it so far, processes that ended and were waited for included."""
    import psutil

    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of waited-for children
        except psutil.Error:
            continue  # it ended meanwhile: its parent has it once it is waited for
    return total
