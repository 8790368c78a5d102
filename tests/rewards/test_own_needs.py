"""A project that pytest itself needs, or that is named as a module of the judge is, is judged by its own code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from judge_kit import diff, make_task

from crrl.rewards import harness
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Task

CODE = "def half(x):\n    return x // 3\n"
TEST = "from {0}.parts import half\n\n\ndef test_half():\n    assert half(8) == 4\n\n\n"
TEST += "def test_zero():\n    assert half(0) == 0\n"
LAYOUTS = {
    "flat": ("", Command(["tests"]), {}),
    "PYTHONPATH": ("src/", Command(["tests"], env={"PYTHONPATH": "src"}), {}),
    "settings": ("src/", Command(["tests"]), {"pytest.ini": "[pytest]\npythonpath = src\n"}),
}


def own(name: str, layout: str) -> Task:
    folder, command, settings = LAYOUTS[layout]
    files = {
        f"{folder}{name}/__init__.py": "",
        f"{folder}{name}/parts.py": CODE,
        "tests/test_parts.py": TEST.format(name),
    }
    ids = [f"tests/test_parts.py::test_{what}" for what in ("half", "zero")]
    task = make_task(files | settings, fail=ids[:1], keep=ids[1:])
    fixed = diff({f"{folder}{name}/parts.py": CODE.replace("// 3", "// 2")}, files | settings)
    return replace(task, test=replace(task.test, command=command), solution=fixed)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["packaging", "pluggy", "iniconfig", "inside", "judged_init", "memory_use"])
async def test_the_projects_own_wins(task_judge: TaskJudge, name: str, layout: str) -> None:
    task = own(name, layout)
    assert solved(task, await task_judge.run(task, task.solution or ""))
    unrepaired = await task_judge.run(task, "")
    assert list(unrepaired.tests.values()) == ["failed", "passed"], unrepaired


@pytest.mark.parametrize("name", ["packaging", "pluggy"])
async def test_its_tests_are_found(task_judge: TaskJudge, name: str) -> None:
    task = own(name, "PYTHONPATH")
    assert sorted(await task_judge.test_ids(task)) == [*task.test.fail_to_pass, *task.test.pass_to_pass]


def test_both_sides_know_what_pytest_needs() -> None:
    text = Path(harness.__file__).with_name("inside.py").read_text()
    assert f"NEEDS = {harness.NEEDS!r}".replace("'", '"') in text
