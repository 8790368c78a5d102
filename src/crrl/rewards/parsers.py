"""The parsers that a task may name: how a report is read, how its end is told, which paths steer the framework.

To add a framework: how its report is read (`reports.py`), its canary (`canaries.py`), a line in `PARSERS`, and its name
in `tasks/files.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from crrl.rewards import canaries, homes, reports
from crrl.rewards.canaries import Texts
from crrl.task import TestPlan
from crrl.tasks.files import LIKENESS, SWEBENCH


@dataclass(frozen=True)
class Parser:
    """Args:
    parse: report -> suites; raises ValueError where it is no such report.
    canary: (its name, path -> text of the test files) -> path -> text of what is put there; raises ValueError where no
        file takes one. None: there is none.
    guards: paths that steer the framework; a repair's changes to them are left out, as those to tests are. Or None.
    suites: which files of the checkout, among those, are suites that need a canary beside the tests put back. Or None.
    told: (what the commands printed, report) -> what failed, as people read it, in pieces: lines, or a test each.
    homes: (text of the test files, paths of the canaries) -> the modules that a test stands in. None: its id says it.
    """

    parse: reports.Parse
    canary: Callable[[str, Texts], dict[str, str]] | None = None
    guards: re.Pattern[str] | None = None
    suites: re.Pattern[str] | None = None
    told: Callable[[str, str], list[str]] = lambda output, report: output.splitlines()
    homes: Callable[[Texts, Collection[str]], homes.Homes] | None = None


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
CPP_GUARDS = re.compile(r"(^|/)(CMakeLists\.txt|[Mm]akefile)$|\.cmake$|_test\.cpp$|(^|/)test/")
JEST_GUARDS = re.compile(
    r"(^|/)(jest\.(config|setup)\.\w+|vitest\.config\.\w+|\.mocharc(\.\w+)?|babel\.config\.\w+|\.babelrc(\.\w+)?"
    r"|package(-lock)?\.json|\.npmrc)$"
    r"|\.(spec|test)\.\w+$|(^|/)(__tests__|__mocks__|node_modules)/"
)
GO_SUITES = re.compile(r"_test\.go$|(^|/)go\.mod$")
RUST_SUITES = re.compile(r"(^|/)tests/[^/]+(/main)?\.rs$")
CATCH_SUITES = re.compile(r"_test\.cpp$|(^|/)test/.*\.(cpp|cc|cxx)$")
CTEST_SUITES = re.compile(r"^CMakeLists\.txt$")
SUREFIRE_SUITES = homes.JAVA_TEST
JEST_SUITES = re.compile(r"^(?!(.*/)?node_modules/)(.*\.(spec|test)\.[cm]?[jt]sx?|(.*/)?__tests__/.*\.[cm]?[jt]sx?)$")
PARSERS: dict[str, Parser] = {
    "pytest-xml": Parser(reports.pytest_xml, canaries.pytest_canary, told=reports.told_by_xml),
    "junit": Parser(reports.junit_xml, canaries.java_canary, JAVA_GUARDS, told=reports.told_by_xml),
    "surefire": Parser(
        reports.junit_xml, canaries.surefire_canary, BUILD_GUARDS, SUREFIRE_SUITES, reports.told_by_xml, homes.java
    ),
    "catch": Parser(reports.catch_xml, canaries.catch_canary, CPP_GUARDS, CATCH_SUITES, reports.told_by_xml),
    "ctest": Parser(reports.ctest_xml, canaries.ctest_canary, CPP_GUARDS, CTEST_SUITES, reports.told_by_xml),
    "go": Parser(reports.go_json, canaries.go_canary, GO_GUARDS, GO_SUITES, reports.told_by_go, homes.go),
    "cargo": Parser(reports.cargo_text, canaries.rust_canary, RUST_GUARDS, RUST_SUITES),
    "jest": Parser(reports.jest_json, canaries.jest_canary, JEST_GUARDS, JEST_SUITES, reports.told_by_jest),
    "defects4j": Parser(reports.defects4j_files, guards=DEFECTS4J_GUARDS),
    "pytest-ids": Parser(reports.pytest_ids),
    "swe-bench-pro": Parser(reports.pro_json),
    "r2e-gym": Parser(reports.r2e_summary, canaries.pytest_canary),
}


def unmarked(plan: TestPlan) -> str:
    """Why a report of these tests cannot be told from one that patched code wrote, but by decoys; "" where it can."""
    if plan.label is not None or plan.parser == LIKENESS:  # nothing is run
        return ""
    if plan.parser == "pytest" or any(canaries.CANARY in word for word in plan.command.argv):
        return ""
    if plan.parser in PARSERS and PARSERS[plan.parser].canary is not None:
        return ""
    if plan.parser.startswith(SWEBENCH):
        return "its script runs tests by name, and takes none of ours"
    return "the corpus's own tool chooses the tests that it runs and reports"
