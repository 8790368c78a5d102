"""Without images: packages of which date, under which Python. What is tried, in which order, and what is kept of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from crrl.admission.check import _first_admitted
from crrl.errors import CrrlError
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.setup import interpreters
from crrl.tasks.setup.project import attempts, committed


def test_the_time_s_packages_then_slack_then_the_next_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("3.8", "3.9", "3.11"):
        binary = interpreters.folder(tmp_path) / version / "bin" / f"python{version}"
        binary.parent.mkdir(parents=True)
        binary.touch()
    monkeypatch.setattr(interpreters, "BELOW_USR", ())
    assert [(a.when.isoformat(), a.python) for a in attempts(date(2021, 5, 3), tmp_path)] == [
        ("2021-05-03", "python3.9"),
        ("2021-11-02", "python3.9"),
        ("2021-05-03", "python3.11"),
        ("2021-11-02", "python3.11"),
    ]


def test_the_date_of_a_commit_at_hand_and_from_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    dated = os.environ | {"GIT_COMMITTER_DATE": "2021-03-04T05:06:07+00:00"}
    for words in (["init", "-q"], ["config", "uploadpack.allowAnySHA1InWant", "true"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    say = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one", "--allow-empty"]
    subprocess.run(["git", *say], cwd=root, check=True, env=dated)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True).stdout
    assert committed(Source(repo=str(root), base_commit=head.strip())) == "2021-03-04"
    assert committed(Source(repo=root.as_uri(), base_commit=head.strip())) == "2021-03-04"
    assert committed(Source(dir=str(root))) == ""
    with pytest.raises(CrrlError):
        committed(Source(repo=str(root), base_commit="0" * 40))


FIX = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
TEST = "import os\nfrom m import x\n\n\ndef test_x():\n    assert x == 2 and os.environ.get('OF_ITS_TIME')\n"
TASK = Task(
    "a", "a", "test", "python", "", Source(files={"m.py": "x = 1\n", "test_m.py": TEST}), "x is 2",
    TestPlan(Command(["test_m.py"]), "pytest", ["test_m.py::test_x"], []), solution=FIX,
)  # fmt: skip


HERE = next(v for v in reversed(interpreters.RELEASED) if interpreters.find(f"python{v}", Path("/nowhere")))
OF_HERE = date.fromisoformat(interpreters.RELEASED[HERE]) + timedelta(days=200)
OLD, RIGHT, LAST = ((OF_HERE + timedelta(days=days)).isoformat() for days in (0, 1, 2))


async def test_the_first_that_is_admitted_is_kept(task_judge: TaskJudge) -> None:
    seen: list[str] = []

    def variant(name: str, of_its_time: str) -> Task:
        command = replace(TASK.test.command, env={"OF_ITS_TIME": of_its_time})
        return replace(TASK, test=replace(TASK.test, command=command), provenance={"packages": name})

    async def settle(task: Task) -> AsyncIterator[Task | CrrlError]:
        for tried in (CrrlError("no such package"), variant(OLD, ""), variant(RIGHT, "1"), variant(LAST, "1")):
            seen.append(tried.message if isinstance(tried, CrrlError) else tried.provenance["packages"])
            yield tried

    async def none(task: Task) -> AsyncIterator[Task | CrrlError]:
        yield CrrlError("no such package")
        yield variant(OLD, "")

    async def older(task: Task) -> AsyncIterator[Task | CrrlError]:
        yield CrrlError("no such package")
        yield variant("2019-01-01", "")

    admission = await _first_admitted(TASK, settle, task_judge, 1)
    assert admission.task is not None and admission.task.provenance["packages"] == RIGHT
    assert seen == ["no such package", OLD, RIGHT]
    admission = await _first_admitted(TASK, none, task_judge, 1)  # what could be judged says more
    assert admission.status == "broken" and "test_x is failed" in str(admission.reasons)
    admission = await _first_admitted(TASK, older, task_judge, 1)  # under the Python of another time: nobody knows
    assert admission.status == "unavailable"
    assert re.match(r"needs python3\.7, of its time \(uv python install 3\.7 .*test_x is failed", admission.reasons[0])
