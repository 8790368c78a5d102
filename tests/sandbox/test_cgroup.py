"""A group alone: what the kernel keeps for whoever has joined, and what is left of groups whose owner was killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from in_a_kernel import FORKS, ran

from crrl.sandbox import cgroup

OWNER = """
import os
from crrl.sandbox import cgroup
place = cgroup.find()
group = cgroup.make(place, 64 << 20, 16)
print(*group.folders, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def place() -> cgroup.Place:
    found = cgroup.find()
    if found is None:
        pytest.skip("no cgroup can be made here")
    return found


def test_memory_and_processes_are_bounded_by_the_group_itself(place: cgroup.Place) -> None:
    """Without the box's rlimits, which bound processes and what each may map, too."""
    group = cgroup.make(place, 64 << 20, 16)
    try:
        assert ran(group, f"bytearray({16 << 20})") == 0
        assert ran(group, f"bytearray({200 << 20})") == -9
        assert ran(group, FORKS) == 1
        assert "oom_kill 1" in os.pread(group.fds[0], 4096, 0).decode() or place.version == 2
    finally:
        for folder in group.folders:
            for pid in (folder / "cgroup.procs").read_text().split():
                os.kill(int(pid), 9)
        group.remove()


def test_groups_of_a_killed_owner_are_swept(place: cgroup.Place) -> None:
    killed = subprocess.run([sys.executable, "-c", OWNER], capture_output=True, text=True, check=False)
    folders = killed.stdout.split()
    assert killed.returncode == -9 and folders and all(map(os.path.isdir, folders))
    cgroup.find.cache_clear()
    assert cgroup.find() == place
    assert not any(map(os.path.isdir, folders))
