"""Defects4J where it is installed: found, asked for the checkout, and shown to boxes without what tells the repair.

The tool of these tests is a script that does what `defects4j checkout` does to its folder; the real one runs with
`make test-corpora` where there is one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.task import Task
from crrl.tasks.corpora import find, load
from crrl.tasks.setup import own_tools, toolchains

CHECKOUT = """#!/bin/sh
[ "$1 $2 $3 $4 $5 $6" = "checkout -p Csv -v 1b -w" ] || { echo "no such bug" >&2; exit 1; }
mkdir -p "$7/.git" "$7/src"
echo "pid=Csv" > "$7/.defects4j.config"
printf 'd4j.bug.id=1\\nd4j.classes.modified=a.B\\nd4j.dir.src.tests=src/test\\nd4j.tests.trigger=a.T::x\\n' \\
    > "$7/defects4j.build.properties"
echo once >> "$(dirname "$0")/../../calls"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Defects4J of one bug."""
    folder = tmp_path / "d4j"
    csv = folder / "framework/projects/Csv"
    for name in ("patches", "trigger_tests", "relevant_tests", "modified_classes", "lib"):
        (csv / name).mkdir(parents=True)
    for part in ("bin", "core", "util", "lib"):
        (folder / "framework" / part).mkdir(exist_ok=True)
    for name in ("major", "project_repos/commons-csv.git", "framework/projects/lib"):
        (folder / name).mkdir(parents=True)
    (folder / "project_repos/README").write_text("Defects4J version 3\n")
    (csv / "Csv.build.xml").write_text("<project/>")
    (csv / "active-bugs.csv").write_text("bug.id,revision.id.buggy,revision.id.fixed\n1,aaa,bbb\n2,aaa,bbb\n")
    for number in (1, 2):
        patch = "--- a/B.java\n+++ b/B.java\n@@ -1 +1 @@\n-right\n+wrong\n"
        (csv / f"patches/{number}.src.patch").write_text(f"diff --git a/B.java b/B.java\n{patch}")
        (csv / f"trigger_tests/{number}").write_text("--- a.T::x\nAssertionError: no\n")
        (csv / f"relevant_tests/{number}").write_text("a.T\n")
    script = folder / "framework/bin/defects4j"
    script.write_text(CHECKOUT)
    script.chmod(0o755)
    monkeypatch.setenv("DEFECTS4J_HOME", str(folder))
    return folder


def task_of(home: Path, number: int = 1) -> Task:
    (task,) = load(find("defects4j"), home, ids=[f"defects4j-Csv-{number}"]).tasks
    return task


def test_its_checkout_is_the_source_and_tells_nothing_of_the_repair(home: Path, state: Path) -> None:
    task = task_of(home)
    assert (task.test.needs, task.test.parser, task.test.baseline) == (["defects4j"], "defects4j", True)
    for _ in range(2):
        source = own_tools.checked_out(task, state).source
        assert source.dir is not None and source.repo is None and source.patches == []
    folder = Path(source.dir or "")
    assert sorted(file.name for file in folder.iterdir()) == [".defects4j.config", "defects4j.build.properties", "src"]
    said = (folder / "defects4j.build.properties").read_text()
    assert said == "d4j.bug.id=1\nd4j.dir.src.tests=src/test\n"
    assert (home / "calls").read_text() == "once\n"
    settled = own_tools.checked_out(task, state)
    assert own_tools.checked_out(settled, state) is settled


def test_a_checkout_that_fails_says_why_and_leaves_nothing(home: Path, state: Path) -> None:
    with pytest.raises(CrrlError, match="no such bug"):
        own_tools.checked_out(task_of(home, 2), state)
    assert list((state / "checkouts").iterdir()) == []


def test_without_it_the_remedy_is_told(home: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(home)
    monkeypatch.delenv("DEFECTS4J_HOME")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(CrrlError, match="needs defects4j") as told:
        own_tools.checked_out(task, state)
    assert "DEFECTS4J_HOME" in told.value.remedy
    monkeypatch.setenv("PATH", f"{home}/framework/bin:/usr/bin:/bin")
    assert toolchains.defects4j(state) == home


def test_other_tasks_are_as_they_are(home: Path, state: Path) -> None:
    task = task_of(home)
    other = replace(task, test=replace(task.test, needs=["junit"]))
    assert own_tools.checked_out(other, state) is other


def test_boxes_see_the_tool_without_patches_repositories_and_what_was_modified(home: Path, state: Path) -> None:
    shown = {
        str(mount.source.relative_to(home))
        for mount in toolchains.mounts(["defects4j"], state)
        if home in mount.source.parents
    }
    assert {"framework/bin", "framework/core", "framework/lib", "framework/projects/Csv/lib"} <= shown
    assert {
        "project_repos/README",
        "framework/projects/Csv/Csv.build.xml",
        "framework/projects/Csv/relevant_tests",
    } <= shown
    told = [
        path for path in shown if "patches" in path or "modified" in path or path.endswith((".git", "_repos", "Csv"))
    ]
    assert told == []
    assert toolchains.environment(["defects4j"], state)["PATH"].startswith(f"{home}/framework/bin:")
