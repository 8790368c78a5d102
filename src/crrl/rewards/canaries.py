"""Canaries: tests of our own among the task's, which say whether a report is one at all (invariant 3).

Patched code runs where the tests run, and can print whatever it likes or end the process. So each judged run carries a
canary under a name drawn for it: a test that passes and one that fails, in each suite, since each ends by itself. A
suite whose report lacks either, or has one the wrong way round, has not run to its end: none of its tests has passed.

A canary that is put into a file says the file's path, in hex: so suites are told apart whose own names are alike. Where
a report names tests alike in several modules, each module's canary has the module's tag (`homes.py`).
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from crrl.rewards.api import TestStatus
from crrl.rewards.homes import JAVA_TEST, Homes, is_go_test, tag
from crrl.rewards.reports import Suite, Tests

CANARY = "CRRL_CANARY"
"""In a task's commands this word stands for the canary's name."""
WORST: list[TestStatus] = ["error", "failed", "missing", "skipped", "passed"]
NAME_CHARS = 1 << 14
"""Of a test's name in which a canary is looked for: twice as long as a path may be, in hex."""
Texts = Mapping[str, str]


def statuses(suites: Iterable[Suite]) -> dict[str, TestStatus]:
    """Id -> status. A test reported twice is as bad as its worst."""
    found: dict[str, TestStatus] = {}
    for suite in suites:
        for test, status in suite.tests:
            id = f"{suite.name}::{test}" if suite.name else test
            id = id.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
            found[id] = min(status, found.get(id, status), key=WORST.index)
    return found


def ended(suites: Iterable[Suite], canary: str, homes: Homes | None = None) -> list[Suite]:
    """The suites that ran to their end, without the canary's tests, and under the path of the file it was put into
    where their own name does not tell them from others. With `homes`: of their tests those that every module that has
    them reported, and came to its end."""
    said = re.compile(rf"(m[0-9a-f]{{8}})?{canary}(?:[_ ]((?:[0-9a-f]{{2}})+))?.*?(passes|fails)", re.IGNORECASE)
    found = []
    for suite in suites:
        # By module, by place, and by what stands before the name.
        marks: dict[tuple[str, str, str], list[tuple[str, TestStatus]]] = {}
        tests = []
        for test, status in suite.tests:
            if match := said.search(test, 0, NAME_CHARS):
                mark = ((match[1] or "").upper(), match[2] or "", test[: match.start()])
                marks.setdefault(mark, []).append((match[3].lower(), status))
            else:
                tests.append((test, status))
        if marks and all(_whole(mark) for mark in marks.values()):
            paths = [path for _, place, _ in marks if (path := bytes.fromhex(place).decode("utf-8", "replace"))]
            if homes is not None:
                tests = _at_home(suite.name, tests, homes, {module for module, _, _ in marks})
            found.append(Suite(_name(suite.name, paths), tests))
    return found


def _at_home(suite: str, tests: Tests, homes: Homes, ended: set[str]) -> Tests:
    times = Counter(test for test, _ in tests)
    found = []
    for test, status in tests:
        own = {module.upper() for module in homes(suite, test)}
        if own <= ended and times[test] >= len(own):
            found.append((test, status))
    return found


def _whole(mark: list[tuple[str, TestStatus]]) -> bool:
    passes = [status for kind, status in mark if kind == "passes"]
    fails = [status for kind, status in mark if kind == "fails"]
    return passes == ["passed"] and len(fails) == 1 and fails[0] in ("failed", "error")


def _name(name: str, paths: list[str]) -> str:
    own = [path for path in paths if f"/{path}".endswith(f"/{name}") or f"/{name}".endswith(f"/{path}")]
    return max(own, key=len, default=name) if name else min(paths, default="")


def _place(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").hex()


# By framework --------------------------------------------------------------------------------------------------------


def pytest_canary(name: str, tests: Texts) -> dict[str, str]:
    fails = f'def test_{name}_fails():\n    raise AssertionError("{name}")\n'
    return {f"test_{name}.py": f"def test_{name}_passes():\n    pass\n\n\n{fails}"}


def in_summary(log: str, name: str) -> bool:
    """Whether pytest's short summary has that canary's two tests, each once and as it must be."""
    said = re.findall(rf"^([A-Z]+) \S*::test_{name}_(passes|fails)\b", log, flags=re.MULTILINE)
    return sorted(said) == [("FAILED", "fails"), ("PASSED", "passes")]


def java_canary(name: str, tests: Texts) -> dict[str, str]:
    passes = "@org.junit.Test public void passes() {}"
    fails = f'@org.junit.Test public void fails() {{ org.junit.Assert.fail("{name}"); }}'
    return {f"{name}.java": f"public class {name} {{ {passes} {fails} }}\n"}


JAVA_WORDS = re.compile(r"(TestCase|IT|[A-Z][a-z0-9_]*)$")
JAVA_BODIES = {  # what a test file imports -> (what its class extends, what stands before a test, how that begins)
    "org.junit.jupiter": ("", "@org.junit.jupiter.api.Test public void ", ""),
    "org.junit.Test": ("", "@org.junit.Test public void ", ""),
    "org.testng": ("", "@org.testng.annotations.Test public void ", ""),
    "junit.framework": (" extends junit.framework.TestCase", "public void ", "test_"),
}


def surefire_canary(name: str, tests: Texts) -> dict[str, str]:
    """A class in each module, beside one of its tests and called like that, so that it runs where that does."""
    made: dict[str, str] = {}
    modules: set[str] = set()
    for path, text in sorted(tests.items()):
        at, said = JAVA_TEST.match(path), next((word for word in JAVA_BODIES if word in text), "")
        if at is None or not said or at[1] in modules or re.search(r"\b(abstract class|interface) " + at["stem"], text):
            continue
        last = JAVA_WORDS.search(at["stem"])
        cut = last.start() if last else len(at["stem"])
        own = f"{at['stem'][:cut]}{tag(at[1])}{name}{at['stem'][cut:]}"
        base, before, start = JAVA_BODIES[said]
        package = re.search(r"^\s*package\s+[\w.]+\s*;", text, flags=re.MULTILINE)
        head = f"{package[0].strip()}\n" if package else ""
        fails = f'{before}{start}fails() {{ throw new AssertionError("{name}"); }}'
        body = f"public class {own}{base} {{ {before}{start}passes() {{}} {fails} }}\n"
        made[posixpath.join(posixpath.dirname(path), f"{own}.java")] = head + body
        modules.add(at[1])
    return _some(made, "src/test/java/**.java")


def go_canary(name: str, tests: Texts) -> dict[str, str]:
    """A file of its own in every package."""
    made = {}
    go_tests = [path for path in sorted(tests, reverse=True) if is_go_test(path)]
    for folder, path in {posixpath.dirname(path): path for path in go_tests}.items():
        package = re.search(r"^package (\w+)", tests[path], flags=re.MULTILINE)
        head = f'package {package[1] if package else "main"}\n\nimport "testing"\n\n'
        beside, own = posixpath.basename(path).removesuffix("_test.go"), f"Test{tag(folder)}{name}"
        functions = f'func {own}Passes(t *testing.T) {{}}\n\nfunc {own}Fails(t *testing.T) {{ t.Fatal("{name}") }}\n'
        made[posixpath.join(folder, f"{beside}_{name.lower()}_test.go")] = head + functions
    return _some(made, "*_test.go")


def rust_canary(name: str, tests: Texts) -> dict[str, str]:
    def added(path: str) -> str:
        own = f"{name.lower()}_{_place(path)}"
        return f'\n#[test]\nfn {own}_passes() {{}}\n\n#[test]\nfn {own}_fails() {{\n    panic!("{name}");\n}}\n'

    return _appended(tests, r"\.rs$", "*.rs", added)


def catch_canary(name: str, tests: Texts) -> dict[str, str]:
    def added(path: str) -> str:
        own = f"{name} {_place(path)}"
        return f'\nTEST_CASE("{own} passes") {{ CHECK(true); }}\nTEST_CASE("{own} fails") {{ CHECK(false); }}\n'

    cases = {path: text for path, text in tests.items() if re.search(r"TEST_CASE|\bSCENARIO\b", text)}
    return _appended(cases, r"\.(cpp|cc|cxx)$", "C++ (TEST_CASE)", added)


IMPORTED = re.compile(r"""\bfrom\s*['"](node:test|vitest|@jest/globals)['"]""")
REQUIRED = re.compile(r"""\brequire\(\s*['"](node:test|@jest/globals)['"]\s*\)""")


def jest_canary(name: str, tests: Texts) -> dict[str, str]:
    """Of jest, and of those whose reports are made in its shape: vitest, mocha, `node --test`."""

    def added(path: str) -> str:
        own, test = f"{name} {_place(path)}", f"crrl_{name}"
        if found := IMPORTED.search(tests[path]):
            head = f"import {{ test as {test} }} from '{found[1]}';"
        elif found := REQUIRED.search(tests[path]):
            head = f"const {{ test: {test} }} = require('{found[1]}');"
        else:  # functions that are there in every test file
            given = "typeof test === 'function' ? test : typeof it === 'function' ? it : undefined"
            head = f"const {test} = {given};"
        passes = f"{test}('{own} passes', () => {{}});"
        fails = f"{test}('{own} fails', () => {{ throw new Error('{name}'); }});"
        return f"\n;{head}\nif (typeof {test} === 'function') {{\n  {passes}\n  {fails}\n}}\n"

    return _appended(tests, r"\.[cm]?[jt]sx?$", "*.js or *.ts", added)


def ctest_canary(name: str, tests: Texts) -> dict[str, str]:
    """Behind the project's own: in the build's first CMakeLists.txt."""
    commands = "".join(
        f"add_test(NAME {name}_{end} COMMAND ${{CMAKE_COMMAND}} -E {word})\n"
        for end, word in (("passes", "true"), ("fails", "false"))
    )
    found = sorted((path for path in tests if posixpath.basename(path) == "CMakeLists.txt"), key=lambda p: p.count("/"))
    return _some({path: f"{tests[path]}\nenable_testing()\n{commands}" for path in found[:1]}, "CMakeLists.txt")


def _appended(tests: Texts, suffix: str, called: str, added: Callable[[str], str]) -> dict[str, str]:
    return _some({path: text + added(path) for path, text in tests.items() if re.search(suffix, path)}, called)


def _some(made: dict[str, str], called: str) -> dict[str, str]:
    """Raises ValueError where there is none."""
    if not made:
        raise ValueError(f"its parser reads the results of {called} files, and none is among the tests put back")
    return made
