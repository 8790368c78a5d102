"""cgroup v2 on a kernel that has it, whatever this machine has: User Mode Linux (`make test-uml`).

Its file system is this machine's (hostfs), so what runs in it is this checkout with this interpreter.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import crrl

pytestmark = [pytest.mark.uml, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
INIT = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export PYTHONPATH={Path(crrl.__file__).parents[1]}:{HERE}:{HERE.parent / "kits"}
{sys.executable} {HERE / "in_a_kernel.py"} 2>&1
echo o > /proc/sysrq-trigger
sleep 60
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    kernel = shutil.which("linux.uml")
    if kernel is None:
        pytest.fail("There is no User Mode Linux here: apt-get install user-mode-linux")
    init = tmp_path_factory.mktemp("uml", numbered=True) / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    boot = ["rootfstype=hostfs", "rootflags=/", "root=/dev/root", "rw", f"init={init}", "mem=1600M", "quiet"]
    done = subprocess.run(
        [kernel, *boot, "con=null", "con0=fd:0,fd:1"], stdin=subprocess.DEVNULL, capture_output=True, timeout=500
    )
    said = done.stdout.decode("utf-8", "replace")
    line = next((line for line in said.splitlines() if line.startswith("TOLD ")), None)
    assert line is not None, said[-3000:]
    found: dict[str, Any] = json.loads(line.removeprefix("TOLD "))
    return found


def test_groups_are_made_where_the_memory_controller_is_given(told: dict[str, Any]) -> None:
    top = "/sys/fs/cgroup"
    assert told["places"] == {
        "no controllers": "",
        "root": top,
        "delegated": f"{top}/scope",
        "a limit of its own": "",  # it holds for the boxes, too: a watchdog has to do
    }
    assert told["kept_by"] == "cgroup v2"


def test_the_kernel_keeps_a_group_within_its_limits(told: dict[str, Any]) -> None:
    group = told["group"]
    assert group["much"] == -9 and group["kills"] >= 1 and group["peak"] <= 64 << 20
    assert group["little"] == 0 and group["forks"] == 1 and not group["left"]


def test_a_box_is_killed_at_its_limit(told: dict[str, Any]) -> None:
    assert told["box"]["reason"] == "memory" and told["box"]["peak"] <= 1.01
