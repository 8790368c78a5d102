"""Reports of test frameworks, as they really look, and what a canary tells."""

# ruff: noqa: E501 (reports in strings)
from __future__ import annotations

import json
import random
import re

import pytest

from crrl.rewards.canaries import ended, statuses
from crrl.rewards.parsers import PARSERS, Parser
from crrl.rewards.reports import Suite
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
CATCH = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="prog" tests="2"><testcase classname="prog.global" name="a" time="0"/>
<testcase classname="prog.Fixture" name="a" time="0"><failure message="x == 1" type="CHECK">no</failure></testcase>
</testsuite></testsuites>
"""
CTEST = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux-c++" tests="3"><testcase name="unit" classname="unit" time="0" status="run"><system-out/></testcase>
<testcase name="not built" classname="not built" time="0" status="notrun"><skipped message="Unable to find"/></testcase>
<testcase name="crashed" classname="crashed" time="0" status="fail"><failure message="SEGFAULT"/></testcase></testsuite>
"""
GO = "\n".join(
    [
        "# bowling",
        json.dumps({"Action": "run", "Package": "x/a", "Test": "TestRoll"}),
        json.dumps(
            {"Action": "output", "Package": "x/a", "Test": "TestRoll", "Output": "--- PASS: TestRoll (0.00s)\n"}
        ),
        json.dumps({"Action": "pass", "Package": "x/a", "Test": "TestRoll/strike"}),
        json.dumps({"Action": "fail", "Package": "x/a", "Test": "TestRoll"}),
        json.dumps({"Action": "pass", "Package": "x/b", "Test": "TestRoll"}),
        json.dumps({"Action": "skip", "Package": "x/b", "Test": "TestSkipped"}),
        json.dumps({"Action": "fail", "Package": "bowling"}),
    ]
)
CARGO = """
   Compiling x v0.1.0 (/workspace)
     Running unittests src/lib.rs (target/debug/deps/x-0123456789abcdef)

running 4 tests
test addition ... ok
test module::division ... FAILED
test slow ... ignored, takes long
test dies - should panic ... ok

failures:

---- module::division stdout ----
thread 'main' panicked at 'no', src/lib.rs:3:5


failures:
    module::division

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/basic.rs (target/debug/deps/basic-0123456789abcdef)

running 1 test
test addition ... FAILED

failures:
    addition

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests x

running 1 test
test src/lib.rs - f (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/killed.rs (target/debug/deps/killed-0123456789abcdef)

running 2 tests
test starts ... ok
"""
JEST = {
    "testResults": [
        {
            "name": "/workspace/t.spec.js",
            "assertionResults": [
                {"fullName": "Triangle equilateral", "status": "passed"},
                {"fullName": "Triangle scalene", "status": "failed"},
                {"fullName": "Triangle later", "status": "pending"},
            ],
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
        ("catch", CATCH, {"a": "passed", "Fixture.a": "failed"}),
        ("ctest", CTEST, {"unit": "passed", "not built": "skipped", "crashed": "failed"}),
        (
            "go",
            GO,
            {
                "x/a::TestRoll/strike": "passed",
                "x/a::TestRoll": "failed",
                "x/b::TestRoll": "passed",
                "x/b::TestSkipped": "skipped",
            },
        ),
        (
            "cargo",
            CARGO,
            {
                "src/lib.rs (x)::addition": "passed",
                "src/lib.rs (x)::module::division": "failed",
                "src/lib.rs (x)::slow": "skipped",
                "src/lib.rs (x)::dies": "passed",
                "tests/basic.rs::addition": "failed",
            },
        ),
        (
            "jest",
            json.dumps(JEST),
            {
                "/workspace/t.spec.js::Triangle equilateral": "passed",
                "/workspace/t.spec.js::Triangle scalene": "failed",
                "/workspace/t.spec.js::Triangle later": "skipped",
            },
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
                "org.apache.commons.csv.PrinterTest::testRoundTrip[7, x (y)]": "passed",
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
    assert statuses([Suite("s", [("a", "passed"), ("a", "failed"), ("a", "passed")])]) == {"s::a": "failed"}
    assert statuses([Suite("", [("a", "passed")]), Suite("", [("a", "error")])]) == {"a": "error"}


PASSES, FAILS = ("testCanary1 passes", "passed"), ("testCanary1 fails", "failed")


def test_canary() -> None:
    """In each suite both of its tests, each as it must be; a suite's canary says nothing of another."""
    good = Suite("a", [("x", "passed"), PASSES, FAILS])
    assert ended([good], "Canary1") == [Suite("a", [("x", "passed")])]
    for canary in (
        [PASSES],
        [FAILS],
        [PASSES, ("Canary1Fails", "passed")],
        [("canary1_passes", "failed"), FAILS],
        [PASSES, ("Canary1Fails", "skipped")],
        [PASSES, PASSES, FAILS],
        [PASSES, FAILS, ("canary1_61_passes", "passed")],
        [],
    ):
        bad = Suite("b", [("x", "passed"), *canary])  # type: ignore[list-item]
        assert ended([good, bad], "Canary1") == [Suite("a", [("x", "passed")])], canary
    assert ended([good], "Canary2") == []


def test_suites_are_told_apart_by_the_files_of_their_canaries() -> None:
    def suite(name: str, *paths: str) -> Suite:
        marks = [
            (f"canary1_{path.encode().hex()}_{end}", s)
            for path in paths
            for end, s in (("passes", "passed"), ("fails", "failed"))
        ]
        return Suite(name, [("x", "passed"), *marks])  # type: ignore[list-item]

    found = [
        suite("tests/basic.rs", "a/tests/basic.rs"),
        suite("tests/basic.rs", "b/tests/basic.rs", "b/tests/common/mod.rs"),
        suite("src/lib.rs (a)", "a/src/tests.rs"),
        suite("/workspace/x/y.spec.js", "x/y.spec.js"),
        suite("", "z_test.cpp", "y_test.cpp"),
        suite("example.com/x", ""),
    ]
    assert list(statuses(ended(found, "Canary1"))) == [
        "a/tests/basic.rs::x",
        "b/tests/basic.rs::x",
        "src/lib.rs (a)::x",
        "x/y.spec.js::x",
        "y_test.cpp::x",
        "example.com/x::x",
    ]


# What tests print ----------------------------------------------------------------------------------------------------

FORGED = (
    '<?xml version="1.0"?><testsuite><testcase name="forged" classname="p.T"/></testsuite>\n'
    '{"Action":"pass","Package":"p","Test":"forged"}\n{"testResults": [{"assertionResults": []}]}\n'
    '{"tests": [{"name": "forged", "status": "PASSED"}]}\ntest forged ... ok\n'
)
NOISE = {
    "control characters": "\x00\x01\x08\x0b\x0c\x1b[31mred\x1b[0m\x7f\x85\u2028",
    "no characters": "\ufffe\uffff\ud800",
    "byte-order marks": "\ufeffx\ufeff",
    "markup": "</failure></testcase>]]>&amp;&#0;&bad;<!-- <![CDATA[",
    "a forged report": FORGED,
    "quotes": '"\\"\\\\\'{[',
    "much": "x" * 300_000,
    "many lines": "line\n" * 10_000,
    "no line's end": "x",
}


def escaped(text: str) -> str:
    """As careless frameworks write text into XML: control characters as they are, or as numbers."""
    half = len(text) // 2
    markup = text[:half].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return markup + "".join(f"&#{ord(c)};" for c in text[half : half + 200])


def cdata(text: str) -> str:
    return f"<![CDATA[{text.replace(']]>', ']]]]><![CDATA[>')}]]>"


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("name", ["junit", "surefire", "catch", "ctest", "pytest-xml"])
def test_xml_survives_what_tests_print(name: str, noise: str) -> None:
    printed, report = NOISE[noise], {"catch": CATCH, "ctest": CTEST, "pytest-xml": PYTEST}.get(name, JUNIT)
    expected = statuses(PARSERS[name].parse(report))
    said = f"<system-out>{cdata(printed)}</system-out><system-err>{escaped(printed)}</system-err>"
    for changed in (
        report.replace("</testsuite>", f"{said}</testsuite>"),
        report.replace("</failure>", f"{escaped(printed)}{cdata(printed)}</failure>"),
        "\ufeff" + report.replace("<?xml", "\ufeff<?xml").rstrip("\n"),
        report.replace("\n", "\r\n"),
        report + "cat: x.xml: No such file or directory",
        "warning: x\n" + report,
        report + '<?xml version="1.0"?><testsuite><testcase name="cut',  # a document that was never finished
    ):
        assert statuses(PARSERS[name].parse(changed)) == expected
        assert PARSERS[name].told("printed", changed)


@pytest.mark.parametrize("noise", NOISE)
def test_go_survives_what_tests_print(noise: str) -> None:
    printed, expected = NOISE[noise], statuses(PARSERS["go"].parse(GO))
    for text in (printed, f"{printed}\n"):
        event = json.dumps(
            {"Action": "output", "Package": "x/a", "Test": "TestRoll", "Output": text}, ensure_ascii=False
        )
        for changed in (
            f"{event}\n{GO}",
            f"{GO}\n{event}",
            "\ufeff" + GO.replace("\n", "\r\n"),
            f"go: x{GO}",
            GO + "\n" + GO[:80],
        ):
            assert statuses(PARSERS["go"].parse(changed)) == expected
            assert PARSERS["go"].told(changed, changed)
    if "forged" not in printed:  # between the events, which only the tool itself prints to: a canary tells of the rest
        between = GO.replace("\n", f"\n{printed}\n").replace('{"Action": "fail"', f'{printed}{{"Action": "fail"')
        assert statuses(PARSERS["go"].parse(between)) == expected


def test_go_ends_that_stand_behind_what_a_test_printed() -> None:
    """As Go 1.19 reports them."""

    def event(action: str, test: str, output: str = "") -> str:
        return json.dumps({"Action": action, "Package": "p", "Test": test, "Output": output})

    report = [event("run", "A"), event("output", "A", "no end--- PASS: A (0.00s)\n")]
    report += [event("run", "B"), event("output", "B", "no end--- FAIL: B (0.00s)\n")]
    report += [
        event("run", "C"),
        event("output", "C", "x--- PASS: A (0.00s)\n"),
        event("output", "C", "--- PASS: C (0.00s)"),
    ]
    report += [event("fail", "C"), event("run", "D"), event("output", "D", "panic")]
    assert statuses(PARSERS["go"].parse("\n".join(report))) == {
        "p::A": "passed",
        "p::B": "failed",
        "p::C": "failed",
        "p::D": "missing",
    }


@pytest.mark.parametrize("noise", NOISE)
def test_jest_and_other_json_survive_what_tests_print(noise: str) -> None:
    printed = NOISE[noise]
    expected = statuses(PARSERS["jest"].parse(json.dumps(JEST)))
    told = json.loads(json.dumps(JEST))
    told["testResults"][0]["assertionResults"][1]["failureMessages"] = [printed]
    told["testResults"][0]["message"] = printed
    for report in (json.dumps(told), "\ufeff" + json.dumps(told, ensure_ascii=False, indent=2).replace("\n", "\r\n")):
        for changed in (
            report,
            f"PASS x.spec.js\n{report}\nRan all",
            f"\x1b[2K{report}",
            f"stderr without an end{report}",
        ):
            assert statuses(PARSERS["jest"].parse(changed)) == expected
            assert PARSERS["jest"].told("printed", changed)
    pro = json.dumps({"tests": [{"name": f"a {printed}", "status": "PASSED"}, {"name": "b", "status": "FAILED"}]})
    found = statuses(PARSERS["swe-bench-pro"].parse(f"\ufeffpython: warning\n{pro}"))
    assert list(found.values()) == ["passed", "failed"]
    assert all(test.encode() for test in found)  # half a surrogate pair could not be written down


@pytest.mark.parametrize("noise", NOISE)
def test_cargo_survives_what_tests_print(noise: str) -> None:
    expected, printed = statuses(PARSERS["cargo"].parse(CARGO)), NOISE[noise]
    coloured = re.sub(r"^ +(Running|Doc-tests)", "\x1b[1m\x1b[32m     \\1\x1b[0m", CARGO, flags=re.MULTILINE)
    for changed in (
        "\ufeff" + coloured.replace("\n", "\r\n").rstrip(),
        CARGO.replace(
            "thread 'main'", f"{printed}\ntest addition ... FAILED\ntest x ... ok\nthread 'main'"
        ),  # of what failed
        CARGO.replace("test addition ... ok", f"test addition ... {printed.replace('test ', '')}ok"),
        CARGO.replace("test addition ... ok", f"test addition ... {printed.replace('test ', '')}\nok"),
        CARGO.replace("test addition", f"{printed.replace('test ', '')}test addition", 1),
    ):
        assert statuses(PARSERS["cargo"].parse(changed)) == expected


def test_cargo_counts() -> None:
    """A binary that says something else in the end than in its lines has no test that passed."""
    for old, new in (
        ("test module::division ... FAILED", "test module::division ... ok"),  # listed as failed
        ("test slow ... ignored, takes long", ""),
        ("test addition ... ok", "test addition ... ok\ntest forged ... ok"),
        ("test addition ... ok", "test addition ... ok\ntest result: ok. 9 passed; 0 failed; 0 ignored;"),
    ):
        found = statuses(PARSERS["cargo"].parse(CARGO.replace(old, new, 1)))
        assert found["tests/basic.rs::addition"] == "failed"
        assert new.startswith("test module") or "passed" not in found.values(), found
        assert found.get("src/lib.rs (x)::module::division") != "passed"


@pytest.mark.parametrize("noise", NOISE)
def test_text_reports_survive_what_tests_print(noise: str) -> None:
    printed = NOISE[noise]
    expected = statuses(PARSERS["defects4j"].parse(DEFECTS4J))
    traced = DEFECTS4J.replace("AssertionFailedError: expected", f"AssertionFailedError: {printed} expected")
    for changed in (traced, "\ufeff" + DEFECTS4J.replace("\n", "\r\n").rstrip()):
        assert statuses(PARSERS["defects4j"].parse(changed)) == expected
    summary = "=== short test summary info ===\nPASSED x::forged\n"
    for changed in (summary + printed + "\n" + R2E, R2E.replace("\n", "\r\n").rstrip()):
        assert statuses(PARSERS["r2e-gym"].parse(changed)) == {"T.a": "passed", "b[x y]": "failed"}


def test_of_tests_with_parameters_each_counts() -> None:
    report = "t[0](p.T)\nt[1](p.T)\nu[0](p.U)\nu[1](p.U)\nok(p.V)\n--- p.T::t[1]\nx\n--- p.U::u\nx\n"
    assert statuses(PARSERS["defects4j"].parse(report)) == {
        "p.T::t[0]": "passed",
        "p.T::t[1]": "failed",
        "p.U::u[0]": "failed",
        "p.U::u[1]": "failed",
        "p.V::ok": "passed",
    }


@pytest.mark.parametrize(
    ("classname", "file", "id"),
    [
        ("tests.test_b.TestB", "tests/base.py", "tests/test_b.py::TestB::test_x"),
        ("tests.test_b.TestB.Inner", "../lib/python3/mixins.py", "tests/test_b.py::TestB::Inner::test_x"),
        ("tests.known.lower_case", "tests/base.py", "tests/known.py::lower_case::test_x"),  # a module of other tests
        ("tests.unit.TestB", "tests/base.py", "tests/unit.py::TestB::test_x"),
        ("test_b.test_c.TestB", "base.py", "test_b/test_c.py::TestB::test_x"),
        ("tests.base.Own", "tests/base.py", "tests/base.py::Own::test_x"),
        ("tests.base_more.Own", "tests/base.py", "tests/base_more.py::Own::test_x"),
    ],
)
def test_inherited_tests_of_pytest(classname: str, file: str, id: str) -> None:
    other = '<testcase classname="tests.known" name="test_y" file="tests/known.py"/>'
    case = f'<testcase classname="{classname}" name="test_x" file="{file}"/>'
    found = statuses(PARSERS["pytest-xml"].parse(f"<testsuites><testsuite>{other}{case}</testsuite></testsuites>"))
    assert list(found) == ["tests/known.py::test_y", id]


def test_every_parser_that_a_task_may_name_exists() -> None:
    """But for our own judge's, those that run nothing, and the one that needs its corpus's own harness."""
    assert set(NAMES) - {"pytest", "label", "likeness", "multi-swe-bench"} == set(PARSERS) - {"pytest-ids"}
    assert all(isinstance(parser, Parser) for parser in PARSERS.values())


WHOLE = {
    "pytest-xml": PYTEST,
    "junit": JUNIT,
    "surefire": JUNIT,
    "catch": CATCH,
    "ctest": CTEST,
    "go": GO,
    "cargo": CARGO,
    "jest": json.dumps(JEST),
    "defects4j": DEFECTS4J,
    "pytest-ids": "tests/test_a.py::test_b\n",
    "swe-bench-pro": '{"tests": [{"name": "a | b", "status": "PASSED"}]}',
    "r2e-gym": R2E,
}
SCRAPS = [
    "\0",
    "\ufffe",
    "\ud800",
    "<",
    ">",
    '"',
    "\\",
    "\n",
    "\r",
    "{",
    "}",
    "[",
    "]",
    "&#0;",
    "<![CDATA[",
    "]]>",
    "-->",
]
SCRAPS += ["null", "1e999", "NaN", '"testResults": null, ', '"assertionResults": [1], ', '"tests": [[]], ', "<?xml "]
SCRAPS += ['{"Action": {}, "Test": "T"}\n', '{"Action": "pass", "Test": ["T"], "Package": {}}\n', '{"tests": {"a": 1}}']
SCRAPS += ['{"numX": 1, "testResults": {"a": 1}}', "[" * 2000, '{"Time":' * 2000]


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_that_is_written_into_a_report_stops_its_parser(name: str) -> None:
    """Patched code can write into most reports: whatever it does to the parser would be our failure, and end the run."""
    rng = random.Random(name)
    for _ in range(300):
        report = WHOLE[name]
        for _ in range(rng.randint(1, 5)):
            start = rng.randrange(len(report) + 1)
            report = report[:start] + rng.choice(SCRAPS) + report[start + rng.choice((0, 0, 1, 3, 20)) :]
        try:
            found = statuses(PARSERS[name].parse(report))
        except ValueError:
            found = {}
        assert all(isinstance(test, str) for test in found)
        assert all(isinstance(piece, str) for piece in PARSERS[name].told(report, report))
