"""The command judge: real toolchains, real boxes; what a patch brings about is a result, and no cheat scores."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from toolchain_kit import require

from crrl.errors import CrrlError, LostError
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.quixbugs import CONSOLE, REPORT
from crrl.tasks.diffs import between
from crrl.tasks.setup.toolchains import JUNIT

BUGGY = """public class Sum {
    public static int sum(int[] xs) {
        int total = 1;
        for (int x : xs) total += x;
        return total;
    }
}
"""
FIXED = BUGGY.replace("total = 1", "total = 0")
TESTS = """import org.junit.Test;
import static org.junit.Assert.*;

public class SumTest {
    @Test(timeout = 3000) public void adds() { assertEquals(6, Sum.sum(new int[] {1, 2, 3})); }
    @Test(timeout = 3000) public void starts() { assertTrue(Sum.sum(new int[] {0}) < 2); }
}
"""
BUILD = f'javac -nowarn -d .crrl/classes -cp {JUNIT} $(find . -name "*.java")'


def java_task() -> Task:
    return Task(
        id="sum",
        corpus="test",
        split="train",
        language="java",
        family="sum",
        source=Source(files={"Sum.java": BUGGY, "tests/SumTest.java": "// hidden\n"}),
        issue="",
        test=TestPlan(
            command=Command(CONSOLE.split()),
            parser="junit",
            fail_to_pass=["SumTest::adds"],
            pass_to_pass=["SumTest::starts"],
            restore={"tests/SumTest.java": TESTS},
            needs=["junit"],
            build=[Command(["sh", "-c", BUILD])],
            report=Command(["sh", "-c", REPORT]),
        ),
        solution=between("Sum.java", BUGGY, FIXED),
    )


@pytest.fixture
def judge(task_judge: TaskJudge) -> TaskJudge:
    require(["junit"])
    return task_judge


def patched(text: str) -> str:
    return between("Sum.java", BUGGY, text)


async def test_bug_fails_fix_passes_and_is_remembered(judge: TaskJudge) -> None:
    task = java_task()
    empty = await judge.run(task, "")
    assert empty.tests == {"SumTest::adds": "failed", "SumTest::starts": "passed"} and empty.reason == "complete"
    fixed, known = await judge.run_cached(task, task.solution or "")
    assert solved(task, fixed) and not known and fixed.cpu_s > 0
    assert (await judge.run_cached(task, task.solution or ""))[1]
    assert "Canary" not in fixed.output
    assert await judge.test_ids(task) and set(await judge.test_ids(task)) == {"SumTest::adds", "SumTest::starts"}


MAIN = "static { %s }\n    public static int sum"
REAL = "public static int sum"
# What patched code may try from inside the JVM that runs its tests.
FORGED = (
    '<?xml version=\\"1.0\\"?><testsuite><testcase name=\\"adds\\" classname=\\"SumTest\\"/>'
    '<testcase name=\\"starts\\" classname=\\"SumTest\\"/></testsuite>'
)
WRITES = (
    'try { new java.io.File(".crrl/reports").mkdirs(); java.nio.file.Files.writeString('
    f'java.nio.file.Path.of(".crrl/reports/TEST-x.xml"), "{FORGED}"); }} catch (Exception e) {{}} '
)
EDITS = (
    'try { java.nio.file.Files.writeString(java.nio.file.Path.of("tests/SumTest.java"), "x"); } catch (Exception e) {} '
)
CHEATS = {
    "exits in the middle": (patched(BUGGY.replace(REAL, MAIN % "System.exit(0);")), "no_marker"),
    "writes a report and exits": (patched(BUGGY.replace(REAL, MAIN % (WRITES + "System.exit(0);"))), "no_marker"),
    "writes a report beside the real one": (patched(BUGGY.replace(REAL, MAIN % WRITES)), "complete"),
    "edits the tests while they run": (patched(FIXED.replace(REAL, MAIN % EDITS)), "tampered"),
    "does not compile": (patched(BUGGY.replace("int total", "int")), "build_failed"),
    "never ends": (patched(BUGGY.replace(REAL, MAIN % "boolean on = true; while (on) {}")), "timeout"),
    "adds tests of its own": (between("tests/SumTest.java", "// hidden\n", TESTS.replace("6,", "7,")), "complete"),
    "switches tests off": (
        between("junit-platform.properties", None, "junit.jupiter.conditions.deactivate=*\n"),
        "complete",
    ),
    "replaces the tests' folder": (between("tests", None, "a file\n"), "patch_refused"),
}


@pytest.mark.parametrize("name", CHEATS)
async def test_no_cheat_scores(judge: TaskJudge, name: str) -> None:
    patch, reason = CHEATS[name]
    task = java_task()
    if reason == "timeout":  # and JUnit does not end it, either
        endless = {"tests/SumTest.java": TESTS.replace("(timeout = 3000)", "")}
        task = replace(task, test=replace(task.test, timeout_s=8.0, restore=endless))
    results = await judge.run(task, patch)
    assert not solved(task, results), results
    assert results.reason == reason and set(results.tests) == {"SumTest::adds", "SumTest::starts"}
    if name in ("adds tests of its own", "edits the tests while they run"):
        assert "edited_tests" in results.exploits
    if name == "switches tests off":
        assert "test_configuration" in results.exploits


async def test_a_patch_that_does_not_apply_is_refused_and_links_are_made(judge: TaskJudge) -> None:
    task = java_task()
    nonsense = await judge.run(task, "nonsense")
    assert (nonsense.applied, nonsense.reason) == (False, "patch_refused")
    link = "diff --git a/out b/out\nnew file mode 120000\n--- /dev/null\n+++ b/out\n@@ -0,0 +1 @@\n+/etc\n"
    link += "\\ No newline at end of file\n"
    results = await judge.run(task, (task.solution or "") + link)
    assert solved(task, results) and results.exploits == ["symlink"]
    folder = await judge.run(task, (task.solution or "") + link.replace("out", "tests"))
    assert folder.reason == "patch_refused" and not solved(task, folder)  # the tests are in its place


async def test_files_are_deleted_moved_and_made_executable(judge: TaskJudge) -> None:
    """What the patch does to other files is there when the command runs."""
    patch = between("old.txt", "x\n", None) + between("new.txt", None, "y\n")
    patch += "diff --git a/run.sh b/run.sh\nnew file mode 100755\n--- /dev/null\n+++ b/run.sh\n@@ -0,0 +1 @@\n"
    patch += "+echo test ran ... ok\n"
    task = shell_task("[ ! -e old.txt ] && cat new.txt && ./run.sh", files={"old.txt": "x\n"}, tests=["ran"])
    results = await judge.run(task, patch)
    assert results.output.startswith("y\n") and results.reason == "no_marker"  # a shell brings no canary home


def shell_task(line: str, *, files: dict[str, str], tests: list[str]) -> Task:
    plan = TestPlan(
        Command(["sh", "-c", line]), "cargo", tests, [], restore={"tests/t.rs": "// none\n"}, timeout_s=20.0
    )
    return replace(java_task(), source=Source(files=files), test=plan)


async def test_a_lost_box_is_lost_and_a_full_disk_is_not(judge: TaskJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shell_task("dd if=/dev/zero of=big bs=1M", files={"a": "a\n"}, tests=["x"])
    assert (await judge.run(full, "")).reason in ("disk", "no_marker")
    start = judge._commands.boxes.start

    async def dying(spec: object) -> object:
        box = await start(spec)  # type: ignore[arg-type]
        await box.close()
        return box

    monkeypatch.setattr(judge._commands.boxes, "start", dying)
    with pytest.raises(LostError):
        await judge.run(shell_task("true", files={"b": "b\n"}, tests=["x"]), "")


async def test_sources_with_patches_and_tests_of_another_commit(judge: TaskJudge, tmp_path: Path) -> None:
    """The bug is a patch on a commit; the test file is the fixed commit's; a test patch adds to it. For both judges."""
    repo = tmp_path / "repo"
    repo.mkdir()

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
        return subprocess.run(command, cwd=repo, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (repo / "m.py").write_text("def f():\n    return 1\n")
    (repo / "test_m.py").write_text("def test_old():\n    pass\n")
    git("add", "-A")
    git("commit", "-qm", "one")
    base = git("rev-parse", "HEAD")
    new_tests = "from m import f\n\n\ndef test_f():\n    assert f() == 1\n"
    (repo / "test_m.py").write_text(new_tests)
    git("commit", "-qam", "two")
    bug = between("m.py", "def f():\n    return 1\n", "def f():\n    return 2\n")
    extra = between("test_extra.py", None, "from m import f\n\n\ndef test_extra():\n    assert f() < 2\n")
    task = replace(
        java_task(),
        source=Source(repo=str(repo), base_commit=base, patches=[bug]),
        test=TestPlan(
            Command(["test_m.py", "test_extra.py"]),
            "pytest",
            ["test_m.py::test_f", "test_extra.py::test_extra"],
            [],
            restore_from={"test_m.py": git("rev-parse", "HEAD")},
            test_patch=extra,
        ),
        solution=between("m.py", "def f():\n    return 2\n", "def f():\n    return 1\n"),
    )
    assert set((await judge.run(task, "")).tests.values()) == {"failed"}
    assert solved(task, await judge.run(task, task.solution or ""))
    assert sorted(await judge.test_ids(task)) == ["test_extra.py::test_extra", "test_m.py::test_f"]
    stale = replace(task, test=replace(task.test, test_patch=between("m.py", "other\n", "x\n")))
    with pytest.raises(CrrlError, match="test patch does not apply"):
        await judge.run(stale, "")


async def test_what_is_not_here_is_said_with_the_remedy(judge: TaskJudge) -> None:
    task = java_task()
    for changed, says in (
        (replace(task, source=Source(image="x/y:latest")), "needs the image x/y:latest"),
        (replace(task, test=replace(task.test, needs=["defects4j"])), "needs defects4j"),
        (replace(task, test=replace(task.test, needs=["python:no-such-package"])), "needs the Python package no-such"),
        (replace(task, test=replace(task.test, parser="multi-swe-bench")), "its own harness|the corpus's own harness"),
    ):
        with pytest.raises(CrrlError, match=says) as caught:
            await judge.run(changed, "")
        assert caught.value.remedy
