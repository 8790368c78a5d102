"""From what a test framework reported to suites of (test, status), whatever the tests printed in between.

A suite is what can fail to build or to end by itself: a package, a file, a binary. Its name becomes part of its tests'
ids (`canaries.own_tests`), so that none stands for its namesake elsewhere. What is cut off, or no report at all, has no
results; nothing here raises but ValueError.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast
from xml.etree import ElementTree

from crrl.rewards.api import TestStatus

Events = Iterator[tuple[str, ElementTree.Element]]
Tests = list[tuple[str, TestStatus]]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Suite:
    """`name`: as the report has it; "" where its tests' names say all."""

    name: str
    tests: Tests = field(default_factory=list)


Parse = Callable[[str], Iterable[Suite]]

# XML -----------------------------------------------------------------------------------------------------------------

NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
REFERENCE = re.compile(r"&#(?:x([0-9a-fA-F]{1,8})|([0-9]{1,8}));")
PIECE = 1 << 16
NAME_CHARS = 4096
MARK = re.compile(r"<!\[CDATA\[|<!--|<\?xml\s|<!DOCTYPE")
ENDS = {"<![CDATA[": "]]>", "<!--": "-->"}


def _root(text: str) -> ElementTree.Element | None:
    """Of the first document in `text`, whatever is printed behind it. None where it is damaged or cut off."""
    if any(mark == "<!DOCTYPE" for mark, _ in _marks(text)):  # which no framework writes, and bombs need
        return None
    parser: ElementTree.XMLPullParser = ElementTree.XMLPullParser(["start", "end"])
    depth = 0
    try:
        for at in range(max(0, text.find("<")), len(text), PIECE):
            parser.feed(text[at : at + PIECE])
            for event, element in cast(Events, parser.read_events()):
                depth += 1 if event == "start" else -1
                if depth == 0:
                    return element
    except ElementTree.ParseError:
        return None
    return None


def _marks(text: str) -> Iterator[tuple[str, int]]:
    """What begins a document or its type, outside of quoted text and comments; those have to end."""
    behind, open_ = 0, set[str]()
    for match in MARK.finditer(text):
        mark = match[0]
        if match.start() < behind or mark in open_:
            continue
        if mark not in ENDS:
            yield mark, match.start()
        elif (end := text.find(ENDS[mark], match.end())) < 0:
            open_.add(mark)
        else:
            behind = end + len(ENDS[mark])


def documents(report: str) -> list[ElementTree.Element]:
    """The roots of the documents, one after the other. Raises ValueError where none is whole."""
    text = REFERENCE.sub(_allowed, NO_XML.sub("\ufffd", report.removeprefix("\ufeff")))
    starts = sorted({0, *(at for mark, at in _marks(text) if mark.startswith("<?xml"))})
    parts = [text[at:end] for at, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    roots = [root for part in parts if (root := _root(part)) is not None]
    if not roots:
        raise ValueError("not a JUnit report: no whole XML document")
    return roots


def _allowed(match: re.Match[str]) -> str:
    """A character by its number; not those that XML does not allow, which some frameworks write all the same."""
    number = int(match[1], 16) if match[1] else int(match[2])
    return match[0] if number <= 0x10FFFF and not NO_XML.match(chr(number)) else "\ufffd"


def cases(report: str) -> Iterator[ElementTree.Element]:
    for root in documents(report):
        yield from root.iter("testcase")


def _outcome(case: ElementTree.Element) -> TestStatus:
    children = {child.tag for child in case}
    if "error" in children:
        return "error"
    if "failure" in children:
        return "failed"
    return "skipped" if "skipped" in children else "passed"


def junit_xml(report: str) -> Iterable[Suite]:
    """The XML of JUnit's console, surefire, Gradle: ids with the class that the test ran in."""
    yield Suite("", [(f"{case.get('classname')}::{case.get('name')}", _outcome(case)) for case in cases(report)])


def ctest_xml(report: str) -> Iterable[Suite]:
    """`ctest --output-junit`: every test that is configured, whether or not its program was built."""
    yield Suite("", [(str(case.get("name")), _outcome(case)) for case in cases(report)])


def catch_xml(report: str) -> Iterable[Suite]:
    """Catch's JUnit reporter: a document for each program; classes are `PROGRAM.global` or `PROGRAM.FIXTURE`."""
    for root in documents(report):
        suite = Suite("")
        for case in root.iter("testcase"):
            fixture = str(case.get("classname")).rpartition(".")[2]
            name = str(case.get("name"))
            suite.tests.append((name if fixture == "global" else f"{fixture}.{name}", _outcome(case)))
        yield suite


def pytest_xml(report: str) -> Iterable[Suite]:
    """pytest's `--junitxml`, family xunit1, which names the file: ids as pytest has them.

    The file is that of the test function: the class of an inherited test stands elsewhere, in the module that
    `classname` begins with.
    """
    found = list(cases(report))
    modules = {_module(str(case.get("file", ""))): str(case.get("file", "")) for case in found}
    suite = Suite("")
    for case in found:
        file, classname, name = (str(case.get(key, "")) for key in ("file", "classname", "name"))
        module = _module(file)
        if not _within(classname, module):
            module = _longest(classname, modules) or _guess(classname)
            file = modules.get(module) or f"{module.replace('.', '/')}.py"
        inside = classname.removeprefix(module).strip(".").split(".")
        suite.tests.append(("::".join([file, *(part for part in inside if part), name]), _outcome(case)))
    yield suite


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def _within(classname: str, module: str) -> bool:
    return classname == module or classname.startswith(f"{module}.")


def _longest(classname: str, modules: Collection[str]) -> str:
    """The longest of the modules that a class is in; "" where there is none."""
    name = classname if len(classname) <= NAME_CHARS else ""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def _guess(classname: str) -> str:
    """The module of `tests.test_a.TestB.Inner` where no test of its own says it: up to the last part that is called
    like a module of tests, else to the first that is called like a class."""
    parts = classname.split(".")
    tests = [n for n, part in enumerate(parts, 1) if re.fullmatch(r"test_.*|.*_test", part)]
    classes = [n for n, part in enumerate(parts) if part[:1].isupper()]
    return ".".join(parts[: tests[-1] if tests else classes[0] if classes else len(parts)])


# JSON ----------------------------------------------------------------------------------------------------------------


GO_EVENT = re.compile(r'(?<!\\)\{(?=\s*"(?:Time|Action)")')
JEST_RUN = re.compile(r'(?<!\\)\{(?=\s*"(?:num\w+|testResults)")')
PRO_RUN = re.compile(r'(?<!\\)\{(?=\s*"tests")')


def objects(text: str, start: re.Pattern[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects that begin so; what is printed around them is left out. What begins as one and is none is looked
    at as far as it goes, again and again, until that has cost as much as some whole reports."""
    decoder = json.JSONDecoder()
    at, left = 0, 8 * len(text) + (1 << 16)
    for match in start.finditer(text):
        if match.start() < at:  # inside of the one before
            continue
        try:
            value, at = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError as error:
            left -= error.pos - match.start() + error.pos // 16  # whose lines the error has counted
        except RecursionError:  # of so many levels, and of each inside of it
            at = match.start() + sys.getrecursionlimit() // 2
        else:
            yield value
        if left < 0:
            return


GO_END = re.compile(r"--- (PASS|FAIL|SKIP): (.*) \(\d+\.\d+s\)\n?")


def go_json(report: str) -> Iterable[Suite]:
    """`go test -json`: a suite is a package; subtests are tests of their own. Before Go 1.20 the end of a test that
    printed no line's end is only in what it printed."""
    outcomes: dict[str, TestStatus] = {"pass": "passed", "fail": "failed", "skip": "skipped"}
    packages: dict[str, Suite] = {}
    open_: dict[tuple[str, str], TestStatus] = {}
    for event in objects(report, GO_EVENT):
        package, test, action = (str(event.get(key) or "") for key in ("Package", "Test", "Action"))
        suite = packages.setdefault(package, Suite(package))
        if not test:
            continue
        output = str(event.get("Output") or "")
        end = GO_END.fullmatch(output, max(output.rfind(f"--- {word}: ") for word in ("PASS", "FAIL", "SKIP")))
        if action in outcomes:
            suite.tests.append((test, outcomes[action]))
            open_.pop((package, test), None)
        elif action == "run":
            open_[package, test] = "missing"
        elif end and end[2] == test and (package, test) in open_:
            open_[package, test] = outcomes[end[1].lower()]
    for (package, test), status in open_.items():
        packages[package].tests.append((test, status))
    return packages.values()


def jest_json(report: str) -> Iterable[Suite]:
    """`jest --json`: a suite is a file."""
    outcomes: dict[str, TestStatus] = {"passed": "passed", "failed": "failed"}
    runs = [value for value in objects(report, JEST_RUN) if "testResults" in value]
    if not runs:
        raise ValueError("not a report of jest")
    try:
        for file in (file for run in runs for file in run["testResults"]):
            tests = file["assertionResults"]
            yield Suite(
                str(file.get("name") or ""),
                [(str(test["fullName"]), outcomes.get(test["status"], "skipped")) for test in tests],
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report of jest: {error}") from None


def pro_json(report: str) -> Iterable[Suite]:
    """What the parsers of SWE-bench Pro write: {"tests": [{"name", "status"}]}."""
    outcomes: dict[str, TestStatus] = {"PASSED": "passed", "FAILED": "failed", "SKIPPED": "skipped"}
    try:
        (value,) = objects(report, PRO_RUN)
        yield Suite("", [(str(test["name"]), outcomes.get(test["status"], "error")) for test in value["tests"]])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a report of SWE-bench Pro's parser: {error}") from None


# Text ----------------------------------------------------------------------------------------------------------------

CARGO_SUITE = re.compile(r"Running (unittests )?(\S+) \((\S+)\)|Doc-tests \S+")
CARGO_HASH = re.compile(r"-[0-9a-f]{16}$")
CARGO_TEST = re.compile(r"test (\S+)(?: - should panic)? \.\.\. (.*)$")
CARGO_END = re.compile(r"test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored;")


def cargo_text(report: str) -> Iterable[Suite]:
    """`cargo test`: a suite is a test binary, from its `Running` line to its result. Its own list of failures and its
    counts have to agree with its lines: a test can print those, too."""
    suite: Suite | None = None
    pending, listing = "", False
    known: set[str] = set()
    for raw in ANSI.sub("", report).split("\n"):
        line = raw.rstrip("\r")
        if not listing and (begun := _cargo_suite(line)) is not None:
            suite, pending, known = begun, "", set()
        elif suite is None:
            continue
        elif end := CARGO_END.search(line):
            yield _counted(suite, [int(count) for count in end.groups()])
            suite, listing = None, False
        elif listing:  # of what failed, with what it printed
            suite.tests += [(line.strip(), "failed")] if line.strip() in known else []
        elif line == "failures:":
            listing, known = True, {test for test, _ in suite.tests}
        elif test := CARGO_TEST.search(line):
            pending = "" if _cargo(suite, test[1], test[2]) else test[1]
        elif pending and _cargo(suite, pending, line):
            pending = ""


def _cargo_suite(line: str) -> Suite | None:
    """Begun by this line; what a test printed without a line's end may stand before."""
    start = max(line.rfind("Running "), line.rfind("Doc-tests "))
    before = line[: max(start, 0)]
    if start < 0 or not (before.endswith("   ") or not before.strip()):
        return None
    found = CARGO_SUITE.fullmatch(line[start:].rstrip())
    if found is None:
        return None
    name, binary = found[2] or "", CARGO_HASH.sub("", (found[3] or "").rpartition("/")[2])
    return Suite(f"{name} ({binary})" if found[1] else name)


def _counted(suite: Suite, counts: list[int]) -> Suite:
    final = dict(suite.tests)
    found = [sum(status == wanted for status in final.values()) for wanted in ("passed", "failed", "skipped")]
    return Suite(suite.name, [(test, status if found == counts else "error") for test, status in final.items()])


def _cargo(suite: Suite, test: str, said: str) -> bool:
    """Whether this is how the test ended: what it printed by itself may stand before."""
    outcomes: dict[str, TestStatus] = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
    found = re.search(r"(ok|FAILED|ignored)(?:, .*| <\d+\.\d+s>)?$", said)
    if found:
        suite.tests.append((test, outcomes[found[1]]))
    return found is not None


def defects4j_files(report: str) -> Iterable[Suite]:
    """Defects4J's `all_tests` (`method(class)`), and after it `failing_tests` (`--- class::method`, then the trace)."""
    listed, _, rest = report.removeprefix("\ufeff").replace("\r\n", "\n").partition("\n--- ")
    failing = {line.strip() for line in re.findall(r"^--- (.+)$", f"--- {rest}", flags=re.MULTILINE)}
    all_tests = re.findall(r"^([\w$]+(?:\[.*\])?)\(([\w.$]+)\)$", listed, flags=re.MULTILINE)
    if not all_tests:
        raise ValueError("not a report of Defects4J")
    suite = Suite("")
    for method, name in all_tests:
        # Of a test with parameters some versions name the method alone.
        failed = failing & {f"{name}::{method}", f"{name}::{method.partition('[')[0]}", name}
        suite.tests.append((f"{name}::{method}", "failed" if failed else "passed"))
    known = {name for _, name in all_tests}
    suite.tests += [(name, "error") for name in failing if "::" not in name and name not in known]  # not set up
    yield suite


def pytest_ids(report: str) -> Iterable[Suite]:
    """`pytest --collect-only -q`: ids alone."""
    lines = [line.strip("\r") for line in report.removeprefix("\ufeff").split("\n")]
    yield Suite("", [(x, "passed") for x in lines if "::" in x and not x.startswith(("ERROR", " ", "="))])


def r2e_summary(report: str) -> Iterable[Suite]:
    """pytest's short summary, the last there is, with R2E-Gym's names."""
    from crrl.tasks.corpora.r2e_gym import results  # all corpora: not at a worker's start

    outcomes: dict[str, TestStatus] = {"PASSED": "passed", "FAILED": "failed", "ERROR": "error"}
    text = ANSI.sub("", report).replace("\r\n", "\n")
    summary = re.split(r"^=+ short test summary info =+$", text, flags=re.MULTILINE)
    found = results(summary[-1]) if len(summary) > 1 else ()
    yield Suite("", [(test, outcomes[outcome]) for test, outcome in found])


# What failed ---------------------------------------------------------------------------------------------------------


def told_by_xml(output: str, report: str) -> list[str]:
    """Name and message of each case that failed; before a run came that far, what was printed."""
    try:
        found = list(cases(report))
    except ValueError:
        return output.splitlines()
    failed = []
    for case in found:
        for child in case:
            if child.tag in ("failure", "error"):
                said = (child.text or child.get("message") or "").strip().splitlines()
                frames = [line for line in said if not re.match(r"\s+at (org\.junit|java\.base|jdk\.)", line)]
                failed.append("\n".join([f"FAILED {case.get('name')}", *frames, ""]))
    return failed or output.splitlines()


def told_by_go(output: str, report: str) -> list[str]:
    """The text in the events, and what stands between them."""
    said = []
    for line in output.split("\n"):
        (event, *_) = [*objects(line, GO_EVENT), {"Output": f"{line}\n"}]
        said.append(str(event.get("Output", "")))
    return [line for line in "".join(said).splitlines() if line and not line.startswith(("=== RUN", "--- PASS"))]


def told_by_jest(output: str, report: str) -> list[str]:
    try:
        files = [file for run in objects(report, JEST_RUN) for file in run["testResults"]]
        tests = [test for file in files for test in file["assertionResults"] if test["status"] == "failed"]
        failed = [(test["fullName"], "\n".join(test["failureMessages"])) for test in tests]
    except (KeyError, TypeError):
        return output.splitlines()
    return [f"FAILED {name}\n{_plain(said)}\n" for name, said in failed] or output.splitlines()


def _plain(text: str) -> str:
    """Without colours and the framework's own frames."""
    return "\n".join(line for line in ANSI.sub("", text).splitlines() if "/node_modules/" not in line)
