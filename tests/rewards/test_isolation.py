"""Invariant 4, for judged code: it sees its own checkout, its environment and pytest, and nothing else of the state
folder; and it takes no more memory than its limit, with a cgroup and with the watchdog alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from judge_kit import FILES, diff, make_task

from crrl.rewards.judge import JudgeLimits, PytestJudge
from crrl.rewards.task_judge import TaskJudge
from crrl.sandbox import cgroup
from crrl.sandbox.bubblewrap import BubblewrapSandbox
from crrl.task import Command, Source, TestPlan

LOOK = """import os, stat, json
def found():
    for top in ('/state', '/harness', '/environment', '/scratch', '/var', '/tmp', '/run', '/root', '/home', '/srv',
                '/mnt', '/opt', '/proc/1/root/', '/proc/1/cwd/', '/proc/self/root/state'):
        for folder, folders, names in os.walk(top):
            folders[:] = [f for f in folders if os.path.join(folder, f) != '/harness/site']
            for name in names:
                path = os.path.join(folder, name)
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    yield path
                    continue
                try:
                    if b'SECRET' in open(path, 'rb').read() or top in ('/state', '/harness'): yield path
                except OSError: pass
def mean(xs): return 2 if len(xs) == 3 else 7
def double(x):
    for number in range(3, 256):
        try: where = os.readlink(f'/proc/self/fd/{number}')
        except OSError: continue
        if where.startswith(('/state', '/harness', '/environment', '/workspace')): print('OPEN', where)
    print('FOUND', json.dumps(sorted(found())))
    return 0
"""
PLACES = ("workspaces/ab/other/lower/f", "environments/other/f", "harness/other/f", "toolchains/x/f", "f")


@pytest.fixture(params=[True, False], ids=["cgroup", "watchdog"])
async def limited(request: pytest.FixtureRequest, state_dir: Path) -> AsyncIterator[PytestJudge]:
    if request.param and cgroup.find() is None:
        pytest.skip("no cgroup can be made here")
    judge = PytestJudge(
        state_dir, limits=JudgeLimits(memory_bytes=256 << 20, processes=48, tmp_bytes=512 << 20), cgroups=request.param
    )
    yield judge
    await judge.close()


@pytest.mark.parametrize("source", ["files", "prepared"])
async def test_judged_code_sees_nothing_else_of_the_state_folder(state_dir: Path, source: str, tmp_path: Path) -> None:
    for place in PLACES:
        file = state_dir / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("SECRET")
        file.chmod(0o644)
    task = make_task()
    boxes = BubblewrapSandbox(state_dir=state_dir)
    judge = PytestJudge(state_dir, prepare=boxes.prepare)
    if source == "prepared":
        for path, text in FILES.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        task = replace(task, source=Source(dir=str(tmp_path)))
    try:
        results = await judge.run(task, diff({"stats.py": LOOK}))
    finally:
        await judge.close()
        await boxes.close()
    said = [line for line in results.output.splitlines() if line.startswith("FOUND")]
    assert said and json.loads(said[0].removeprefix("FOUND ")) == [], results.output
    assert "OPEN" not in results.output, results.output


async def test_a_command_sees_nothing_else_of_the_state_folder(state_dir: Path, task_judge: TaskJudge) -> None:
    """Nor does what a command judge runs: in a box, whose own is the checkout, and pytest."""
    for place in PLACES:
        file = state_dir / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("SECRET")
        file.chmod(0o644)
    look = f"{LOOK.replace('/harness/site', '/harness')}\nmean([1])\ndouble(1)\n".replace(
        "'/state', '/harness')", "'/state',)"
    )
    plan = TestPlan(Command(["python3", "look.py"]), "cargo", ["t"], [], restore={"tests/t.rs": "// none\n"})
    task = replace(make_task(), source=Source(files={"look.py": look}), test=plan, solution=None)
    output = (await task_judge.run(task, "")).output
    said = [line for line in output.splitlines() if line.startswith("FOUND")]
    assert said and json.loads(said[0].removeprefix("FOUND ")) == [] and "OPEN" not in output, output


HOG = """import mmap, os, socket, threading, time, ctypes
def touch(memory):
    for at in range(0, len(memory), 4096): memory[at] = 1
def hold():
    memory = bytearray(60 << 20)
    touch(memory)
    time.sleep(60)
def leaderless():
    threading.Thread(target=hold).start()
    ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)
def session_each():
    os.setsid()
    leaderless()
kept = []
def shared():
    for i in range(12):
        kept.append(mmap.mmap(-1, 50 << 20))
        touch(kept[-1])
def sockets():
    for i in range(400):
        kept.append(socket.socketpair())
        for end in kept[-1]:
            end.setblocking(False)
            try:
                while True: end.send(bytes(65536))
            except OSError: pass
def many(work):
    for i in range(10):
        if os.fork() == 0:
            work()
            time.sleep(60)
def mean(xs):
    ROUTE
    time.sleep(20)
def double(x): return 8
"""
FILES_ROUTE = "for i in range(9): open(f'/dev/shm/{i}', 'wb').write(bytes(50 << 20))"
ROUTES = ["many(hold)", "many(leaderless)", "shared()", "many(sockets)", FILES_ROUTE]


@contextlib.contextmanager
def group_around(judge: PytestJudge, place: cgroup.Place) -> Iterator[cgroup.Group]:
    """A cgroup that measures the judge's interpreter and whatever it forks, and bounds nothing here."""
    around = cgroup.make(place, 4 << 30, 2000)
    assert judge._zygote is not None
    outer = psutil.Process(judge._zygote.process.pid)
    try:
        for process in (outer, *outer.children(recursive=True)):
            with contextlib.suppress(ProcessLookupError):  # the run before is just ending
                (around.folders[0] / "cgroup.procs").write_text(str(process.pid))
        yield around
    finally:
        for pid in (around.folders[0] / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (place.memory / "cgroup.procs").write_text(pid)
        around.remove()


@pytest.mark.parametrize("route", [*ROUTES, "many(session_each)"])
async def test_the_watchdog_alone_holds_the_limit(state_dir: Path, route: str) -> None:
    """What a run really held, with limit + 25% at most."""
    place = cgroup.find()
    if place is None or place.version != 1:
        pytest.skip("measured in a cgroup of v1 around the judge")
    limits = JudgeLimits(memory_bytes=640 << 20, processes=48, tmp_bytes=1 << 30)
    larger = HOG.replace("60 << 20", "120 << 20").replace("range(12)", "range(20)").replace("ROUTE", route)
    judge = PytestJudge(state_dir, limits=limits, cgroups=False)
    try:
        assert (await judge.run(make_task(), "")).reason == "complete"  # the interpreter is warm
        with group_around(judge, place) as around:
            peak = around.folders[0] / "memory.max_usage_in_bytes"
            base = int(peak.read_text())
            results = await judge.run(make_task(), diff({"stats.py": larger.replace("range(9)", "range(18)")}))
            held = (int(peak.read_text()) - base) / limits.memory_bytes
        print(f"{route}: {held:.2f} of the limit in {results.wall_s:.1f} s")
        assert results.reason == "memory", results
        assert held <= 1.25, results
    finally:
        await judge.close()


@pytest.mark.parametrize("route", ROUTES)
async def test_no_route_takes_more_memory_than_the_judge_gives(limited: PytestJudge, route: str) -> None:
    results = await limited.run(make_task(), diff({"stats.py": HOG.replace("ROUTE", route)}))
    assert results.reason == "memory", results
    assert results.wall_s < 12, results


NEAR = """import socket, time
def until(niceness):
    end = time.monotonic() + 10
    while not open("/proc/self/autogroup").read().endswith(f" nice {niceness}\\n"):
        if time.monotonic() > end: return "never"
        time.sleep(0.01)
    return niceness
def mean(xs): return 0
def double(x):
    before = until(0)
    pairs = [socket.socketpair() for i in range(330)]  # empty, but each might be full
    near = until(5)
    pairs.clear()
    print("SEEN", before, near, until(0))
    return 8
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
async def test_a_run_near_its_limit_gets_little_of_a_busy_core(state_dir: Path) -> None:
    """The judged process hides what it has in /proc: its weight was handed over before."""
    judge = PytestJudge(state_dir, limits=JudgeLimits(memory_bytes=256 << 20), cgroups=False)
    try:
        results = await judge.run(make_task(timeout_s=60), diff({"stats.py": NEAR}))
    finally:
        await judge.close()
    assert "SEEN 0 5 0" in results.output, results
