"""Two suites with a test of one name, by every parser, with the real tools: neither stands for the other.

The bug breaks the test in suite `b`; the one in `a` passes. A patch after which `b` does not compile, or ends before it
is done, has not repaired it, whatever `a` says.
"""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from judge_kit import make_task
from toolchain_kit import require

from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.rewards.tests import solved
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.bugsinpy import REPORT as XML
from crrl.tasks.corpora.quixbugs import CONSOLE, REPORT
from crrl.tasks.diffs import between
from crrl.tasks.setup.toolchains import JUNIT


@dataclass(frozen=True)
class Case:
    """`broken`: edits of the file with the bug, none of which repairs it. `ids`: of the tests of `a` and `b`."""

    files: dict[str, str]
    tests: dict[str, str]
    bug: tuple[str, str, str]  # file, buggy text, right text
    broken: dict[str, str]
    ids: tuple[str, str]
    plan: TestPlan

    def task(self, name: str) -> Task:
        path, buggy, right = self.bug
        assert buggy in self.files[path]
        fixed = self.files[path].replace(buggy, right)
        plan = replace(self.plan, fail_to_pass=[self.ids[1]], pass_to_pass=[self.ids[0]], restore=self.tests)
        return replace(
            make_task(),
            id=name,
            source=Source(files=self.files),
            test=replace(plan, timeout_s=120.0),
            solution=between(path, self.files[path], fixed),
        )


def shell(line: str) -> Command:
    return Command(["sh", "-c", line], timeout_s=120.0)


def plan(command: Command, parser: str, needs: list[str], **more: object) -> TestPlan:
    return TestPlan(command, parser, [], [], needs=needs, **more)  # type: ignore[arg-type]


GO_TEST = 'package {0}\n\nimport "testing"\n\nfunc TestParse(t *testing.T) {{\n\tif Parse() != 1 {{\n\t\tt.Fatal()\n\t}}\n}}\n'
GO = Case(
    files={"go.mod": "module example.com/x\n\ngo 1.18\n"}
    | {f"{p}/{p}.go": f"package {p}\n\nfunc Parse() int {{ return {n} }}\n" for p, n in (("a", 1), ("b", 2))},
    tests={f"{p}/{p}_test.go": GO_TEST.format(p) for p in "ab"},
    bug=("b/b.go", "return 2", "return 1"),
    broken={
        "does not compile": "return",
        "ends the process": 'return func() int { syscall.Exit(0); return 1 }() }\n\nimport "syscall"\n\nfunc f() {',
        "prints that it passed, and ends": 'println("--- PASS: TestParse (0.00s)"); panic(0)',
    },
    ids=("example.com/x/a::TestParse", "example.com/x/b::TestParse"),
    plan=plan(Command(["go", "test", "-json", "./..."]), "go", ["go"]),
)
RUST_TEST = "#[test]\nfn basic() {{\n    assert_eq!({0}::one(), 1);\n}}\n"
RUST = Case(
    files={"Cargo.toml": '[workspace]\nmembers = ["a", "b"]\n'}
    | {f"{p}/Cargo.toml": f'[package]\nname = "{p}"\nversion = "0.1.0"\nedition = "2021"\n' for p in "ab"}
    | {f"{p}/src/lib.rs": f"pub fn one() -> i32 {{\n    {n}\n}}\n" for p, n in (("a", 1), ("b", 2))},
    tests={f"{p}/tests/suite.rs": RUST_TEST.format(p) for p in "ab"},
    bug=("b/src/lib.rs", "    2", "    1"),
    broken={
        "does not compile": "    (",
        "ends the process": "    std::process::exit(0)",
        "prints that it passed, and ends": '    { println!("ok\\n\\ntest result: ok. 3 passed;"); panic!() }',
    },
    ids=("a/tests/suite.rs::basic", "b/tests/suite.rs::basic"),
    plan=plan(shell("cargo test --workspace --offline --no-fail-fast; true"), "cargo", ["rust"]),
)
JEST_TEST = "const one = require('./{0}');\n\ntest('works', () => {{\n  expect(one()).toBe(1);\n}});\n"
JEST = Case(
    files={f"{p}.js": f"module.exports = () => {n};\n" for p, n in (("a", 1), ("b", 2))} | {"package.json": "{}\n"},
    tests={f"{p}.spec.js": JEST_TEST.format(p) for p in "ab"},
    bug=("b.js", "=> 2", "=> 1"),
    broken={
        "does not compile": "=> (",
        "ends the process": "=> process.exit(0)",
        "prints that it passed": "=> console.log('{\"testResults\": []}')",
    },
    ids=("a.spec.js::works", "b.spec.js::works"),
    plan=plan(
        shell(
            "mkdir -p .crrl; node /node_modules/jest/bin/jest.js --rootDir=. --json --outputFile=.crrl/report.json ."
        ),
        "jest",
        ["jest"],
        report=shell("cat .crrl/report.json"),
    ),
)
JAVA_TEST = (
    "package {0};\n\nimport org.junit.Test;\nimport static org.junit.Assert.*;\n\n"
    "public class OneTest {{\n    @Test public void works() {{ assertEquals(1, {0}.One.one()); }}\n}}\n"
)
JAVA = Case(
    files={f"{p}/One.java": f"package {p};\n\npublic class One {{\n    public static int one() {{ return {n}; }}\n}}\n"
           for p, n in (("a", 1), ("b", 2))},
    tests={f"{p}/OneTest.java": JAVA_TEST.format(p) for p in "ab"},
    bug=("b/One.java", "return 2;", "return 1;"),
    broken={"does not compile": "return;", "ends the process": "System.exit(0); return 1;"},
    ids=("a.OneTest::works", "b.OneTest::works"),
    plan=plan(
        Command(CONSOLE.split()),
        "junit",
        ["junit"],
        # As Defects4J is built: a class that does not compile is left out, and the others run.
        build=[
            shell(
                f"mkdir -p .crrl/classes; for f in a b; do javac -nowarn -d .crrl/classes -cp {JUNIT} $f/*.java; done; "
                f"javac -nowarn -d .crrl/classes -cp {JUNIT} CRRL_CANARY.java"
            )
        ],
        report=shell(REPORT),
    ),
)  # fmt: skip
PYTEST_BASE = "class Works:\n    def test_works(self):\n        assert self.one() == 1\n"
PYTEST = Case(
    files={f"{p}.py": f"def one():\n    return {n}\n" for p, n in (("a", 1), ("b", 2))},
    tests={"tests/__init__.py": "", "tests/base.py": PYTEST_BASE}
    | {
        f"tests/test_{p}.py": f"import {p}\nfrom tests.base import Works\n\n\nclass TestOne(Works):\n"
        f"    def one(self):\n        return {p}.one()\n"
        for p in "ab"
    },
    bug=("b.py", "return 2", "return 1"),
    broken={"does not compile": "return (", "ends the process": "import os; os._exit(0)", "raises": "1 / 0"},
    ids=("tests/test_a.py::TestOne::test_works", "tests/test_b.py::TestOne::test_works"),
    plan=plan(
        Command(
            ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", "--junitxml", XML,
             "tests", "test_CRRL_CANARY.py"],
            env={"PYTHONPATH": SITE, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        ),
        "pytest-xml",
        [],
        report=Command(["cat", XML]),
    ),
)  # fmt: skip
CATCH_REPORTER = """#include <iostream>
#include <string>
#include <vector>
struct Case { std::string name; bool (*run)(); };
inline std::vector<Case>& cases() { static std::vector<Case> all; return all; }
struct Add { Add(const char* n, bool (*r)()) { cases().push_back({n, r}); } };
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define TEST_CASE(n) static bool JOIN(t, __LINE__)(); static Add JOIN(r, __LINE__)(n, JOIN(t, __LINE__)); \\
    static bool JOIN(t, __LINE__)()
#define CHECK(x) return (x)
int main() {
    std::cout << "<?xml version=\\"1.0\\"?><testsuites><testsuite name=\\"prog\\">";
    for (auto& c : cases()) std::cout << "<testcase classname=\\"prog.global\\" name=\\"" << c.name << "\\">"
        << (c.run() ? "" : "<failure message=\\"no\\"/>") << "</testcase>";
    std::cout << "</testsuite></testsuites>" << std::endl;
}
"""
CPP_FILES = {f"{p}.h": f"inline int one() {{ return {n}; }}\n" for p, n in (("a", 1), ("b", 2))}
CATCH = Case(
    files=CPP_FILES,
    tests={"test/catch.hpp": CATCH_REPORTER}
    | {
        f"{p}_test.cpp": f'#include "test/catch.hpp"\n#include "{p}.h"\nTEST_CASE("works") {{ CHECK(one() == 1); }}\n'
        for p in "ab"
    },
    bug=("b.h", "return 2;", "return 1;"),
    broken={"does not compile": "return", "ends the process": "exit(0);", "crashes": "abort();"},
    ids=("a_test.cpp::works", "b_test.cpp::works"),
    plan=plan(
        shell("for p in a b; do g++ -o $p.exe ${p}_test.cpp && ./$p.exe > $p.xml; done; true"),
        "catch",
        ["cmake"],
        report=shell("cat a.xml b.xml"),
    ),
)
CTEST = Case(
    files=CPP_FILES
    | {
        "CMakeLists.txt": "cmake_minimum_required(VERSION 3.21)\nproject(x CXX)\nenable_testing()\n"
        + "".join(f"add_executable(t{p} t{p}.cpp)\nadd_test(NAME {p}.works COMMAND t{p})\n" for p in "ab")
    },
    tests={f"t{p}.cpp": f'#include <cstdlib>\n#include "{p}.h"\nint main() {{ return one() != 1; }}\n' for p in "ab"},
    bug=("b.h", "return 2;", "return 1;"),
    broken={"does not compile": "return", "crashes": "abort();"},
    ids=("a.works", "b.works"),
    plan=plan(
        shell("cmake -S . -B out && cmake --build out -- -k; cd out && ctest --output-junit report.xml; true"),
        "ctest",
        ["cmake"],
        report=shell("cat out/report.xml"),
    ),
)
CASES = {"go": GO, "cargo": RUST, "jest": JEST, "junit": JAVA, "pytest-xml": PYTEST, "catch": CATCH, "ctest": CTEST}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
async def test_no_suite_stands_for_its_namesake(task_judge: TaskJudge, name: str) -> None:
    case = CASES[name]
    task = case.task(name)
    require(task.test.needs)
    repaired = await task_judge.run(task, task.solution or "")
    assert solved(task, repaired), repaired
    a, b = case.ids
    empty = await task_judge.run(task, "")
    assert (empty.tests[a], empty.tests[b]) == ("passed", "failed"), empty
    path, buggy, _ = case.bug
    for how, text in case.broken.items():
        patch = between(path, case.files[path], case.files[path].replace(buggy, text))
        results = await task_judge.run(task, patch)
        assert results.tests[b] != "passed" and not solved(task, results), (how, results)
        if how == "does not compile" and name not in ("cargo", "pytest-xml"):  # which run nothing then, or one process
            assert results.tests[a] == "passed", results
