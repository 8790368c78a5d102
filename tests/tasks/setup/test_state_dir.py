"""`sandbox.state_dir` is where every verb looks for toolchains, interpreters and checkouts, and keeps its caches."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from judge_kit import make_task

import crrl
from crrl.cli.main import main
from crrl.tasks.files import write_tasks

MAY_KNOW_THE_DEFAULT = {
    # a recipe's own setting, or the default
    *("sandbox/__init__.py", "rollout/config.py", "run/run.py", "run/engine.py", "run/grade.py"),
    *("cli/call.py", "bench/judge.py", "bench/sandbox.py", "run/bench_vllm.py"),
}


@pytest.fixture
def own(state_dir: Path) -> Path:
    folder = state_dir / "another"
    folder.mkdir(exist_ok=True)
    return folder


def test_nothing_else_knows_where_the_default_is() -> None:
    root = Path(crrl.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"default_state_dir\(", path.read_text())
    }
    assert found == MAY_KNOW_THE_DEFAULT


@pytest.mark.parametrize("need", ["python3.7", "python>=3.99", "gradle"])
def test_a_task_s_tools_are_looked_for_there(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], need: str
) -> None:
    task = make_task()
    plan = replace(task.test, parser="pytest-xml", needs=[need])
    write_tasks(tmp_path / "t.jsonl", [replace(task, test=plan)])
    words = ["tasks", "check", str(tmp_path / "t.jsonl"), "times=1", f"sandbox.state_dir={own}", "--json"]
    assert main(words) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "unavailable" and f"{own}/toolchains" in told["reasons"][0], told
    assert (own / "workspaces").is_dir()  # and its caches are there


def test_doctor_looks_there(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", f"sandbox.state_dir={own}", "--json"])
    found = {finding["name"]: finding["found"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["state_dir"].startswith(f"{own},") and f"/var/tmp/crrl-{os.getuid()}" not in json.dumps(found)
    main(["doctor", f"sandbox.state_dir={own}/not/yet/there", "--json"])
    found = {finding["name"]: finding["found"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["state_dir"].startswith(f"{own}/not/yet/there,") and found["caches"] == "empty"


@pytest.mark.parametrize("action", ["list", "show", "split"])
def test_what_reads_tasks_alone_takes_none(own: Path, capsys: pytest.CaptureFixture[str], action: str) -> None:
    assert main(["tasks", action, "generated", f"sandbox.state_dir={own}"]) == 2
    assert "sandbox.state_dir" in capsys.readouterr().err
