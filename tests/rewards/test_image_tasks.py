"""A task with an image, as SWE-bench's rows are: admitted and judged in a container of it.

`make test-containers`; without an engine each is skipped, with the reason.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_kit import BUGGY, IMAGE, drop_image, engine_or_skip, image_task, put_image

from crrl.cli.main import main
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.sandbox.containers.engine import ContainerEngine
from crrl.task import Source
from crrl.tasks.diffs import between
from crrl.tasks.files import load_tasks, write_tasks

pytest.importorskip("swebench", reason="grading needs the extra [swebench]")
pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["podman", "docker"])
def engine(request: pytest.FixtureRequest) -> Iterator[ContainerEngine]:
    engine = engine_or_skip(request.param)
    put_image(engine)
    yield engine
    drop_image(engine, IMAGE)


@pytest.fixture
def images(engine: ContainerEngine) -> str:
    return engine.name


def test_it_is_admitted(
    engine: ContainerEngine, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty patch fails, the fix passes; the file of admitted tasks is what training takes."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    file, out = tmp_path / "task.jsonl", tmp_path / "out.jsonl"
    broken = dataclasses.replace(image_task(), id="no-fix", solution=between("calc.py", BUGGY, BUGGY + "# no\n"))
    missing = dataclasses.replace(image_task(), id="no-image", source=Source(image="no/such:one", workdir="/testbed"))
    write_tasks(file, [image_task(), broken, missing])
    assert main(["tasks", "check", str(file), "times=1", f"out={out}", "--json"]) == 1
    rows = {row["id"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    good = rows["owner__calc-1"]
    assert (good["status"], good["empty"], good["fixed"], good["excluded"]) == ("admitted", 1, 1, [])
    assert rows["no-fix"]["status"] == "broken" and rows["no-image"]["status"] == "unavailable"
    assert "needs the image no/such:one" in rows["no-image"]["reasons"][0]
    assert [task.id for task in load_tasks(out)[0]] == ["owner__calc-1"]


async def test_verdicts(task_judge: TaskJudge) -> None:
    task = image_task()
    right, wrong = (
        between("calc.py", BUGGY, "def add(*n):\n    return sum(n)\n"),
        between("calc.py", BUGGY, "add = max\n"),
    )
    assert solved(task, await task_judge.run(task, right)) and not solved(task, await task_judge.run(task, wrong))
    ending = between("calc.py", BUGGY, "import time\ntime.sleep(100)\n")
    quick = dataclasses.replace(task, test=dataclasses.replace(task.test, timeout_s=2.0))
    assert (await task_judge.run(quick, ending)).reason == "timeout"
