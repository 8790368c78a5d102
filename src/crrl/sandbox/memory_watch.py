"""The memory watchdog, for where no cgroup can be made (invariant 4): when to measure, and who has to wait meanwhile.

Runs as PID 1 of a box (`pid1.py`) or of a judged run (`rewards/judged_init.py`), standard library only, no `crrl`. How
far a tree of processes gets beyond its limit is how much it can allocate before the next sample, so:

- it has no huge pages, which come six times as fast as others (`confine`);
- a sample is due before the room that is left can be filled;
- where the upper bound is over the limit everything is stopped, and counted exactly, once for the CPU time in which
  the room that is left can be filled;
- who holds three quarters of it has little of a busy core: each session of its processes gets a third of the usual
  weight, until they hold less (`Watch._slow`). Without that the scheduler let them run for up to 0.3 s before the
  watchdog could take its next sample: 2.5 times the limit (docs/performance.md);
- a process that is forking while everybody is stopped and continued gets a child that stays stopped (Linux gives the
  child the first signal and not the second): after a stop, each sample continues the processes it finds stopped;
- the watchdog asks for a short slice, with which the scheduler serves it first (Linux 6.12; ignored before).
"""

import _ctypes
import _signal  # type: ignore[import-not-found]  # `signal` and `contextlib` would cost each start of a box
import os
import sys
import time

import memory_use  # type: ignore[import-not-found]

SHORTEST_S, LONGEST_S = 0.002, 0.05
CORE = 4 << 30  # bytes a second: in pages of 4 kB a core makes 2 to 3 GB
CORES = len(os.sched_getaffinity(0))
PR_SET_THP_DISABLE = 41
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
RESET_ON_FORK = 1
SLICE_NS = 100_000
SLOW = 5  # niceness of a session: a weight of 335, where others have 1,024
PATIENCE_S = 2.0  # the kernel lets users change one session in 0.1 s


def libc(name: str, *arguments):  # type: ignore[no-untyped-def]
    """Calls a function of the C library with integers and bytes (`ctypes` would cost each start of a box 5 ms)."""
    return _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, 0), name), arguments)  # type: ignore[arg-type]


def begin() -> None:
    """In the watchdog, before anything else runs in its network namespace."""
    memory_use.begin()
    fields = ((48, 4), (0, 4), (RESET_ON_FORK, 8), (0, 4), (0, 4), (SLICE_NS, 8), (0, 8), (0, 8))
    attributes = b"".join(value.to_bytes(size, sys.byteorder) for value, size in fields)
    libc("syscall", SCHED_SETATTR[os.uname().machine], 0, attributes, 0)


def confine() -> None:
    """In a process that is to be watched, before it becomes what it shall run; its children inherit it, and
    `seccomp.build` keeps them from taking it back."""
    libc("prctl", PR_SET_THP_DISABLE, 1, 0, 0, 0)
    os.nice(5)


def own_weight() -> int:
    """A descriptor of the weight of this process's session, or -1: this kernel has none."""
    try:
        return os.open("/proc/self/autogroup", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return -1


class Watch:
    """Of all processes of this pid namespace but PID 1.

    Args:
        limit: bytes.
        folders: where this namespace's own tmpfs are mounted.
        weights: descriptors (`own_weight`) of sessions whose leaders hide theirs.
    """

    def __init__(self, limit: int, folders: tuple[str, ...], weights: dict[int, int] | None = None) -> None:
        self._limit, self._folders, self._weights = limit, folders, weights or {}
        self._slowed = False
        self._have_stopped = False
        self._counted: tuple[int, dict[str, float], int] | None = None  # bound, CPU times and room, at the last count
        self.wait_s = LONGEST_S

    def sample(self) -> bool:
        """Whether they hold more than the limit. If so all are left stopped, for the caller to kill."""
        pids = memory_use.processes()
        if self._have_stopped:
            go_on(pids)
        bound = memory_use.bound(pids, self._folders)
        room = self._limit - bound
        if self._slowed and room > self._limit * 3 // 8:
            self._slowed = not self._weigh(pids, 0)
        elif not self._slowed and 0 <= room < self._limit // 4:
            self._stop()
            self._slow(memory_use.processes())
            everybody(_signal.SIGCONT)
        if room < 0:
            room = self._room(pids, bound)
        if room <= 0:
            self._stop()  # or they outrun the count
            pids = memory_use.processes()
            room = self._limit - memory_use.exact(pids, self._folders, self._limit)
            if room < 0:
                return True
            self._slow(pids)
            room = max(room, int(CORE * SHORTEST_S))
            self._counted = bound, {pid: cpu_s(pid) for pid in pids}, room
            everybody(_signal.SIGCONT)
        # how long it lasts, at a pace that no allocation keeps up
        self.wait_s = max(SHORTEST_S, min(LONGEST_S, room / (CORE * CORES)))
        return False

    def _stop(self) -> None:
        self._have_stopped = True
        everybody(_signal.SIGSTOP)

    def _room(self, pids: list[str], bound: int) -> int:
        """What is left since the last count for certain, however little of it the bound can tell."""
        if self._counted is None:
            return 0
        bound_then, cpu_then, room = self._counted
        spent = sum(max(0.0, cpu_s(pid) - cpu_then.get(pid, 0.0)) for pid in pids)
        return room - max(bound - bound_then, int(spent * CORE))

    def _slow(self, pids: list[str]) -> None:
        self._slowed = True
        deadline = time.monotonic() + PATIENCE_S
        while not self._weigh(pids, SLOW) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _weigh(self, pids: list[str], niceness: int) -> bool:
        """Give their sessions this weight. False: the kernel wants it to be tried again. A session that cannot be
        changed stays as it is."""
        for pid in pids:
            if memory_use.text(f"/proc/{pid}/autogroup").split()[-1:] in ([], [str(niceness)]):
                continue
            known = self._weights.get(session_of(pid))
            try:
                weight = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY) if known is None else known
            except OSError:  # it hides, or is ending: another of its session may not
                continue
            try:
                os.write(weight, b"%d" % niceness)
            except BlockingIOError:
                return False
            except OSError:
                continue
            finally:
                if known is None:
                    os.close(weight)
        return True


def everybody(number: int) -> None:
    try:
        os.kill(-1, number)
    except ProcessLookupError:  # there is nobody
        return


def go_on(pids: list[str]) -> None:
    """Continue those that are stopped."""
    for pid in pids:
        if memory_use.text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] == ["T"]:
            try:
                os.kill(int(pid), _signal.SIGCONT)
            except OSError:  # it is gone
                continue


def cpu_s(pid: str) -> float:
    """Of all its threads, ended ones included (clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime(~int(pid) << 3 | 2)
    except OSError:  # it is gone
        return 0.0


def session_of(pid: str) -> int:
    return int("".join(memory_use.text(f"/proc/{pid}/stat").rpartition(")")[2].split()[3:4]) or 0)
