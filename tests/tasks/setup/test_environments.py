"""Environments: built once from the task's set-up, cached by content, read-only, and never half-built."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.diffs import touched
from crrl.tasks.setup import interpreters, project
from crrl.tasks.setup.environments import pip, with_generated

WHEEL = "dep-1.0-py3-none-any.whl"
TESTS = """import subprocess, sys
import dep, m

def test_here():
    assert m.f() == 1 and dep.__file__.startswith("/environment/")

def test_of_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-c", "import dep; print(dep.NUMBER)"], capture_output=True)
    assert done.stdout == b"7\\n"

def test_cannot_be_changed():
    try:
        open("/environment/x", "w")
    except OSError:
        return
    raise AssertionError
"""


@pytest.fixture
def network() -> bool:
    return False


def repository(tmp_path: Path) -> Path:
    """With a wheel of its own: nothing is fetched."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "m.py").write_text("def f():\n    return 1\n")
    (root / "test_m.py").write_text(TESTS)
    with zipfile.ZipFile(root / WHEEL, "w") as wheel:
        wheel.writestr("dep.py", "NUMBER = 7\n")
        wheel.writestr("dep-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: dep\nVersion: 1.0\n")
        wheel.writestr("dep-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("dep-1.0.dist-info/RECORD", "")
    return root


def task(root: Path) -> Task:
    names = ["here", "of_a_process_of_its_own", "cannot_be_changed"]
    plan = TestPlan(Command(["test_m.py"]), "pytest", [f"test_m.py::test_{name}" for name in names], [])
    return Task("t", "c", "s", "python", "f", Source(dir=str(root)), "", plan, setup=pip("--no-index", f"./{WHEEL}"))


async def test_judged_runs_have_what_set_up_installed(tmp_path: Path, task_judge: TaskJudge) -> None:
    made = task(repository(tmp_path))
    results = await task_judge.run(made, "")
    assert set(results.tests.values()) == {"passed"}, results
    assert sorted(await task_judge.test_ids(made)) == sorted(made.test.fail_to_pass)  # and so have boxes
    without = await task_judge.run(replace(made, setup=[]), "")
    assert set(without.tests.values()) == {"missing"}


async def test_one_environment_for_equal_set_ups_and_another_for_other_requirements(
    tmp_path: Path, task_judge: TaskJudge
) -> None:
    root = repository(tmp_path)
    first = task(root)
    found = await asyncio.gather(*(task_judge.environments.of(first) for _ in range(3)))
    (root / "m.py").write_text("def f():\n    return 2\n")
    assert {environment.path for environment in found if environment} == {
        (await task_judge.environments.of(first)).path
    }
    (root / "requirements.txt").write_text("dep\n")
    assert (await task_judge.environments.of(first)).path != found[0].path
    assert await task_judge.environments.of(replace(first, setup=[])) is None


async def test_a_failing_set_up_says_what_it_said_and_leaves_nothing(tmp_path: Path, task_judge: TaskJudge) -> None:
    broken = replace(task(repository(tmp_path)), setup=[Command(["sh", "-c", "echo no compiler; exit 3"])])
    with pytest.raises(CrrlError, match=r"exit code 3[^\n]*\nno compiler"):
        await task_judge.environments.of(broken)
    with pytest.raises(CrrlError):  # tried again, not remembered
        await task_judge.environments.of(broken)
    assert not list((task_judge.state_dir / "environments").glob("*.new-*"))


async def test_all_who_wait_for_a_set_up_that_fails_are_told_so(tmp_path: Path, task_judge: TaskJudge) -> None:
    broken = replace(task(repository(tmp_path)), setup=[Command(["sh", "-c", "echo no compiler; exit 3"])])
    ends = await asyncio.gather(*(task_judge.environments.of(broken) for _ in range(5)), return_exceptions=True)
    assert [type(end) for end in ends] == [CrrlError] * 5
    assert all("no compiler" in str(end) for end in ends)


async def test_a_copy_of_the_project_is_refused(tmp_path: Path, task_judge: TaskJudge) -> None:
    root = repository(tmp_path)
    (root / "m.py").write_text("# the repaired program, which no agent may find in its environment\n" * 5)
    copies = Command(["sh", "-c", "cp m.py /environment/lib/python3*/site-packages/"])
    with pytest.raises(CrrlError, match=r"copied the project itself \(m.py\)") as failed:
        await task_judge.environments.of(replace(task(root), setup=[copies]))
    assert "pip install -e ." in failed.value.remedy


async def test_a_file_that_the_project_took_over_is_no_copy_of_it(tmp_path: Path, task_judge: TaskJudge) -> None:
    root = repository(tmp_path)
    (root / "pkg").mkdir()
    (root / "pkg" / "six.py").write_text("# compatibility, as many projects carry it around with them\n" * 5)
    site = "/environment/lib/python3*/site-packages"
    brings = Command(["sh", "-c", f"cp pkg/six.py {site}/"])
    assert await task_judge.environments.of(replace(task(root), setup=[brings])) is not None
    copies = Command(["sh", "-c", f"cp -r pkg {site}/"])
    with pytest.raises(CrrlError, match=r"copied the project itself \(pkg/six.py\)"):
        await task_judge.environments.of(replace(task(root), setup=[copies]))


async def test_python_files_that_it_generates_become_part_of_the_repository(
    tmp_path: Path, task_judge: TaskJudge
) -> None:
    """A version written by setuptools-scm, a generated parser; git tells a release, and what is built is left out."""
    root = repository(tmp_path)
    (root / ".gitignore").write_text("_version.py\n")
    script = (
        "git describe --tags | sed 's/.*/V = \"&\"/' > _version.py; mkdir build; touch build/x.py x.so; echo >> m.py"
    )
    made = replace(task(root), setup=[Command(["sh", "-c", script])])
    whole = with_generated(made, await task_judge.environments.of(made))
    assert [touched(patch) for patch in whole.source.patches] == [["_version.py"]]
    tree = (await task_judge._boxes.prepare(whole.source)).lower
    assert (tree / "_version.py").read_text() == 'V = "v99.0"\n' and (tree / "m.py").read_text().count("\n") == 2
    assert with_generated(made, None) == made


async def test_set_up_is_told_where_packages_come_from_and_no_secrets(
    tmp_path: Path, task_judge: TaskJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example/simple")
    for name in ("UV_PUBLISH_TOKEN", "UV_PYTHON", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    looks = Command(["sh", "-c", "env > /environment/seen"])
    made = await task_judge.environments.of(replace(task(repository(tmp_path)), setup=[looks]))
    assert made is not None
    seen = (made.path / "seen").read_text()
    assert "UV_DEFAULT_INDEX=https://packages.example/simple" in seen and "secret" not in seen


async def test_a_task_without_a_date_cannot_have_packages_of_it(tmp_path: Path, task_judge: TaskJudge) -> None:
    undated = replace(task(repository(tmp_path)), setup=[])
    with pytest.raises(CrrlError, match="packages of which date"):
        async for _ in project.settled(undated, task_judge._boxes.prepare, task_judge.environments):
            pass


async def test_the_warm_judge_says_that_it_has_one_python(
    tmp_path: Path, task_judge: TaskJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpython-3.7.1/bin").mkdir(parents=True)
    (tmp_path / "cpython-3.7.1/bin/python3.7").touch()
    monkeypatch.setattr(interpreters, "folder", lambda *_: tmp_path)
    made = task(repository(tmp_path))
    with pytest.raises(CrrlError, match="the warm judge runs"):
        await task_judge.run(replace(made, test=replace(made.test, needs=["python3.7"])), "")


async def test_set_up_has_no_network_unless_allowed(tmp_path: Path, task_judge: TaskJudge) -> None:
    looks = Command(["sh", "-c", "grep -c : /proc/net/dev > /environment/devices"])
    made = await task_judge.environments.of(replace(task(repository(tmp_path)), setup=[looks]))
    assert made is not None and (made.path / "devices").read_text() == "1\n"  # loopback alone


KILLED = """
import asyncio, sys
from pathlib import Path
from crrl import sandbox
from crrl.tasks.setup.environments import Environments
from crrl.task import Command, Source, Task, TestPlan

async def main():
    state_dir, root, script = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    boxes = sandbox.make(state_dir=state_dir)
    setup = [Command(["sh", "-c", "cd /environment; " + script])]
    plan, source = TestPlan(Command([]), "pytest", [], []), Source(dir=root)
    task = Task("t", "c", "s", "python", "f", source, "", plan, setup=setup)
    print((await Environments(state_dir, boxes.prepare).of(task)).path, flush=True)
    await boxes.close()

asyncio.run(main())
"""


def test_what_is_killed_half_way_is_not_used(tmp_path: Path, state_dir: Path) -> None:
    script = f"test -e half && exit 1; touch half; sleep 1.{os.getpid()}; touch whole"
    argv = [sys.executable, "-c", KILLED, str(state_dir), str(repository(tmp_path)), script]
    first = subprocess.Popen(argv)
    environments = state_dir / "environments"
    while not list(environments.glob("*.new-*/environment/half")):
        assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    made = Path(subprocess.run(argv, capture_output=True, check=True, text=True).stdout.strip())
    assert (made / "whole").exists() and not list(environments.glob(f"{made.name}.new-*"))
