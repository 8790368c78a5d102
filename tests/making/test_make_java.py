"""`crrl tasks make` on Java projects: JUnit 4 and 5, Maven's folders and a flat tree; what JUnit says of both sides."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from crrl.cli.main import main
from crrl.making.trees.hiding import without_tests
from crrl.making.trees.java import Java, _values
from crrl.making.trees.units import units
from crrl.tasks.files import load_tasks

CODE = """package sums;

import java.util.ArrayList;
import java.util.List;

/** Sums. */
public final class Sums {
    private Sums() {}

    public static int clamp(int value, int low, int high) {
        if (value < low) {
            return low;
        }
        if (value > high) {
            return high;
        }
        return value;
    }

    public static String initials(String name) {
        StringBuilder made = new StringBuilder();
        for (String part : name.trim().split(" +")) {
            if (part.isEmpty()) {
                continue;
            }
            made.append(Character.toUpperCase(part.charAt(0)));
        }
        return made.toString();
    }

    public static List<Integer> last(List<Integer> numbers, int n) {
        return new ArrayList<>(numbers.subList(Math.max(0, numbers.size() - n), numbers.size()));
    }
}
"""
JUPITER = """package sums;

import static org.junit.jupiter.api.Assertions.*;

import java.util.List;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SumsTest {
    @Nested
    class Clamping {
        @Test
        void inside() {
            assertEquals(5, Sums.clamp(5, 1, 9));
        }

        @Test
        void below() {
            assertEquals(1, Sums.clamp(-3, 1, 9), "the lower one");
        }
    }

    @ParameterizedTest
    @CsvSource({"12,9", "9,9"})
    void above(int value, int expected) {
        assertEquals(expected, Sums.clamp(value, 1, 9));
    }

    @Test
    void initials() {
        assertEquals("AL", Sums.initials("ada  lovelace"));
    }

    @Test
    void lastOnes() {
        List<Integer> numbers = List.of(1, 2, 3);
        assertEquals(List.of(2, 3), Sums.last(numbers, 2));
    }

    @Test
    void copies() {
        assertTrue(Sums.last(List.of(4), 7).equals(List.of(4)));
    }
}
"""
VINTAGE = """package sums;

import static org.junit.Assert.assertEquals;

import org.junit.Test;

public class OldTest {
    @Test
    public void oldInitials() {
        assertEquals("letters", "G", Sums.initials("grace"));
    }

    @Test
    public void oldClamp() {
        assertEquals(9, Sums.clamp(10, 1, 9));
    }
}
"""


def project(root: Path, *, flat: bool) -> Path:
    code, tests = (root, root) if flat else (root / "src/main/java/sums", root / "src/test/java/sums")
    for folder in (code, tests):
        folder.mkdir(parents=True, exist_ok=True)
    (code / "Sums.java").write_bytes(CODE.replace("\n", "\r\n").encode())
    (code / "Unused.java").write_text(CODE.replace("Sums", "Unused"))
    (tests / "SumsTest.java").write_text(JUPITER)
    (tests / "OldTest.java").write_text(VINTAGE)
    (tests / "GoneTest.java").write_text(
        "package sums;\n\nimport com.example.Gone;\n\nclass GoneTest extends Gone {}\n"
    )
    (tests / "BasedTest.java").write_text("package sums;\n\nclass BasedTest extends GoneTest {}\n")
    if not flat:
        (root / "pom.xml").write_text("<project/>\n")
    return root


@pytest.mark.corpora
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flat", [False, True])
def test_a_project_becomes_tasks(flat: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = project(tmp_path / "project", flat=flat), tmp_path / "project.jsonl"
    words = ["tasks", "make", str(root), f"out={out}", "network=no", "times=1", "limit=4"]
    assert main([*words, *(["language=java"] if flat else [])]) == 0
    said = capsys.readouterr().err
    assert "9 tests pass and cover 4 functions" in said and "without coverage" not in said  # none loads Unused
    assert "GoneTest.java: package com.example does not exist" in said and "BasedTest.java" in said
    tasks, problems = load_tasks(out)
    assert not problems and len(tasks) >= 3 and {task.language for task in tasks} == {"java"}
    for task in tasks:
        assert task.provenance["fails_by"] == "value" and "Sums." in task.issue
        assert {t.partition("::")[0].partition("$")[0] for t in task.test.fail_to_pass} <= {
            "sums.SumsTest",
            "sums.OldTest",
        }
        assert "\r\n" in (task.solution or "")


@pytest.mark.corpora
@pytest.mark.timeout(600)
def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = project(tmp_path / "project", flat=False)
    source = root / "src/main/java/sums/Sums.java"
    source.write_text(CODE.replace("import java.util.List;", "import java.util.List;\nimport com.example.Gone;"))
    assert main(["tasks", "make", str(root), f"out={tmp_path}/none.jsonl", "network=no"]) == 1
    said = capsys.readouterr().err
    assert "package com.example does not exist" in said and "dependency:copy-dependencies" in said


def test_which_methods_are_tests() -> None:
    assert [unit.name for unit in units("SumsTest.java", JUPITER.encode())] == [
        *("inside", "below", "above", "initials", "lastOnes", "copies")
    ]
    old = b"class A extends TestCase {\n  public void testSum() {}\n  private void testing() {}\n}\n"
    (unit,) = units("A.java", old)
    assert unit.name == "testSum" and unit.has("a.A::testSum()") and not unit.has("a.A::testSums")
    left = without_tests("SumsTest.java", JUPITER.encode(), {"above", "copies"}).decode()
    assert "CsvSource({" not in left and "copies()" not in left and left.count("@Test") == 4


def test_where_code_and_tests_are(tmp_path: Path) -> None:
    maven = Java(project(tmp_path / "maven", flat=False), [])
    assert maven.sources() == ["src/main/java/sums/Sums.java", "src/main/java/sums/Unused.java"]
    assert maven.files("sums.SumsTest$Clamping") == ["src/test/java/sums/SumsTest.java"]
    flat = Java(project(tmp_path / "flat", flat=True), [])
    assert flat.sources() == ["Sums.java", "Unused.java"]
    assert flat.files("sums.OldTest") == ["OldTest.java"] and flat.files("OldTest") == ["OldTest.java"]


@pytest.mark.parametrize(
    "assertion, kind, message, values",
    [
        ("assertEquals(3, f(1));", "AssertionFailedError", "expected: <3> but was: <4>", ("3", "4")),
        ("assertEquals(3, f(1), m);", "AssertionFailedError", "a ==> expected: <3> but was: <4>", ("3", "4")),
        ('assertEquals("a", f(1));', "AssertionFailedError", "expected: <a> but was: <>", ('"a"', '""')),
        ('assertEquals("a", f(1));', "AssertionFailedError", "expected: <a> but was: <null>", ('"a"', "null")),
        ('assertEquals("abc", f());', "ComparisonFailure", "expected:<a[b]c> but was:<a[x]c>", ('"abc"', '"axc"')),
        ('assertEquals("abc", f());', "ComparisonFailure", "expected:<...o [b]> but was:<...o [x]>", None),
        ("assertEquals(3, f(1));", "AssertionError", "expected:<3> but was:<4>", ("3", "4")),
        ("assertEquals(x, f(1));", "AssertionError", "three expected:<[3]> but was:<[4]>", ("[3]", "[4]")),
        ("assertArrayEquals(x, f());", "E", "array contents differ at index [0], expected: <1> but was: <2>", None),
        ("assertArrayEquals(x, f());", "E", "arrays first differed at element [0]; expected:<1> but was:<2>", None),
        ("assertTrue(f(1));", "AssertionError", "", ("true", "false")),
        ("assertFalse(f(1));", "AssertionFailedError", "expected: <false> but was: <true>", ("false", "true")),
        ("f(1);", "AssertionError", "expected:<3> but was:<4>", None),
    ],
)
def test_what_junit_says(assertion: str, kind: str, message: str, values: tuple[str, str] | None) -> None:
    data = f"class A {{\n  void a() {{\n    {assertion}\n  }}\n}}\n".encode()
    said = Element("failure", type=kind, message=message)
    assert _values(said, "A.java", data, 3) == values
