"""Two modules of a build with test classes, or packages, of the same full name: reports name them alike, so a test
counts only where each of the modules that have it has reported it and come to its end (`homes.py`)."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

from dataclasses import replace

import pytest
from judge_kit import make_task
from toolchain_kit import require

from crrl.rewards import canaries, homes
from crrl.rewards.canaries import Suite
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.gitbug_java import REPORT
from crrl.tasks.diffs import between
from crrl.tasks.setup.toolchains import JUNIT

ONE = "package x;\n\npublic class One {{\n    public static int one() {{ return {}; }}\n}}\n"
ONE_TEST = """package x;

import static org.junit.Assert.assertEquals;
import org.junit.Test;

public class OneTest {
    @Test public void works() { assertEquals(1, One.one()); }
}
"""
MODULE = (
    "mkdir -p {0}/target/classes && javac -nowarn -d {0}/target/classes -cp {1} $(find {0}/src -name '*.java') && "
    "java -cp {0}/target/classes:{1} org.junit.platform.console.ConsoleLauncher --disable-banner --details=none "
    "--reports-dir={0}/target/surefire-reports --scan-class-path={0}/target/classes"
)
GO_TEST = 'package x\n\nimport "testing"\n\nfunc TestOne(t *testing.T) {\n\tif One() != 1 {\n\t\tt.Fatal()\n\t}\n}\n'
GO_MOD = "module example.com/x\n\ngo 1.18\n"


def shell(line: str) -> Command:
    return Command(["sh", "-c", line], timeout_s=120.0)


def maven() -> Task:
    """Modules built one after the other, as `mvn -fae` does; JUnit's console in the place of surefire."""
    files = {f"{m}/src/main/java/x/One.java": ONE.format(n) for m, n in (("a", 1), ("b", 2))}
    tests = {f"{m}/src/test/java/x/OneTest.java": ONE_TEST for m in "ab"}
    run = shell("; ".join(MODULE.format(m, JUNIT) for m in "ab"))
    plan = TestPlan(run, "surefire", ["x.OneTest::works"], [], needs=["junit"], restore=tests, report=shell(REPORT))
    return task(files, plan, "b/src/main/java/x/One.java", "return 2;", "return 1;")


def go() -> Task:
    """Two modules of the same path, each tested in its folder."""
    files = {f"{m}/go.mod": GO_MOD for m in "ab"}
    files |= {f"{m}/x.go": f"package x\n\nfunc One() int {{ return {n} }}\n" for m, n in (("a", 1), ("b", 2))}
    tests = {f"{m}/x_test.go": GO_TEST for m in "ab"}
    run = shell("for m in a b; do (cd $m && go test -json ./...); done")
    plan = TestPlan(run, "go", ["example.com/x::TestOne"], [], needs=["go"], restore=tests)
    return task(files, plan, "b/x.go", "return 2", "return 1")


def task(files: dict[str, str], plan: TestPlan, path: str, buggy: str, right: str) -> Task:
    fixed = between(path, files[path], files[path].replace(buggy, right))
    plan = replace(plan, timeout_s=120.0)
    return replace(make_task(), id="namesakes", source=Source(files=files), test=plan, solution=fixed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("made", [pytest.param(maven, marks=pytest.mark.corpora), go])
async def test_no_module_stands_for_its_namesake(task_judge: TaskJudge, made) -> None:
    one = made()
    require(one.test.needs)
    (test,) = one.test.fail_to_pass
    repaired = await task_judge.run(one, one.solution or "")
    assert solved(one, repaired), repaired
    empty = await task_judge.run(one, "")
    assert empty.tests[test] == "failed", empty
    path = "b/src/main/java/x/One.java" if made is maven else "b/x.go"
    text = (one.source.files or {})[path]
    ends = (
        "System.exit(0); return 1;"
        if made is maven
        else 'syscall.Exit(0); return 1 }\n\nimport "syscall"\n\nfunc f() {'
    )
    for how, broken in {"does not compile": "return", "ends the process": ends}.items():
        patch = between(path, text, text.replace("return 2;" if made is maven else "return 2", broken))
        results = await task_judge.run(one, patch)
        assert results.tests[test] != "passed" and not solved(one, results), (how, results)


JAVA = {
    "a/src/test/java/x/OneTest.java": "package x;\nimport org.junit.Test;\npublic class OneTest { @Test public void both() {} @Test public void alone() {} }\n",
    "b/src/test/java/x/OneTest.java": "package x;\nimport org.junit.Test;\npublic class OneTest { @Test public void both() {} }\n",
    "c/src/test/java/x/Bare.java": "package x;\npublic class Bare extends OneTest {}\n",
}
PLACED = ["a/src/test/java/x/C.java", "b/src/test/java/x/C.java"]


def marks(module: str) -> canaries.Tests:
    own = f"x.One{homes.tag(module)}Canary12Test"
    return [(f"{own}::passes", "passed"), (f"{own}::fails", "failed")]


def kept(tests: canaries.Tests) -> list[str]:
    found = canaries.ended([Suite("", tests)], "Canary12", homes.java(JAVA, PLACED))
    return [test for suite in found for test, _ in suite.tests]


def test_a_class_in_two_modules_counts_where_both_have_reported_it() -> None:
    both, alone = ("x.OneTest::both", "passed"), ("x.OneTest::alone", "passed")
    assert kept([*marks("a/"), *marks("b/"), both, both, alone]) == ["x.OneTest::both"] * 2 + ["x.OneTest::alone"]
    assert kept([*marks("a/"), *marks("b/"), both, alone]) == ["x.OneTest::alone"]  # one of the two has not run it
    assert kept([*marks("a/"), both, both, alone]) == ["x.OneTest::alone"]  # b did not end, whoever wrote its report
    assert kept([*marks("b/"), both, both, alone]) == []
    inherited = ("x.OneTest::added", "passed")  # in neither file: both may have it
    assert kept([*marks("a/"), *marks("b/"), inherited]) == []
    assert kept([*marks("a/"), *marks("b/"), *[inherited] * 2]) == ["x.OneTest::added"] * 2
    other = ("x.Bare::both", "passed"), ("y.Made::x", "passed")  # a module without a canary; a class that no file has
    assert kept([*marks("a/"), *other]) == ["x.Bare::both", "y.Made::x"]


def test_the_modules_of_a_go_package() -> None:
    texts = {"go.mod": "module x.org/m // all\n", "m_test.go": "func TestA(", "p/q/q_test.go": "func TestA("}
    texts |= {"other/go.mod": 'module "x.org/m/p"\n', "other/q/q_test.go": "func TestA(\nfunc TestB("}
    texts |= {"lost/vendor/go.mod": "module x.org/v\n", "vendor/x_test.go": "func TestA("}
    found = homes.go(texts, ())
    assert found("x.org/m", "TestA") == {homes.tag("")}
    assert found("x.org/m/p/q", "TestA/sub case") == {homes.tag("p/q"), homes.tag("other/q")}
    assert found("x.org/m/p/q", "TestB") == {homes.tag("other/q")}
    assert found("x.org/m/p/q", "FuzzZ") == {homes.tag("p/q"), homes.tag("other/q")}
    assert found("x.org/elsewhere", "TestA") == frozenset()
