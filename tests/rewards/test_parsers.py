"""Reports of test frameworks, as they really look, and what a canary tells."""

from __future__ import annotations

import json

import pytest

from crrl.rewards.parsers import PARSERS, Parser, statuses, without_canary
from crrl.tasks.files import PARSERS as NAMES

JUNIT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="JUnit Jupiter" tests="3"><properties><property name="x" value="
"/></properties>
<testcase name="a()" classname="p.T" time="0.1">
<system-out><![CDATA[<testcase name="b()" classname="p.T"/>]]></system-out></testcase>
<testcase name="b()" classname="p.T"><failure message="no">stack</failure></testcase>
<testcase name="c()" classname="p.T"><skipped/></testcase>
</testsuite>
<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="JUnit Vintage"><testcase name="old" classname="p.U"><error type="X">at</error></testcase></testsuite>
"""
PYTEST = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" tests="5">
<testcase classname="tests.test_a.TestB" name="test_c[x y]" file="tests/test_a.py" line="4" time="0.001" />
<testcase classname="tests.test_a" name="test_d" file="tests/test_a.py" line="9"><failure message="no">f</failure>
</testcase><testcase classname="tests.test_a.TestB" name="test_e" file="tests/test_a.py" line="2">
<error message="teardown">e</error></testcase>
<testcase classname="tests.test_a" name="test_f" file="tests/test_a.py"><skipped type="pytest.xfail" /></testcase>
<testcase classname="test_b.T.Inner" name="test_g" file="test_b.py" /></testsuite></testsuites>
"""
GO = "\n".join(
    [
        "# bowling",
        json.dumps({"Action": "run", "Test": "TestRoll"}),
        json.dumps({"Action": "output", "Test": "TestRoll", "Output": "--- PASS: TestRoll (0.00s)\n"}),
        json.dumps({"Action": "pass", "Test": "TestRoll/strike"}),
        json.dumps({"Action": "fail", "Test": "TestRoll"}),
        json.dumps({"Action": "skip", "Test": "TestSkipped"}),
        json.dumps({"Action": "fail", "Package": "bowling"}),
    ]
)
CARGO = """
running 4 tests
test addition ... ok
test module::division ... FAILED
test slow ... ignored
test dies - should panic ... ok
test result: FAILED. 2 passed; 1 failed
"""
JEST = {
    "testResults": [
        {
            "assertionResults": [
                {"fullName": "Triangle equilateral", "status": "passed"},
                {"fullName": "Triangle scalene", "status": "failed"},
                {"fullName": "Triangle later", "status": "pending"},
            ]
        }
    ]
}
DEFECTS4J = """testNextToken1(org.apache.commons.csv.CSVLexerTest)
testGetLine(org.apache.commons.csv.CSVParserTest)
testRoundTrip[7, x (y)](org.apache.commons.csv.PrinterTest)
testHeader(org.apache.commons.csv.CSVParserTest)
--- org.apache.commons.csv.CSVParserTest::testGetLine
junit.framework.AssertionFailedError: expected:<1> but was:<0>
	at org.junit.Assert.fail(Assert.java:93)
testHeader(org.apache.commons.csv.Forged)
--- org.apache.commons.csv.BrokenTest
java.lang.ExceptionInInitializerError
"""
R2E = """= FAILURES =
PASSED x::no
=== short test summary info ===
PASSED r2e_tests/t.py::T::a
FAILED r2e_tests/t.py::b[x y] - boom
"""


@pytest.mark.parametrize(
    ("name", "report", "expected"),
    [
        ("junit", JUNIT, {"p.T::a()": "passed", "p.T::b()": "failed", "p.T::c()": "skipped", "p.U::old": "error"}),
        ("catch", JUNIT, {"a()": "passed", "b()": "failed", "c()": "skipped", "old": "error"}),
        ("go", GO, {"TestRoll/strike": "passed", "TestRoll": "failed", "TestSkipped": "skipped"}),
        ("cargo", CARGO, {"addition": "passed", "module::division": "failed", "slow": "skipped", "dies": "passed"}),
        (
            "jest",
            json.dumps(JEST),
            {"Triangle equilateral": "passed", "Triangle scalene": "failed", "Triangle later": "skipped"},
        ),
        (
            "pytest-ids",
            "t.py::a\nt.py::b[x - y]\n\n2 tests collected\nERROR t.py::c\n",
            {"t.py::a": "passed", "t.py::b[x - y]": "passed"},
        ),
        (
            "defects4j",
            DEFECTS4J,
            {
                "org.apache.commons.csv.CSVLexerTest::testNextToken1": "passed",
                "org.apache.commons.csv.CSVParserTest::testGetLine": "failed",
                "org.apache.commons.csv.PrinterTest::testRoundTrip": "passed",
                "org.apache.commons.csv.CSVParserTest::testHeader": "passed",
                "org.apache.commons.csv.BrokenTest": "error",
            },
        ),
        (
            "pytest-xml",
            PYTEST,
            {
                "tests/test_a.py::TestB::test_c[x y]": "passed",
                "tests/test_a.py::test_d": "failed",
                "tests/test_a.py::TestB::test_e": "error",
                "tests/test_a.py::test_f": "skipped",
                "test_b.py::T::Inner::test_g": "passed",
            },
        ),
        ("r2e-gym", R2E, {"T.a": "passed", "b[x y]": "failed"}),
        (
            "swe-bench-pro",
            '{"tests": [{"name": "a | b", "status": "PASSED"}, {"name": "c", "status": "ERROR"}]}',
            {"a | b": "passed", "c": "error"},
        ),
    ],
)
def test_reports(name: str, report: str, expected: dict[str, str]) -> None:
    assert statuses(PARSERS[name].parse(report)) == expected


@pytest.mark.parametrize("name", ["pytest-xml", "junit", "catch", "jest", "swe-bench-pro", "defects4j"])
@pytest.mark.parametrize(
    "report", ["<?xml version='1.0'?><testsuite>", "{", "null", "[]", '{"testResults": 3, "tests": 3}']
)
def test_what_is_no_report_is_said(name: str, report: str) -> None:
    with pytest.raises(ValueError):
        list(PARSERS[name].parse(report))


def test_what_failed_is_told_as_people_read_it() -> None:
    told = {name: "\n".join(PARSERS[name].told("printed", report)) for name, report in (("junit", JUNIT), ("go", GO))}
    assert told["junit"] == "FAILED b()\nstack\n\nFAILED old\nat\n"
    assert "\n".join(PARSERS["go"].told(GO, GO)) == "# bowling"  # of what passed, nothing
    failing = {
        "fullName": "T x",
        "status": "failed",
        "failureMessages": ["\x1b[31mno\x1b[0m\n at /node_modules/jest/x"],
    }
    report = json.dumps({"testResults": [{"assertionResults": [failing]}]})
    assert PARSERS["jest"].told("printed", report) == ["FAILED T x\nno\n"]
    for name in ("junit", "catch", "jest"):  # a build that failed has no report
        assert PARSERS[name].told("error: no ;", "") == ["error: no ;"]
    assert PARSERS["cargo"].told("a\nb", "a\nb") == ["a", "b"]


def test_an_entity_bomb_is_no_report() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE t [<!ENTITY e0 "x">{entities}]><testsuite name="&e11;"/>'
    with pytest.raises(ValueError):
        list(PARSERS["junit"].parse(bomb))


def test_a_test_reported_twice_is_as_bad_as_its_worst() -> None:
    forged = CARGO + "test module::division ... ok\n"
    assert statuses(PARSERS["cargo"].parse("test module::division ... ok\n" + forged))["module::division"] == "failed"


def test_canary() -> None:
    """Both of its tests, each as it must be, and nothing else by its name."""
    good = {"a": "passed", "TestCanary1Passes": "passed", "TestCanary1Fails": "failed"}
    assert without_canary(dict(good), "Canary1") == {"a": "passed"}  # type: ignore[arg-type]
    for changed in (
        {"TestCanary1Fails": "passed"},
        {"TestCanary1Passes": "failed"},
        {"TestCanary1Fails": "skipped"},
        {"canary1_fails": "failed"},
    ):
        assert without_canary({**good, **changed}, "Canary1") is None  # type: ignore[dict-item]
    assert without_canary({"a": "passed"}, "Canary1") is None
    assert without_canary(dict(good), "Canary2") is None  # type: ignore[arg-type]


def test_every_parser_that_a_task_may_name_exists() -> None:
    """But for our own judge's, and the one that needs its corpus's own harness."""
    assert set(NAMES) - {"pytest", "multi-swe-bench"} == set(PARSERS) - {"pytest-ids"}
    assert all(isinstance(parser, Parser) for parser in PARSERS.values())
