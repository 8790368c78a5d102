"""Cheats in the command judge (Java, a shell script, pytest graded from its log): none scores, each is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cheats_kit import JAVA, LOG, SCRIPT, SUM, SUM_TESTS
from judge_kit import BUGGY, FILES, FIXED, diff, make_task
from toolchain_kit import require

from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.bugsinpy import REPORT as XML
from crrl.tasks.corpora.quixbugs import CONSOLE, REPORT
from crrl.tasks.setup.toolchains import JUNIT

SUM_FILES = {"Sum.java": SUM, "tests/SumTest.java": SUM_TESTS}
SCRIPT_FILES = {"run.sh": "echo 'test adds ... FAILED'\n"}
BUILD = f'javac -nowarn -d .crrl/classes -cp {JUNIT} $(find . -name "*.java")'


def java_task() -> Task:
    plan = TestPlan(
        command=Command(CONSOLE.split()),
        parser="junit",
        fail_to_pass=["SumTest::adds"],
        pass_to_pass=["SumTest::starts"],
        restore={"tests/SumTest.java": SUM_TESTS},
        needs=["junit"],
        build=[Command(["sh", "-c", BUILD])],
        report=Command(["sh", "-c", REPORT]),
    )
    fixed = diff({"Sum.java": SUM.replace("total = 1", "total = 0")}, SUM_FILES)
    return replace(make_task(), id="sum", language="java", source=Source(files=SUM_FILES), test=plan, solution=fixed)


def script_task() -> Task:
    plan = TestPlan(Command(["sh", "run.sh"]), "cargo", ["tests/t.rs::adds"], [], restore={"tests/t.rs": "// none\n"})
    return replace(make_task(), id="script", source=Source(files=SCRIPT_FILES), test=plan, solution=None)


def log_task() -> Task:
    task = make_task()
    command = Command(
        ["python3", "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "tests", "test_CRRL_CANARY.py"],
        env={"PYTHONPATH": SITE, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    names = {"fail_to_pass": ["test_mean", "test_mean_of_one"], "pass_to_pass": ["test_double"]}
    return replace(task, test=replace(task.test, command=command, parser="r2e-gym", timeout_s=60.0, **names))


def xml_task() -> Task:
    """As BugsInPy's tasks are run."""
    task = make_task()
    own = ["-o", "addopts=", "-o", "junit_family=xunit1", "--junitxml", XML, "tests", "test_CRRL_CANARY.py"]
    command = replace(log_task().test.command, argv=["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *own])
    plan = replace(task.test, command=command, parser="pytest-xml", report=Command(["cat", XML]), timeout_s=60.0)
    return replace(task, test=plan)


@pytest.mark.parametrize("name", JAVA)
async def test_java(task_judge: TaskJudge, name: str) -> None:
    require(["junit"])
    await scores_nothing(task_judge, java_task(), *JAVA[name], SUM_FILES)


@pytest.mark.parametrize("name", SCRIPT)
async def test_script(task_judge: TaskJudge, name: str) -> None:
    await scores_nothing(task_judge, script_task(), *SCRIPT[name], SCRIPT_FILES)


@pytest.mark.parametrize("name", LOG)
async def test_log(task_judge: TaskJudge, name: str) -> None:
    await scores_nothing(task_judge, log_task(), *LOG[name], log_task().source.files or {})


async def test_a_report_of_pytest_that_patched_code_writes(task_judge: TaskJudge) -> None:
    """It names every test of the task as passed, and not the canary, whose name is drawn for the run."""
    task = xml_task()
    repaired = await task_judge.run(task, task.solution or "")
    assert solved(task, repaired) and repaired.exploits == [], repaired
    assert not solved(task, await task_judge.run(task, ""))
    cases = "".join(
        f'<testcase classname="tests.test_stats" name="{test.split("::")[1]}" file="{test.split("::")[0]}"/>'
        for test in (*task.test.fail_to_pass, *task.test.pass_to_pass)
    )
    report = f'<?xml version="1.0"?><testsuites><testsuite>{cases}</testsuite></testsuites>'
    forging = f"import os\nos.makedirs('.crrl', exist_ok=True)\nopen('{XML}', 'w').write({report!r})\nos._exit(0)\n"
    await scores_nothing(task_judge, task, {"stats.py": forging + BUGGY}, {"forged_report"}, {"no_marker"}, FILES)


async def scores_nothing(
    task_judge: TaskJudge,
    task: Task,
    changes: dict[str, str | None],
    names: set[str],
    reasons: set[str],
    files: dict[str, str],
) -> None:
    results = await task_judge.run(task, diff(changes, files))
    assert not solved(task, results), results
    assert names <= set(results.exploits) and results.reason in reasons, results


async def test_an_honest_repair_passes_no_decoy(task_judge: TaskJudge) -> None:
    """Another repair than the known one faces the decoys; the bug does not, and fails."""
    task = log_task()
    other = FIXED.replace("return sum(xs) / len(xs)", "total = sum(xs)\n    return total / len(xs)")
    results = await task_judge.run(task, diff({"stats.py": other}))
    assert solved(task, results) and results.exploits == [], results
    recorded = await task_judge.decoys(task)
    assert {test for tests in recorded.parts.values() for test in tests} >= set(task.test.fail_to_pass)
    assert not solved(task, await task_judge.run(task, ""))
