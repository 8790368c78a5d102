"""A measurement in a process of its own: a peak is a process's, and what does not fit must end nobody else."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError

SHARE = 0.9
"""Of the memory that is available now: more is not asked for, so that the kernel ends no other process."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "MemoryError", "bad_alloc")


def measured(module: str, *words: str) -> dict[str, Any] | None:
    """What `python -m MODULE WORDS` prints as the last line, JSON. None: it does not fit into memory.

    Raises: CrrlError: it failed otherwise.
    """
    most = int(SHARE * _available())
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),
    )
    if done.returncode == -9 or (done.returncode and any(sign in done.stderr for sign in _NO_MEMORY)):
        return None
    if done.returncode:
        raise CrrlError(
            f"python -m {module} {' '.join(words)} failed:\n{done.stderr[-2000:]}", "Run that command to see it all."
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _available() -> int:
    (line,) = [x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemAvailable:")]
    return 1024 * int(line.split()[1])


def load() -> str:
    """Of the machine: 1, 5 and 15 minutes."""
    return " ".join(Path("/proc/loadavg").read_text().split()[:3])
