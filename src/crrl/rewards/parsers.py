"""From what a test command reported to {test id: status}, and the canary that says whether it is a report at all.

Invariant 3: patched code runs where the tests run, and can print whatever it likes or end the process. So each judged
run carries a canary under a name drawn for it: a test that passes and one that fails, put among the task's own. A run
whose report lacks either, or has one the wrong way round, has not run to its end, and counts for nothing.

`guards` are paths that steer the test framework; a repair's changes to them are left out, as those to tests are.

To add a framework: a `Parser` here, one line in `PARSERS`, and its name in `tasks/files.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from crrl.rewards.api import TestStatus

Reported = Iterable[tuple[str, TestStatus]]
CANARY = "CRRL_CANARY"
"""In a task's commands this word stands for the canary's name."""
WORST: list[TestStatus] = ["error", "failed", "missing", "skipped", "passed"]


@dataclass(frozen=True)
class Parser:
    """Args:
    parse: report -> (test id, status), as they come; raises ValueError where it is no such report.
    canary: (its name, path -> text of the restored tests) -> path -> text of what is put there; None: there is none.
    guards: paths, or None.
    told: (what the commands printed, report) -> what failed, as people read it, in pieces: lines, or a test each.
    """

    parse: Callable[[str], Reported]
    canary: Callable[[str, Mapping[str, str]], dict[str, str]] | None = None
    guards: re.Pattern[str] | None = None
    told: Callable[[str, str], list[str]] = lambda output, report: output.splitlines()


def statuses(reported: Reported) -> dict[str, TestStatus]:
    """One status a test: a test reported twice is as bad as its worst."""
    found: dict[str, TestStatus] = {}
    for test, status in reported:
        found[test] = min(status, found.get(test, status), key=WORST.index)
    return found


def without_canary(tests: dict[str, TestStatus], name: str) -> dict[str, TestStatus] | None:
    """The task's own tests; None where the canary did not come through."""
    seen = {test.lower(): status for test, status in tests.items() if name.lower() in test.lower()}
    passes = [status for test, status in seen.items() if "passes" in test]
    fails = [status for test, status in seen.items() if "fails" in test]
    if passes != ["passed"] or len(fails) != 1 or fails[0] not in ("failed", "error"):
        return None
    return {test: status for test, status in tests.items() if name.lower() not in test.lower()}


# Parsers -------------------------------------------------------------------------------------------------------------


def junit_xml(report: str) -> Reported:
    """The XML of JUnit's console, surefire, Gradle: one or more documents, one after the other."""
    for case in _cases(report):
        yield f"{case.get('classname')}::{case.get('name')}", _outcome(case)


def pytest_xml(report: str) -> Reported:
    """pytest's `--junitxml`, family xunit1, which names the file: ids as pytest has them."""
    for case in _cases(report):
        file, classname, name = (str(case.get(key, "")) for key in ("file", "classname", "name"))
        module = file.removesuffix(".py").replace("/", ".")
        inside = classname.removeprefix(module).strip(".").split(".") if classname.startswith(module) else []
        yield "::".join([file, *(part for part in inside if part), name]), _outcome(case)


def catch_xml(report: str) -> Reported:
    """Catch's JUnit reporter. Its class names are the program's name: left out."""
    for case in _cases(report):
        yield str(case.get("name")), _outcome(case)


def _cases(report: str) -> Iterable[ElementTree.Element]:
    for document in re.split(r"(?=<\?xml )", report):
        if document.strip():
            try:
                yield from ElementTree.fromstring(document.strip()).iter("testcase")
            except ElementTree.ParseError as error:
                raise ValueError(f"not a JUnit report: {error}") from None


def _outcome(case: ElementTree.Element) -> TestStatus:
    children = {child.tag for child in case}
    if "error" in children:
        return "error"
    if "failure" in children:
        return "failed"
    return "skipped" if "skipped" in children else "passed"


def go_json(report: str) -> Reported:
    """`go test -json`: one event a line. Subtests are tests of their own."""
    outcomes: dict[str, TestStatus] = {"pass": "passed", "fail": "failed", "skip": "skipped"}
    for line in report.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # build errors are plain text
        if isinstance(event, dict) and event.get("Test") and event.get("Action") in outcomes:
            yield str(event["Test"]), outcomes[event["Action"]]


def cargo_text(report: str) -> Reported:
    """libtest's lines: `test name ... ok`."""
    outcomes: dict[str, TestStatus] = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
    for match in re.finditer(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", report, flags=re.MULTILINE):
        yield match[1], outcomes[match[2]]


def jest_json(report: str) -> Reported:
    """`jest --json`."""
    outcomes: dict[str, TestStatus] = {"passed": "passed", "failed": "failed"}
    try:
        suites = json.loads(report)["testResults"]
        for suite in suites:
            for test in suite["assertionResults"]:
                yield str(test["fullName"]), outcomes.get(test["status"], "skipped")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a report of jest: {error}") from None


def defects4j_files(report: str) -> Reported:
    """Defects4J's `all_tests` (`method(class)`), and after it `failing_tests` (`--- class::method`, then the trace)."""
    failing = set(re.findall(r"^--- (\S+)$", report, flags=re.MULTILINE))
    all_tests = re.findall(r"^([\w$]+)(?:\[.*\])?\(([\w.$]+)\)$", report.partition("\n--- ")[0], flags=re.MULTILINE)
    if not all_tests:
        raise ValueError("not a report of Defects4J")
    for method, name in all_tests:
        test = f"{name}::{method}"
        yield test, "failed" if test in failing or name in failing else "passed"
    for name in failing - {name for _, name in all_tests}:
        if "::" not in name:
            yield name, "error"  # a class that could not be set up


def pytest_ids(report: str) -> Reported:
    """`pytest --collect-only -q`: ids alone."""
    for line in report.splitlines():
        if "::" in line and not line.startswith(("ERROR", " ", "=")):
            yield line.strip(), "passed"


def pro_json(report: str) -> Reported:
    """What the parsers of SWE-bench Pro write: {"tests": [{"name", "status"}]}."""
    outcomes: dict[str, TestStatus] = {"PASSED": "passed", "FAILED": "failed", "SKIPPED": "skipped"}
    try:
        for test in json.loads(report)["tests"]:
            yield str(test["name"]), outcomes.get(test["status"], "error")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a report of SWE-bench Pro's parser: {error}") from None


def r2e_summary(report: str) -> Reported:
    """pytest's short summary, with R2E-Gym's names."""
    from crrl.tasks.corpora.r2e_gym import COLOUR, results  # all corpora: not at a worker's start

    outcomes: dict[str, TestStatus] = {"PASSED": "passed", "FAILED": "failed", "ERROR": "error"}
    for test, outcome in results(COLOUR.sub("", report).partition("short test summary info")[2]):
        yield test, outcomes[outcome]


# What failed ---------------------------------------------------------------------------------------------------------


def told_by_xml(output: str, report: str) -> list[str]:
    """Name and message of each case that failed; before a run came that far, what was printed."""
    try:
        cases = list(_cases(report))
    except ValueError:
        return output.splitlines()
    failed = []
    for case in cases:
        for child in case:
            if child.tag in ("failure", "error"):
                said = (child.text or child.get("message") or "").strip().splitlines()
                frames = [line for line in said if not re.match(r"\s+at (org\.junit|java\.base|jdk\.)", line)]
                failed.append("\n".join([f"FAILED {case.get('name')}", *frames, ""]))
    return failed or output.splitlines()


def told_by_go(output: str, report: str) -> list[str]:
    """The text in the events, and what stands between them."""
    said = []
    for line in output.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = {"Output": f"{line}\n"}
        said.append(str(event.get("Output", "")) if isinstance(event, dict) else line)
    return [line for line in "".join(said).splitlines() if not line.startswith(("=== RUN", "--- PASS"))]


def told_by_jest(output: str, report: str) -> list[str]:
    try:
        tests = [test for suite in json.loads(report)["testResults"] for test in suite["assertionResults"]]
        failed = [
            (test["fullName"], "\n".join(test["failureMessages"])) for test in tests if test["status"] == "failed"
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        return output.splitlines()
    return [f"FAILED {name}\n{_plain(said)}\n" for name, said in failed] or output.splitlines()


def _plain(text: str) -> str:
    """Without colours and the framework's own frames."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    return "\n".join(line for line in lines if "/node_modules/" not in line)


# Canaries ------------------------------------------------------------------------------------------------------------


def pytest_canary(name: str, tests: Mapping[str, str]) -> dict[str, str]:
    return {
        f"test_{name}.py": f'def test_passes():\n    pass\n\n\ndef test_fails():\n    raise AssertionError("{name}")\n'
    }


def java_canary(name: str, tests: Mapping[str, str]) -> dict[str, str]:
    passes = "@org.junit.Test public void passes() {}"
    fails = f'@org.junit.Test public void fails() {{ org.junit.Assert.fail("{name}"); }}'
    return {f"{name}.java": f"public class {name} {{ {passes} {fails} }}\n"}


def go_canary(name: str, tests: Mapping[str, str]) -> dict[str, str]:
    path, text = _first(tests, "_test.go")
    package = re.search(r"^package (\w+)", text, flags=re.MULTILINE)
    functions = (
        f'func Test{name}Passes(t *testing.T) {{}}\n\nfunc Test{name}Fails(t *testing.T) {{ t.Fatal("{name}") }}\n'
    )
    head = f'package {package[1] if package else "main"}\n\nimport "testing"\n\n'
    return {f"{path.removesuffix('_test.go')}_{name.lower()}_test.go": head + functions}


def rust_canary(name: str, tests: Mapping[str, str]) -> dict[str, str]:
    name = name.lower()
    added = f'\n#[test]\nfn {name}_passes() {{}}\n\n#[test]\nfn {name}_fails() {{\n    panic!("{name}");\n}}\n'
    return _appended(tests, ".rs", added)


def catch_canary(name: str, tests: Mapping[str, str]) -> dict[str, str]:
    return _appended(
        tests,
        "_test.cpp",
        f'\nTEST_CASE("{name} passes") {{ CHECK(true); }}\nTEST_CASE("{name} fails") {{ CHECK(false); }}\n',
    )


def jest_canary(name: str, tests: Mapping[str, str]) -> dict[str, str]:
    added = f"\ntest('{name} passes', () => {{}});\ntest('{name} fails', () => {{ throw new Error('{name}'); }});\n"
    return _appended(tests, ".js", added)


def _first(tests: Mapping[str, str], suffix: str) -> tuple[str, str]:
    """Raises ValueError where there is none."""
    for path, text in sorted(tests.items()):
        if path.endswith(suffix):
            return path, text
    raise ValueError(f"its parser reads the results of *{suffix} files, and none is among the tests put back")


def _appended(tests: Mapping[str, str], suffix: str, added: str) -> dict[str, str]:
    path, text = _first(tests, suffix)
    return {path: text + added}


JAVA_GUARDS = re.compile(r"(^|/)(junit-platform\.properties$|META-INF/services/)|(^|/)(org/)?(junit|hamcrest)/")
BUILD_GUARDS = re.compile(
    r"(^|/)(pom\.xml|(build|settings)\.gradle(\.kts)?|gradle\.properties|junit-platform\.properties)$"
    r"|(^|/)(\.mvn|META-INF/services|gradle/wrapper)/|(^|/)gradle/[^/]+\.(toml|gradle|kts|properties|jar)$"
)
DEFECTS4J_GUARDS = re.compile(
    r"(^|/)(build\.xml|maven-build\.(xml|properties)|pom\.xml|project\.properties|defects4j\.build\.properties)$"
    r"|^(\.defects4j\.config|all_tests|failing_tests)$|^(target|build)/"
)
GO_GUARDS = re.compile(r"_test\.go$|(^|/)go\.(mod|sum|work)$|(^|/)vendor/")
RUST_GUARDS = re.compile(r"(^|/)(build\.rs|rust-toolchain(\.toml)?)$|(^|/)(\.cargo|tests|benches)/")
CATCH_GUARDS = re.compile(r"(^|/)(CMakeLists\.txt|[Mm]akefile)$|\.cmake$|_test\.cpp$|(^|/)test/")
JEST_GUARDS = re.compile(
    r"(^|/)(jest\.(config|setup)\.\w+|babel\.config\.\w+|\.babelrc(\.\w+)?|package(-lock)?\.json|\.npmrc)$"
    r"|\.(spec|test)\.\w+$|(^|/)(__tests__|__mocks__|node_modules)/"
)
PARSERS: dict[str, Parser] = {
    "pytest-xml": Parser(pytest_xml, pytest_canary, told=told_by_xml),
    "junit": Parser(junit_xml, java_canary, JAVA_GUARDS, told_by_xml),
    "surefire": Parser(junit_xml, guards=BUILD_GUARDS, told=told_by_xml),
    "catch": Parser(catch_xml, catch_canary, CATCH_GUARDS, told_by_xml),
    "go": Parser(go_json, go_canary, GO_GUARDS, told_by_go),
    "cargo": Parser(cargo_text, rust_canary, RUST_GUARDS),
    "jest": Parser(jest_json, jest_canary, JEST_GUARDS, told_by_jest),
    "defects4j": Parser(defects4j_files, guards=DEFECTS4J_GUARDS),
    "pytest-ids": Parser(pytest_ids),
    "swe-bench-pro": Parser(pro_json),
    "r2e-gym": Parser(r2e_summary),
}
