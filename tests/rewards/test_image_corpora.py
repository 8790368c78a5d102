"""What the loaders of SWE-bench Pro, SWE-smith and R2E-Gym make of a row, in an image that is laid out as theirs are.

No real image of these corpora could be had where this was written. `make test-containers`; without an engine each is
skipped, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from container_kit import BUGGY, CORPORA_IMAGE, FIXED, TEST, drop_image, engine_or_skip, history, put_image

from crrl.errors import CrrlError
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.sandbox.api import Box, Spec
from crrl.sandbox.by_image import ByImage
from crrl.sandbox.containers.engine import ContainerEngine
from crrl.task import Task
from crrl.tasks.corpora import r2e_gym, swe_bench_pro, swe_smith
from crrl.tasks.diffs import between

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
PARSER = """import json, sys
lines = [line.split() for line in open(sys.argv[1]) if line.startswith(("PASSED", "FAILED"))]
json.dump({"tests": [{"name": line[1], "status": line[0]} for line in lines]}, open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module", params=["podman", "docker"])
def engine(request: pytest.FixtureRequest) -> Iterator[ContainerEngine]:
    engine = engine_or_skip(request.param)
    put_image(engine, CORPORA_IMAGE)
    yield engine
    drop_image(engine, CORPORA_IMAGE)


@pytest.fixture
def images(engine: ContainerEngine) -> str:
    return engine.name


def in_our_image(task: Task, **changed: Any) -> Task:
    return replace(task, source=replace(task.source, image=CORPORA_IMAGE), **changed)


async def sh(box: Box, line: str) -> str:
    return (await box.exec(["bash", "-c", line], timeout_s=60)).output


async def judged(task_judge: TaskJudge, task: Task) -> tuple[bool, bool]:
    """(solved by nothing, solved by the known fix)."""
    assert task.solution is not None
    results = [await task_judge.run(task, patch) for patch in ("", task.solution)]
    assert {result.reason for result in results} == {"complete"}, [result.output for result in results]
    assert all(status != "missing" for result in results for status in result.tests.values())
    return solved(task, results[0]), solved(task, results[1])


async def test_swe_bench_pro(boxes: ByImage, task_judge: TaskJudge, tmp_path: Path) -> None:
    """The tests come out of the image's history, which no box has."""
    _, base, fix = history()
    row = {
        "instance_id": "instance_owner__calc-1",
        "repo": "owner/calc",
        "base_commit": base,
        "patch": between("calc.py", BUGGY, FIXED),
        "problem_statement": "add(2, 2) is 0",
        "fail_to_pass": "['test_calc.py::test_add']",
        "pass_to_pass": "['test_calc.py::test_zero']",
        "before_repo_set_cmd": f"git reset --hard {base}\ngit clean -fd \ngit checkout {fix} -- test_calc.py",
        "selected_test_files_to_run": "['test_calc.py']",
        "dockerhub_tag": "tag",
    }
    scripts = tmp_path / "instance_owner__calc-1"
    scripts.mkdir()
    (scripts / "run_script.sh").write_text("cat /app/$1 >&2\npython3 runner.py\n")
    (scripts / "parser.py").write_text(PARSER)
    task = in_our_image(swe_bench_pro.convert(row, "test", tmp_path))
    box = await boxes.start(Spec(await boxes.prepare(task.source)))
    assert await sh(box, "cat test_calc.py") == TEST
    assert "bad object" in await sh(box, f"git show {fix}")
    assert await sh(box, "grep -rlsF 'def test_add' /app /testbed /opt") == ""
    await box.close()
    assert await judged(task_judge, task) == (False, True)
    for restored, said in (
        (("test_calc.py", "0" * 40), "tests cannot be taken from its history"),
        ((".", fix), "no relative path below the workspace"),
    ):
        with pytest.raises((CrrlError, ValueError), match=said):
            await task_judge.run(replace(task, test=replace(task.test, restore_from=dict([restored]))), "")


async def test_swe_smith(boxes: ByImage, task_judge: TaskJudge) -> None:
    """The image has the tree before the bug: the agent sees the bug, and its reverse is the repair."""
    pytest.importorskip("swebench", reason="grading needs the extra [swebench]")
    bug = BUGGY.replace("a - b", "a - b - 1")
    row = {
        "instance_id": "owner__calc.0a1b2c3d.func_basic__1",
        "repo": "swesmith/owner__calc.0a1b2c3d",
        "patch": between("calc.py", BUGGY, bug),
        "base_commit": "d" * 40,  # of a branch that is not in the image
        "image_name": "swesmith.x86_64.owner__calc.0a1b2c3d",
        "problem_statement": "add(0, 0) is -1",
        "FAIL_TO_PASS": ["test_calc.py::test_zero"],
        "PASS_TO_PASS": [],
    }
    task = in_our_image(swe_smith.convert(row, "train"))
    box = await boxes.start(Spec(await boxes.prepare(task.source)))
    assert await sh(box, "cat calc.py; git status -s -uno") == bug
    assert await box.patch() == ""
    await box.close()
    assert await judged(task_judge, task) == (False, True)


async def test_r2e_gym(boxes: ByImage, task_judge: TaskJudge) -> None:
    """The hidden tests are in the image: for the judge, not for the agent."""
    file = {"header": {"file": {"path": "calc.py"}}, "old_file_content": BUGGY, "new_file_content": FIXED}
    before = "PASSED r2e_tests/test_1.py::test_zero\nFAILED r2e_tests/test_1.py::test_add\n"
    row = {
        "repo_name": "calc",
        "docker_image": "owner/calc",
        "commit_hash": history()[2],
        "problem_statement": "add(2, 2) is 0",
        "parsed_commit_content": json.dumps({"file_diffs": [file]}),
        "execution_result_content": json.dumps({"old_commit_res_stdout": before}),
        "expected_output_json": json.dumps({"test_add": "PASSED", "test_zero": "PASSED"}),
    }
    task = in_our_image(r2e_gym.convert(row, "train"))
    root = await boxes.prepare(task.source)
    box = await boxes.start(Spec(root))
    assert await sh(box, "ls -d /r2e_tests; ls run_tests.sh") == (
        "ls: cannot access '/r2e_tests': No such file or directory\nrun_tests.sh\n"
    )
    assert await box.patch() == ""
    await box.close()
    assert await judged(task_judge, task) == (False, True)
