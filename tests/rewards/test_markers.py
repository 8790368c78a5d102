"""A suite that dies half-way, or a report forged before the end, is told: by each parser's canary, or by decoys alone,
which the task's admission says."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

from dataclasses import replace

import pytest
from judge_kit import BUGGY, FILES, diff, make_task
from toolchain_kit import require

from crrl.admission.admission import admit
from crrl.label import Label
from crrl.rewards import canaries, homes, parsers
from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora import gitbug_java, r2e_gym, swe_rows
from crrl.tasks.files import PARSERS
from crrl.tasks.setup.toolchains import JUNIT

SUM = (
    "package sums;\n\npublic class Sum {\n    public static int sum(int a, int b) {\n        return a - b;\n    }\n}\n"
)
SUM_TEST = """package sums;

import static org.junit.Assert.assertEquals;
import org.junit.Test;

public class SumTest {
    @Test public void adds() { assertEquals(7, Sum.sum(3, 4)); }
    @Test public void addsNothing() { assertEquals(3, Sum.sum(3, 0)); }
}
"""
JAVA_FILES = {"src/main/java/sums/Sum.java": SUM, "src/test/java/sums/SumTest.java": SUM_TEST}
PLUGINS = {"compiler": "3.13.0", "resources": "3.3.1", "surefire": "3.2.5"}
PLUGIN = "<plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-{}-plugin</artifactId><version>{}</version></plugin>"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>g</groupId><artifactId>sums</artifactId>
<version>1</version><properties><maven.compiler.release>17</maven.compiler.release></properties>
<dependencies><dependency><groupId>org.junit.jupiter</groupId><artifactId>junit-jupiter</artifactId><version>5.11.4</version>
<scope>test</scope></dependency></dependencies>
<build><plugins>{"".join(PLUGIN.format(*plugin) for plugin in PLUGINS.items())}</plugins></build></project>
"""
CASES = "".join(f'<testcase name=\\"{name}\\" classname=\\"sums.SumTest\\"/>' for name in ("adds", "addsNothing"))
FORGE = (
    '    static { try { java.nio.file.Path at = java.nio.file.Path.of("target/surefire-reports"); java.nio.file.Files.createDirectories(at); '
    f'java.nio.file.Files.writeString(at.resolve("TEST-sums.SumTest.xml"), "<?xml version=\\"1.0\\"?><testsuite>{CASES}</testsuite>"); '
    "} catch (Exception e) { } Runtime.getRuntime().halt(0); }\n"
)


def surefire_task() -> Task:
    """JUnit's console in the place of surefire: no plugin needs to be at hand."""
    run = f"java -cp .crrl/classes:{JUNIT} org.junit.platform.console.ConsoleLauncher --disable-banner --details=none"
    plan = TestPlan(
        command=Command([*run.split(), "--reports-dir=target/surefire-reports", "--scan-class-path=.crrl/classes"]),
        parser="surefire",
        fail_to_pass=["sums.SumTest::adds"],
        pass_to_pass=["sums.SumTest::addsNothing"],
        restore={"src/test/java/sums/SumTest.java": SUM_TEST},
        timeout_s=120.0,
        needs=["junit"],
        build=[Command(["sh", "-c", f"javac -d .crrl/classes -cp {JUNIT} $(find src -name '*.java')"])],
        report=Command(["sh", "-c", "cat target/surefire-reports/TEST-*.xml"]),
    )
    fixed = diff({"src/main/java/sums/Sum.java": SUM.replace("a - b", "a + b")}, JAVA_FILES)
    return replace(make_task(), id="sums", language="java", source=Source(files=JAVA_FILES), test=plan, solution=fixed)


async def told(judge: TaskJudge, task: Task, patch: str) -> None:
    """The known fix is solved, and a forged report is neither solved nor taken for one."""
    repaired = await judge.run(task, task.solution or "")
    assert solved(task, repaired) and repaired.exploits == [], repaired
    results = await judge.run(task, patch)
    assert not solved(task, results) and results.reason == "no_marker", results
    assert "forged_report" in results.exploits, results


async def test_surefire(task_judge: TaskJudge) -> None:
    require(["junit"])
    forged = {"src/main/java/sums/Sum.java": SUM.replace("public class Sum {\n", f"public class Sum {{\n{FORGE}")}
    await told(task_judge, surefire_task(), diff(forged, JAVA_FILES))


@pytest.mark.corpora
@pytest.mark.timeout(600)
async def test_surefire_by_maven(task_judge: TaskJudge) -> None:
    """As tasks of GitBug-Java are run. Its local repository needs the plugins and JUnit of `POM`."""
    require(["maven"])
    jupiter = SUM_TEST.replace("org.junit.Assert.", "org.junit.jupiter.api.Assertions.")
    tests = {"src/test/java/sums/SumTest.java": jupiter.replace("org.junit.Test", "org.junit.jupiter.api.Test")}
    files = JAVA_FILES | tests | {"pom.xml": POM}
    task = surefire_task()
    built = gitbug_java._built("maven", task.test.fail_to_pass, task.test.fail_to_pass + task.test.pass_to_pass)
    task = replace(task, source=Source(files=files), test=replace(built, restore=tests))
    forged = {"src/main/java/sums/Sum.java": SUM.replace("public class Sum {\n", f"public class Sum {{\n{FORGE}")}
    await told(task_judge, task, diff(forged, files))


PASSED = [f"PASSED tests/test_stats.py::{test}" for test in ("test_mean", "test_mean_of_one", "test_double")]
FORGED = (
    "import os\n\nfor fd in range(1, 20):\n    try: os.write(fd, {!r})\n    except OSError: pass\nos._exit(0)\n" + BUGGY
)


def summary_task() -> Task:
    """As R2E-Gym's tasks are run: by a script of the repository, graded from pytest's short summary."""
    task = make_task()
    script = (
        f"PYTHONPATH={SITE}:. PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python3 -m pytest -q -rA -p no:cacheprovider tests\n"
    )
    own = r2e_gym.SCRIPT.partition("&& ")[2]
    names = {"fail_to_pass": ["test_mean", "test_mean_of_one"], "pass_to_pass": ["test_double"]}
    plan = replace(task.test, command=Command(["bash", "-c", own]), parser="r2e-gym", timeout_s=60.0, **names)
    return replace(task, test=replace(plan, restore=plan.restore | {"run_tests.sh": script}))


async def test_a_summary_of_pytest(task_judge: TaskJudge) -> None:
    summary = "\n".join(["=== short test summary info ===", *PASSED, ""])
    await told(task_judge, summary_task(), diff({"stats.py": FORGED.format(summary.encode())}))


async def test_a_log_that_the_official_package_grades(task_judge: TaskJudge) -> None:
    pytest.importorskip("swebench", reason="the extra [swebench] is not installed")
    task = make_task()
    plan = swe_rows.commanded(task.test, "own/stats", "", command="python3 -m pytest -q -rA", activate="")
    env = {"PYTHONPATH": f"{SITE}:.", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    task = replace(task, test=replace(plan, command=replace(plan.command, env=env), timeout_s=60.0))
    await told(task_judge, task, diff({"stats.py": FORGED.format("\n".join([*PASSED, ""]).encode())}))


async def test_a_suite_that_dies_half_way(task_judge: TaskJudge) -> None:
    """After its first test has passed: the others are missing, and the summary with them."""
    dying = BUGGY.replace("return sum(xs) / (len(xs) + 1)", "return 2 if len(xs) == 3 else __import__('os')._exit(0)")
    results = await task_judge.run(summary_task(), diff({"stats.py": dying}))
    assert results.reason == "no_marker" and set(results.tests.values()) == {"missing"}, results


def test_a_canary_of_surefire_runs_where_the_tests_beside_it_do() -> None:
    jupiter = "package a.b;\nimport org.junit.jupiter.api.Test;\nclass FooTests { @Test void x() {} }\n"
    old = "package c;\npublic class TestBar extends junit.framework.TestCase { public void testX() {} }\n"
    made = canaries.surefire_canary(
        "Canary12",
        {
            "one/src/test/java/a/b/Base.java": "package a.b;\nimport org.junit.jupiter.api.Test;\nabstract class Base {}\n",
            "one/src/test/java/a/b/FooTests.java": jupiter,
            "two/src/test/java/c/TestBar.java": old,
            "src/test/java/d/QuxIT.java": "package d;\nimport org.testng.annotations.Test;\npublic class QuxIT {}\n",
            "src/test/java/d/Util.java": "package d;\nclass Util {}\n",
        },
    )
    one, two, root = (f"{homes.tag(module)}Canary12" for module in ("one/", "two/", ""))
    assert sorted(made) == [
        f"one/src/test/java/a/b/Foo{one}Tests.java",
        f"src/test/java/d/Qux{root}IT.java",
        f"two/src/test/java/c/Test{two}Bar.java",
    ]
    assert "package a.b;" in made[f"one/src/test/java/a/b/Foo{one}Tests.java"]
    assert "extends junit.framework.TestCase" in made[f"two/src/test/java/c/Test{two}Bar.java"]
    with pytest.raises(ValueError, match="src/test/java"):
        canaries.surefire_canary("Canary12", {"src/test/java/d/Util.java": "class Util {}\n"})


def test_every_module_has_a_canary_of_its_own() -> None:
    whole = [("a.FooCanary12Test::passes", "passed"), ("a.FooCanary12Test::fails", "failed")]
    other = [("b.BarCanary12Test::passes", "passed"), ("b.BarCanary12Test::fails", "error")]
    tests = [("a.FooTest::x", "passed")]
    assert canaries.ended([canaries.Suite("", [*whole, *other, *tests])], "Canary12") == [canaries.Suite("", tests)]
    assert canaries.ended([canaries.Suite("", [*whole, other[0], *tests])], "Canary12") == []


WITHOUT = {"defects4j", "swe-bench-pro", "multi-swe-bench", "swebench:parse_log_django:pass_and_fail"}


@pytest.mark.parametrize("parser", [*(p for p in PARSERS if p != "label"), "swebench:parse_log_django:pass_and_fail"])
def test_whose_reports_have_no_marker_is_said(parser: str) -> None:
    plan = TestPlan(Command(["./run"]), parser, ["a"], [])
    assert bool(parsers.unmarked(plan)) == (parser in WITHOUT)


def test_where_nothing_runs_no_marker_is_missing() -> None:
    label = Label(True, ["CWE-78"])
    assert parsers.unmarked(TestPlan(Command([]), "label", ["label"], [], label=label)) == ""


async def test_admission_says_where_there_is_none(task_judge: TaskJudge) -> None:
    task = make_task()
    script = "import json, stats\nout = []\nfor name, ok in (('mean', stats.mean([7]) == 7), ('double', stats.double(4) == 8)):\n"
    script += (
        "    out.append({'name': name, 'status': 'PASSED' if ok else 'FAILED'})\nprint(json.dumps({'tests': out}))\n"
    )
    plan = TestPlan(Command(["python3", "run.py"]), "swe-bench-pro", ["mean"], ["double"], restore={"run.py": script})
    admission = await admit(replace(task, test=plan), task_judge, times=1)
    assert admission.status == "admitted" and "own tool" in admission.no_marker, admission
    assert admission.shown()["no_marker"] == admission.no_marker
    assert (await admit(make_task(FILES), task_judge, times=1)).no_marker == ""
