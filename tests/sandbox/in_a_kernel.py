"""What `test_cgroup2.py` runs inside a User Mode Linux kernel: prints one JSON object.

That kernel is its own: all controllers are free, so cgroup v2 has them, whatever the host has mounted.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from test_memory import LIMIT, ROUTES, START, taken

from crrl.sandbox import cgroup
from crrl.sandbox.bubblewrap import BubblewrapSandbox

TOP = Path("/sys/fs/cgroup")
MB = 1 << 20
FORKS = "import os, time\nfor n in range(40):\n    if os.fork() == 0: time.sleep(9)\n"


def found() -> str:
    cgroup.find.cache_clear()
    place = cgroup.find()
    return str(place.memory) if place is not None else ""


def places() -> dict[str, str]:
    """Where groups are made, as the hierarchy above this process changes."""
    seen = {"no controllers": found()}
    (TOP / "cgroup.subtree_control").write_text("+memory +pids")
    seen["root"] = found()
    leaf = TOP / "scope" / "leaf"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text(str(os.getpid()))
    (TOP / "scope" / "cgroup.subtree_control").write_text("+memory +pids")  # as systemd delegates a scope
    seen["delegated"] = found()
    (leaf / "memory.max").write_text(str(300 * MB))
    seen["a limit of its own"] = found()
    (leaf / "memory.max").write_text("max")
    return seen


def group() -> dict[str, Any]:
    """One group: its limits, as the kernel keeps them."""
    cgroup.find.cache_clear()
    place = cgroup.find()
    assert place is not None and place.version == 2
    made = cgroup.make(place, 64 * MB, 16)
    ends = {name: ran(made, code) for name, code in (("much", f"bytearray({200 * MB})"), ("little", "bytearray(9)"))}
    peak = int((made.folders[0] / "memory.peak").read_text())
    ends["forks"] = ran(made, FORKS)
    (made.folders[0] / "cgroup.kill").write_text("1")
    events = os.pread(made.fds[0], 4096, 0).decode().split()
    for _ in range(100):
        made.remove()
        if not made.folders[0].exists():
            break
        asyncio.run(asyncio.sleep(0.05))
    return {**ends, "peak": peak, "kills": int(events[events.index("oom_kill") + 1]), "left": made.folders[0].exists()}


def ran(made: cgroup.Group, code: str) -> int:
    pid = os.fork()
    if pid == 0:
        for fd in made.fds[1:]:
            os.write(fd, b"0")
        os.execv("/usr/bin/python3", ["python3", "-c", code])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def box(state_dir: Path) -> dict[str, Any]:
    """A whole box, which takes more memory than it may."""
    sandbox = BubblewrapSandbox(state_dir=state_dir)
    try:
        peak, result = await taken(sandbox, True, START + textwrap.dedent(ROUTES["processes"]))
    finally:
        await sandbox.close()
    return {"reason": result.reason, "peak": peak / LIMIT}


if __name__ == "__main__":
    state_dir = Path("/tmp/state")
    state_dir.mkdir(mode=0o755)
    told = {"places": places(), "group": group(), "kept_by": cgroup.kept_by(), "box": asyncio.run(box(state_dir))}
    print("\nTOLD", json.dumps(told), file=sys.stdout, flush=True)
