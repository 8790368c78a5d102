"""Nothing outlives its owner; what dies under us is `lost`, and only that."""

# ruff: noqa: ASYNC221 (blocking calls are fine in tests)
from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from host_processes import processes

from crrl.errors import CrrlError, LostError
from crrl.sandbox.api import Spec
from crrl.sandbox.bubblewrap import BubblewrapSandbox
from crrl.task import Source

OWNER = """
import asyncio, sys
from pathlib import Path
from crrl.sandbox.bubblewrap import BubblewrapSandbox
from crrl.sandbox.api import Spec
from crrl.task import Source
async def main():
    sandbox = BubblewrapSandbox(state_dir=Path(sys.argv[1]))
    root = await sandbox.prepare(Source(files={"a": "b"}))
    boxes = [await sandbox.start(Spec(root=root)) for _ in range(3)]
    print(sandbox.launcher_pid, flush=True)
    command = f"echo > f; setsid sleep {sys.argv[2]} & sleep {sys.argv[2]}"
    await asyncio.gather(*(b.exec(["bash", "-c", command], timeout_s=100) for b in boxes))
asyncio.run(main())
"""


def gone(word: str, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while processes(word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("victim", ["owner", "launcher"])
def test_kill_9_leaves_no_process_mount_or_file(sandbox, state_dir, victim):
    word = f"{7000 + os.getpid() % 1000}.{victim == 'owner':d}"
    files = sorted(os.listdir(state_dir))
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(state_dir), word], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    launcher = int(owner.stdout.readline())
    deadline = time.monotonic() + 20
    while len(processes(f"sleep {word}")) < 9 and time.monotonic() < deadline:  # 3 x (bash, two sleeps)
        time.sleep(0.02)
    keepers = children(launcher)
    assert len(keepers) == 3
    os.kill(owner.pid if victim == "owner" else launcher, signal.SIGKILL)
    assert gone(f"sleep {word}")
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{k}").exists() for k in [*keepers, launcher] if state(k) != "Z"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    owner.kill()
    owner.wait()
    assert str(state_dir) not in Path("/proc/mounts").read_text()
    assert os.listdir(state_dir / "mnt") == [] and set(os.listdir(state_dir)) - set(files) <= {
        "workspaces",
        "mnt",
    }


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


async def test_closed_boxes_leave_nothing(sandbox, workspace):
    before = set(children(sandbox.launcher_pid))
    box = await sandbox.start(Spec(root=workspace))
    (keeper,) = set(children(sandbox.launcher_pid)) - before
    await box.exec(["bash", "-c", "setsid sleep 5555 & echo"])
    running = asyncio.create_task(box.exec(["sleep", "5555"], timeout_s=100))
    await asyncio.sleep(0.2)
    await box.close()
    assert (await running).reason == "lost"
    await box.close()
    assert state(keeper) == "Z" and processes("sleep 5555") == []
    assert (await box.exec(["true"])).reason == "lost"


@pytest.mark.parametrize("whom", ["pid1", "bubblewrap", "keeper"])
async def test_a_box_killed_from_outside_is_lost(sandbox, workspace, whom):
    before = set(children(sandbox.launcher_pid))
    box = await sandbox.start(Spec(root=workspace))
    (keeper,) = set(children(sandbox.launcher_pid)) - before
    (bubblewrap,) = children(keeper)
    (pid1,) = children(bubblewrap)
    running = asyncio.create_task(box.exec(["bash", "-c", "echo partial; sleep 60"], timeout_s=100))
    await asyncio.sleep(0.3)
    os.kill({"pid1": pid1, "bubblewrap": bubblewrap, "keeper": keeper}[whom], signal.SIGKILL)
    result = await asyncio.wait_for(running, 10)
    assert (result.reason, result.code, result.output) == ("lost", None, "partial\n")
    with pytest.raises(LostError, match="sandbox_died"):
        await box.read("stats.py")
    with pytest.raises(LostError, match="sandbox_died"):
        await box.patch()
    await box.close()


async def test_a_killed_launcher_loses_its_boxes_and_is_started_again(state_dir, workspace):
    sandbox = BubblewrapSandbox(state_dir=state_dir)
    box = await sandbox.start(Spec(root=workspace))
    os.kill(sandbox.launcher_pid, signal.SIGKILL)
    with pytest.raises(LostError):
        for _ in range(50):
            await box.read("stats.py")
            await asyncio.sleep(0.05)
    box = await sandbox.start(Spec(root=workspace))
    assert (await box.exec(["cat", "README.md"])).output == "hello\n"
    await sandbox.close()


async def test_start_cancelled_halfway_leaves_nothing(sandbox, workspace):
    before = set(children(sandbox.launcher_pid))
    for delay in (0.0, 0.005, 0.02):
        starting = asyncio.create_task(sandbox.start(Spec(root=workspace)))
        await asyncio.sleep(delay)
        starting.cancel()
        (started,) = await asyncio.gather(starting, return_exceptions=True)
        if not isinstance(started, BaseException):  # it was quicker than the cancellation
            await started.close()
    deadline = time.monotonic() + 5
    while {k for k in children(sandbox.launcher_pid) if state(k) != "Z"} - before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_full_disk_is_a_clear_error_and_leaves_nothing_half_made(state_dir, monkeypatch):
    """A real full disk: a tiny tmpfs as the state folder, in a mount namespace of its own."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount a tiny disk")
    disk = state_dir / "tiny"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0755", "tiny", disk], check=True)
    try:
        sandbox = BubblewrapSandbox(state_dir=disk)
        with pytest.raises(CrrlError, match=r"full") as caught:
            await sandbox.prepare(Source(files={"a": os.urandom(300_000).hex()}))
        assert "state_dir" in caught.value.remedy
        assert [p for p in (disk / "workspaces").rglob("*") if p.is_file()] == []
        await sandbox.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
