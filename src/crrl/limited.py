"""Whether something that a user's file says to do ends within bounds: tried in a process of its own first.

For templates: a chat template or a setting can ask for more memory than the machine has in a few letters, in more ways
than could be told by looking at it.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable

MEMORY_BYTES, CPU_S, WALL_S = 1 << 30, 3, 60.0
MEANT = f"more than {MEMORY_BYTES >> 30} GiB of memory or {CPU_S} s"
_TOO_MUCH = 3


def ends(work: Callable[[], object]) -> bool:
    """Whether `work` ends within `MEANT`. What it raises otherwise is its caller's to see, who runs it again."""
    child = os.fork()
    if child == 0:
        _try(work)
    until = time.monotonic() + WALL_S
    pause = 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _try(work: Callable[[], object]) -> None:
    """Never returns: nothing of the parent's is flushed or closed in its fork."""
    code = _TOO_MUCH
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        with open("/proc/self/statm") as file:
            here = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY_BYTES, resource.RLIM_INFINITY))
        work()
        code = 0
    except MemoryError:
        pass
    except BaseException:
        code = 0
    finally:
        os._exit(code)
