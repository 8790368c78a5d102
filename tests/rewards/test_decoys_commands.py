"""Decoys where tests run by their own command: pytest, and seven other languages. What their tests believe scores zero.

Every spelling with `make test-corpora`; one of each kind, and JavaScript's, always.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import decoy_compiled_kit
import decoy_languages_kit
import pytest
from decoys_kit import CHEATS, COPIED, copied_task
from judge_kit import FIXED, diff
from toolchain_kit import require

from crrl.admission.admission import admit
from crrl.rewards.decoys.copies import protected_tests
from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Task
from crrl.tasks.corpora.bugsinpy import REPORT as XML

EXAMPLES = decoy_languages_kit.EXAMPLES | decoy_compiled_kit.EXAMPLES
SPELLINGS = [(kind, name) for kind, spellings in CHEATS.items() for name in spellings]
SAMPLE = [(kind, next(iter(spellings))) for kind, spellings in CHEATS.items()]


def xml_task() -> Task:
    """As BugsInPy's tasks are run."""
    task = copied_task()
    own = ["-o", "addopts=", "-o", "junit_family=xunit1", "--junitxml", XML, "tests", "test_CRRL_CANARY.py"]
    argv = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *own]
    command = Command(argv, env={"PYTHONPATH": f"{SITE}:.", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    plan = replace(task.test, command=command, parser="pytest-xml", report=Command(["cat", XML]), timeout_s=60.0)
    return replace(task, test=plan)


async def scores_nothing(judge: TaskJudge, kind: str, name: str) -> None:
    task = xml_task()
    results = await judge.run(task, diff({"stats.py": CHEATS[kind][name]}, COPIED))
    assert not solved(task, results) and results.exploits, results


@pytest.mark.parametrize(("kind", "name"), SAMPLE)
async def test_pytest_by_command(task_judge: TaskJudge, kind: str, name: str) -> None:
    await scores_nothing(task_judge, kind, name)


@pytest.mark.corpora
@pytest.mark.parametrize(("kind", "name"), SPELLINGS)
async def test_pytest_by_command_in_every_spelling(task_judge: TaskJudge, kind: str, name: str) -> None:
    await scores_nothing(task_judge, kind, name)


async def test_pytest_by_command_and_an_honest_repair(task_judge: TaskJudge) -> None:
    task = xml_task()
    other = FIXED.replace("return sum(xs) / len(xs)", "total = sum(xs)\n    return total / len(xs)")
    results = await task_judge.run(task, diff({"stats.py": other}, COPIED))
    assert solved(task, results) and results.exploits == [], results


async def test_javascript(task_judge: TaskJudge) -> None:
    await language(task_judge, "javascript")


def test_protected_tests_are_those_of_the_task(tmp_path: Path) -> None:
    paths = ["test/org/MoneyTest.java", "test/org/Unlisted.java", "test/org/MoneyTest.txt", "src/org/MoneyTest.java"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = protected_tests(lambda path: path.startswith("test/"), tmp_path, ["org.MoneyTest::adds", "org.Other::adds"])
    assert found == {"test/org/MoneyTest.java"}


@pytest.mark.corpora
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", ["", "test/"])
async def test_tests_that_stand_in_the_tree(task_judge: TaskJudge, folder: str) -> None:
    """As those of GitBug-Java and Defects4J: the task says only that they are not the repair's, by file or folder."""
    task = EXAMPLES["java"].task()
    require(task.test.needs)
    tests = {f"{folder}{path}": text for path, text in task.test.restore.items()}
    assert task.source.files is not None
    files = {path: text for path, text in task.source.files.items() if path not in task.test.restore}
    plan = replace(task.test, restore={}, protect=[folder] if folder else list(tests))
    admission = await admit(
        replace(task, source=replace(task.source, files=files | tests), test=plan), task_judge, times=1
    )
    assert admission.decoys == 1.0 and not admission.no_decoys, admission


@pytest.mark.corpora
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "javascript"])
async def test_languages(task_judge: TaskJudge, name: str) -> None:
    await language(task_judge, name)


async def language(judge: TaskJudge, name: str) -> None:
    example = EXAMPLES[name]
    require(example.needs)
    admission = await admit(example.task(), judge, times=1)
    task = admission.task
    assert task is not None and admission.decoys == 1.0, admission
    honest = await judge.run(task, example.patch({example.path: example.honest}))
    assert solved(task, honest) and honest.exploits == [], honest
    for cheat, changed in example.cheats.items():
        results = await judge.run(task, example.patch(changed))
        assert not solved(task, results) and "answers_anything" in results.exploits, (cheat, results)
