"""`crrl bench sandbox`: the cost of a bubblewrap box, of a large repository's workspace, of many boxes, and of
admission.

Wall times are medians and need a quiet machine; CPU-seconds count this process and its descendants, and hold on a busy
one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from crrl import sandbox
from crrl.console.time_breakdown import tree_cpu_s
from crrl.sandbox.api import Box, Sandbox, Spec, Workspace
from crrl.sandbox.bubblewrap import BubblewrapSandbox
from crrl.task import Source

STARTS, EXECS, AT_ONCE, TASKS = 20, 50, 32, 8
FILES, FILE_BYTES = 5000, 2000
TARGET_S = 0.15
GONE_S = 30.0


@dataclass(frozen=True)
class Cost:
    """Of one: wall seconds (median) and CPU-seconds (mean)."""

    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{1000 * self.wall_s:8.1f} ms   {1000 * self.cpu_s:7.1f} CPU-ms"


@dataclass(frozen=True)
class SandboxBench:
    """Args:
    start: a box over a small repository, to its first answer, and its end. exec: `true` in a running box.
    prepared: the shared tree of a repository of `FILES` files, once per commit.
    workspace: a box over that tree, and its end. patch: of one changed file in it.
    disk_bytes: what such a workspace takes on the disk; memory_bytes: in memory, one changed file in it.
    at_once_s: wall seconds in which `AT_ONCE` boxes were started; left: processes of theirs, `gone_s` after their owner
    was killed.
    admission: of one generated task, three runs buggy and three fixed; admitted: of `TASKS`.
    """

    start: Cost
    exec: Cost
    prepared: Cost
    workspace: Cost
    patch: Cost
    disk_bytes: int
    memory_bytes: int
    at_once_s: float
    left: int
    gone_s: float
    admission: Cost
    admitted: int
    per_second: float

    def lines(self) -> list[str]:
        return [
            f"start and end of a box       {self.start}",
            f"a command in it (true)       {self.exec}",
            f"a repository of {FILES} files, to a workspace (target: under {1000 * TARGET_S:.0f} ms, no disk):",
            f"  once per commit            {self.prepared}",
            f"  each episode               {self.workspace}   {self.disk_bytes} bytes on disk, "
            f"{self.memory_bytes >> 10} KiB of memory",
            f"  its patch                  {self.patch}",
            f"{AT_ONCE} boxes at once       started in {self.at_once_s:.2f} s; their owner killed: "
            f"{self.left} processes left after {self.gone_s:.2f} s",
            f"admission of a task          {self.admission}   {self.per_second:.2f} tasks a second, "
            f"{self.admitted} of {TASKS} admitted",
        ]


def bench() -> SandboxBench:
    beside = sandbox.default_state_dir().parent  # nothing else writes there, and we leave nothing behind
    with tempfile.TemporaryDirectory(dir=beside, prefix="crrl-bench-") as folder:
        os.chmod(folder, 0o755)
        return asyncio.run(_bench(Path(folder)))


async def _bench(state_dir: Path) -> SandboxBench:
    boxes = BubblewrapSandbox(state_dir=state_dir)
    try:
        small = await boxes.prepare(Source(files={"a.py": "a = 1\n"}))
        start = await _repeated(STARTS, lambda: _started(boxes, small))
        box = await boxes.start(Spec(root=small))
        command = await _repeated(EXECS, lambda: box.exec(["true"]))
        await box.close()
        with tempfile.TemporaryDirectory(dir=state_dir, prefix="bench-") as folder:
            source = _repository(Path(folder))
            prepared = await _repeated(1, lambda: boxes.prepare(source))
            large = await boxes.prepare(source)
            workspace = await _repeated(STARTS, lambda: _started(boxes, large))
            before = _disk_bytes(state_dir)
            box = await boxes.start(Spec(root=large))
            await box.write("folder7/file7.py", b"changed\n")
            disk = _disk_bytes(state_dir) - before
            memory = await _layer_bytes(box)
            patch = await _repeated(1, box.patch)
            await box.close()
    finally:
        await boxes.close()
    at_once, left, gone = _killed(state_dir)
    admission, admitted, per_second = await _admission(state_dir)
    return SandboxBench(
        start, command, prepared, workspace, patch, disk, memory, at_once, left, gone, admission, admitted, per_second
    )


async def _repeated(times: int, do: Callable[[], Awaitable[object]]) -> Cost:
    cpu, walls = tree_cpu_s(), []
    for _ in range(times):
        begun = time.monotonic()
        await do()
        walls.append(time.monotonic() - begun)
    return Cost(statistics.median(walls), (tree_cpu_s() - cpu) / times)


async def _started(boxes: Sandbox, root: Workspace) -> None:
    await (await boxes.start(Spec(root=root))).close()


def _repository(folder: Path) -> Source:
    for number in range(FILES):
        file = folder / f"folder{number % 100}" / f"file{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {number}\n" + "x = 1\n" * (FILE_BYTES // 6))
    git = ["git", "-C", str(folder), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "base"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return Source(repo=str(folder), base_commit=commit)


def _disk_bytes(folder: Path) -> int:
    """Blocks below `folder`; each file once, however many names it has."""
    said = subprocess.run(["du", "-s", "--block-size=1", str(folder)], check=True, capture_output=True, text=True)
    return int(said.stdout.split()[0])


async def _layer_bytes(box: Box) -> int:
    """Of the file system, in memory, that holds what an episode changed."""
    said = (await box.exec(["df", "--block-size=1", "--output=used", "/workspace"])).output
    return int(said.split()[-1])


# Many at once, and their owner killed --------------------------------------------------------------------------------


def _killed(state_dir: Path) -> tuple[float, int, float]:
    """(seconds to start all, processes left, seconds until none or no fewer were left)."""
    word = f"86400.{os.getpid()}"
    owner = subprocess.Popen([sys.executable, "-m", __name__, str(state_dir), word], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    started = float(owner.stdout.readline())
    launcher = int(owner.stdout.readline())
    family = _below(launcher)
    while sum(word in _command(pid) for pid in family) < AT_ONCE:  # until a command runs in each
        time.sleep(0.02)
        family = _below(launcher)
    killed = time.monotonic()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    while (left := sum(map(_alive, [launcher, *family]))) and time.monotonic() < killed + GONE_S:
        time.sleep(0.01)
    return started, left, time.monotonic() - killed


async def _own(state_dir: Path, word: str) -> None:
    """The owner: starts its boxes, says how long it took and who its launcher is, and waits to be killed."""
    boxes = BubblewrapSandbox(state_dir=state_dir)
    root = await boxes.prepare(Source(files={"a.py": "a = 1\n"}))
    begun = time.monotonic()
    made = await asyncio.gather(*(boxes.start(Spec(root=root)) for _ in range(AT_ONCE)))
    print(time.monotonic() - begun, flush=True)
    print(boxes.launcher_pid, flush=True)
    await asyncio.gather(*(box.exec(["sleep", word], timeout_s=86400) for box in made))


def _below(pid: int) -> list[int]:
    import psutil

    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Admission -----------------------------------------------------------------------------------------------------------


async def _admission(state_dir: Path) -> tuple[Cost, int, float]:
    """(cost of a task, how many were admitted, tasks a second), two at a time."""
    from crrl.admission.admission import admit
    from crrl.rewards.task_judge import TaskJudge
    from crrl.tasks.generator.generate import generate

    tasks = [generate("train", 0, index) for index in range(TASKS + 1)]
    boxes = sandbox.make(state_dir=state_dir)
    judge = TaskJudge(state_dir, boxes, concurrency=2)
    try:
        await admit(tasks[-1], judge)  # warms the judge
        cpu, begun = tree_cpu_s(), time.monotonic()
        done = await asyncio.gather(*(admit(task, judge) for task in tasks[:TASKS]))
        wall = time.monotonic() - begun
        cpu = tree_cpu_s() - cpu
    finally:
        await judge.close()
        await boxes.close()
    cost = Cost(wall / TASKS, cpu / TASKS)
    return cost, sum(admission.status == "admitted" for admission in done), TASKS / wall


if __name__ == "__main__":
    asyncio.run(_own(Path(sys.argv[1]), sys.argv[2]))
