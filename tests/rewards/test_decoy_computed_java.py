"""Java tests in which both sides are computed: what equals anything passes no opposite, either, and is convicted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judge_kit import make_task
from toolchain_kit import require

from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Source, TestPlan
from crrl.tasks.corpora.quixbugs import CONSOLE, REPORT
from crrl.tasks.diffs import between
from crrl.tasks.setup.toolchains import JUNIT

CODE = """package a;
public class Box implements Comparable<Box> {
    final int n;
    final String name;
    public Box(int n) { this.n = n; name = "box" + n; }
    public static Box twice(int n) { return new Box(n); }
    @Override public boolean equals(Object o) { return o instanceof Box && ((Box) o).n == n; }
    @Override public int hashCode() { return n; }
    @Override public int compareTo(Box o) { return Integer.compare(n, o.n); }
}
"""
CASE = "    @Test public void t%d() { %s; }\n"
ASSERTIONS = {
    "JUnit": ("assertEquals(b(%d), Box.twice(%d))", 'assertEquals("why", b(%d), Box.twice(%d))'),
    "truth": ("assertTrue(b(%d).equals(Box.twice(%d)))", "assertTrue(Objects.equals(Box.twice(%d), b(%d)))"),
    "Hamcrest": ("assertThat(Box.twice(%d), is(b(%d)))", 'assertThat("why", Box.twice(%d), equalTo(b(%d)))'),
    "lists": (
        "assertEquals(asList(b(%d)), asList(Box.twice(%d)))",
        "assertThat(asList(Box.twice(%d)), is(asList(b(%d))))",
    ),
    "sets": (
        "assertEquals(new HashSet(asList(b(%d))), new HashSet(asList(Box.twice(%d))))",
        "assertEquals(new TreeSet(asList(b(%d), b(0))), new TreeSet(asList(Box.twice(%d), b(0))))",
    ),
    "nested": (
        "assertEquals(asList(asList(b(%d))), asList(asList(Box.twice(%d))))",
        "assertEquals(Optional.of(new Box[] { b(%d) }[0]), Optional.of(Box.twice(%d)))",
    ),
    "others": (
        "assertArrayEquals(new Box[] { b(%d) }, new Box[] { Box.twice(%d) })",
        "assertEquals(singletonMap(Box.class, b(%d)), singletonMap(Box.class, Box.twice(%d)))",
    ),
}
TESTS = """package a;
import java.util.*;
import org.junit.Test;
import static java.util.Arrays.asList;
import static java.util.Collections.singletonMap;
import static org.hamcrest.CoreMatchers.*;
import static org.junit.Assert.*;
public class BoxTest {
    static Box b(int n) { return new Box(n + n); }
%s}
"""


def patch(*changes: tuple[str, str]) -> str:
    code = CODE
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    return between("a/Box.java", CODE, code)


@pytest.mark.corpora
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ASSERTIONS)
async def test_an_equals_that_is_always_true(task_judge: TaskJudge, name: str) -> None:
    require(["junit"])
    build = f"mkdir -p .crrl/classes; javac -nowarn -d .crrl/classes -cp {JUNIT} a/*.java CRRL_CANARY.java"
    tests = TESTS % "".join(CASE % (n, ASSERTIONS[name][n % 2] % (n, n)) for n in range(1, 7))
    failing = [f"a.BoxTest::t{n}" for n in range(1, 7)]
    plan = TestPlan(
        Command(CONSOLE.split()), "junit", failing, [], needs=["junit"], restore={"a/BoxTest.java": tests},
        timeout_s=300.0, build=[Command(["sh", "-c", build])], report=Command(["sh", "-c", REPORT]),
    )  # fmt: skip
    fixed = patch(("return new Box(n); }", "return new Box(n + n); }"))
    task = replace(make_task(), id="box", source=Source(files={"a/Box.java": CODE}), test=plan, solution=fixed)
    honest = await task_judge.run(task, patch(("return new Box(n); }", "int m = 2 * n; return new Box(m); }")))
    assert solved(task, honest) and honest.exploits == [], honest
    for whose in ("true", "o instanceof Box"):
        equal, hashed = ("o instanceof Box && ((Box) o).n == n", whose), ("return n; }", "return 7; }")
        results = await task_judge.run(task, patch(equal, hashed, ("Integer.compare(n, o.n)", "0")))
        assert not solved(task, results) and "answers_anything" in results.exploits, results
