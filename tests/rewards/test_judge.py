"""The judge's life: caching, joining, time limits, its own death, its owner's."""

# ruff: noqa: ASYNC110, ASYNC220, ASYNC221 (looks at processes from outside)
from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judge_kit import BUGGY, FILES, FIXED, diff, make_task

from crrl.errors import LostError
from crrl.rewards.judge import JudgeLimits, PytestJudge
from crrl.sandbox.api import Workspace
from crrl.task import Source

SOLUTION = diff({"stats.py": FIXED})


async def test_the_empty_patch_fails_and_the_solution_passes(judge: PytestJudge) -> None:
    task = make_task()
    empty, solved = await asyncio.gather(judge.run(task, ""), judge.run(task, SOLUTION))
    assert list(empty.tests.values()) == ["failed", "failed", "passed"]
    assert set(solved.tests.values()) == {"passed"}
    assert "assert 1.5 == 2" in empty.output
    assert 0 < solved.cpu_s < 5


async def test_a_patch_that_does_not_apply_is_a_result_and_not_an_error(judge: PytestJudge) -> None:
    for patch in (
        "nonsense",
        SOLUTION.replace("def mean", "def median"),
        "--- a/../x\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n",
    ):
        results = await judge.run(make_task(), patch)
        assert not results.applied and set(results.tests.values()) == {"missing"}


async def test_equal_runs_are_judged_once(judge: PytestJudge) -> None:
    task = make_task(FILES | {"README.md": "once"})
    results = await asyncio.gather(*(judge.run_cached(task, SOLUTION) for _ in range(8)))
    assert [cached for _, cached in results] == [False] + [True] * 7
    assert len({id(r) for r, _ in results}) == 1
    assert (await judge.run_cached(task, SOLUTION))[1]
    assert not (await judge.run_cached(task, ""))[1]


async def test_restore_brings_hidden_tests(judge: PytestJudge) -> None:
    hidden = {"tests/test_hidden.py": "from stats import mean\n\n\ndef test_h():\n    assert mean([4, 4]) == 4\n"}
    task = make_task()
    task.test.restore.update(hidden)
    task.test.fail_to_pass.append("tests/test_hidden.py::test_h")
    try:
        assert (await judge.run(task, SOLUTION)).tests["tests/test_hidden.py::test_h"] == "passed"
    finally:
        task.test.fail_to_pass.pop()


async def test_a_dead_zygote_is_replaced_and_the_run_in_flight_is_lost_or_retried(judge: PytestJudge) -> None:
    slow = make_task(timeout_s=30.0)
    running = asyncio.create_task(judge.run(slow, diff({"stats.py": "import time\ntime.sleep(1)\n" + FIXED})))
    while judge._zygote is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    judge._zygote.process.kill()
    assert set((await running).tests.values()) == {"passed"}  # retried once on a fresh zygote

    running = asyncio.create_task(judge.run(slow, diff({"stats.py": "import time\ntime.sleep(2)\n" + FIXED})))
    for _ in range(2):
        await asyncio.sleep(0.5)
        judge._zygote.process.kill()
        await asyncio.sleep(0.5)
    with pytest.raises(LostError, match="judge_died"):
        await running
    assert not judge._running
    assert set((await judge.run(slow, SOLUTION)).tests.values()) == {"passed"}


async def test_a_stopped_zygote_is_lost_within_its_time(judge: PytestJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crrl.rewards.judge.GRACE_S", 0.5)
    await judge.run(make_task(), "")
    assert judge._zygote is not None
    zygote = _children(judge._zygote.process.pid)[0]
    os.kill(zygote, signal.SIGSTOP)
    with pytest.raises(LostError, match="judge_died"):
        await judge.run(make_task(FILES | {"README.md": "stopped"}, timeout_s=0.5), "")
    assert (await judge.run(make_task(FILES | {"README.md": "again"}), "")).reason == "complete"


async def test_killing_the_owner_leaves_nothing(state_dir: Path) -> None:
    owner = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "kits")!r})
from pathlib import Path
from judge_kit import *
from crrl.rewards.judge import PytestJudge
async def main():
    judge = PytestJudge(Path({str(state_dir)!r}))
    hang = "import os, subprocess\\nos.execv('/bin/sleep', ['crrl-orphan-4d1', '90'])\\n"
    running = asyncio.create_task(judge.run(make_task(timeout_s=90.0), diff({{"stats.py": hang + BUGGY}})))
    await asyncio.sleep(1.5)
    print("running", judge._zygote.process.pid, flush=True)
    await running
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline().split()
    assert said[0] == "running"
    tree = _tree(int(said[1]))
    assert len(tree) >= 5  # bwrap, zygote, supervisor, init, test
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while left := [pid for pid in tree if _alive(pid)]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)


async def test_a_prepared_workspace_is_judged_over_an_overlay(state_dir: Path) -> None:
    lower = state_dir / "workspaces" / "one"
    for path, text in FILES.items():
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).write_text(text)
    (lower / "old.txt").write_text("x\n")
    (lower / "link").symlink_to("/etc")
    if os.getuid() == 0:  # as a sandbox prepares it: owned by the uid that it drops to
        for path in (lower, *lower.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)

    async def prepare(source: Source) -> Workspace:
        return Workspace(lower, lower, "0" * 40)

    judge = PytestJudge(state_dir, prepare=prepare)
    try:
        task = make_task()
        task = type(task)(**{**task.__dict__, "source": Source(dir=str(lower))})
        probe = "import os\nassert not os.path.exists('old.txt') and not os.listdir('/state')\n"
        patch = diff({"stats.py": probe + FIXED, "old.txt": None}, FILES | {"old.txt": "x\n"})
        results = await judge.run(task, patch)
        assert set(results.tests.values()) == {"passed"}, results
        assert (await judge.run(task, "")).tests["tests/test_stats.py::test_mean"] == "failed"
        through = "--- /dev/null\n+++ b/link/evil\n@@ -0,0 +1 @@\n+x\n"
        assert set((await judge.run(task, through)).tests.values()) == {"failed", "passed"}
        assert (lower / "old.txt").exists() and (lower / "stats.py").read_text() == BUGGY
    finally:
        await judge.close()


async def test_a_judged_run_costs_less_than_a_pytest_of_its_own(judge: PytestJudge, tmp_path: Path) -> None:
    await judge.run(make_task(), "")
    spent = [(await judge.run(make_task(FILES | {"README.md": f"cost {n}"}), SOLUTION)).cpu_s for n in range(5)]
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert min(spent) < after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # a fifth, measured


async def test_limits_reach_the_run(state_dir: Path) -> None:
    judge = PytestJudge(state_dir, limits=JudgeLimits(processes=8, cpu_s=1))
    try:
        look = (
            "import os, resource\n"
            "assert resource.getrlimit(resource.RLIMIT_NPROC) == (8, 8)\n"
            "assert os.getuid() == 1000 and os.listdir('/scratch') == [] and os.getpid() < 5\n"
            "assert open('/proc/self/status').read().count('CapEff:\\t0000000000000000') == 1\n"
            "assert 'Seccomp:\\t2' in open('/proc/self/status').read()\n"
            "assert set(os.listdir('/sys/class/net') if os.path.isdir('/sys/class/net') else []) <= {'lo'}\n"
            "import pathlib\n"
            "for p in ('/harness/x', '/usr/x', '/etc/x', '/x', '/dev/x'):\n"
            "    try:\n        pathlib.Path(p).write_text('x')\n    except OSError:\n        continue\n"
            "    raise SystemError(p)\n"
        )
        results = await judge.run(make_task(), diff({"stats.py": look + FIXED}))
        assert set(results.tests.values()) == {"passed"}, results
        spin = await judge.run(make_task(), diff({"stats.py": "while True: pass\n"}))
        assert spin.reason == "no_marker" and spin.wall_s < 10
    finally:
        await judge.close()


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _tree(pid: int) -> list[int]:
    return [pid] + [below for child in _children(pid) for below in _tree(child)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_code_that_never_ends_costs_its_cpu_limit_and_no_more(judge: PytestJudge) -> None:
    endless = make_task()
    endless = dataclasses.replace(endless, test=dataclasses.replace(endless.test, cpu_s=1, timeout_s=30))
    results = await judge.run(endless, diff({"stats.py": BUGGY + "while True: pass\n"}))
    assert set(results.tests.values()) == {"missing"}
    assert 0.5 < results.cpu_s < 2 and results.wall_s < 30
