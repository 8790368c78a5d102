"""Defects4J (Just et al. 2014), versions 2 and 3: 835 and 854 bugs of 17 Java projects. From a clone of its repository.

The buggy tree is the fixed revision with `patches/N.src.patch`, which goes from fixed to buggy: the repair is its
reverse. The trigger tests must flip; the others of the relevant classes are the baseline that admission measures on
the fixed tree, because some fail there too (Lang-10 on newer Java). Lang, Math and Jsoup are compiled here with
javac; the other projects need Defects4J itself, which then checks out, compiles and tests (`own_tools.py`).
Traps: revision ids of Lang and Math differ between versions 2 and 3, and Math's of version 2 are only in the
repositories that Defects4J downloads; Chart's are Subversion numbers. Sources of Lang and Math are ISO-8859-1, of
Jsoup UTF-8 (Jsoup-90 passes when buggy otherwise); tests expect the time zone of Los Angeles.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.issue import failing_tests
from crrl.tasks.diffs import reverse
from crrl.tasks.files import Problem
from crrl.tasks.setup.toolchains import JUNIT

SPLITS = ("active", "deprecated")
REPOSITORIES = {
    "Chart": "https://github.com/jfree/jfreechart",
    "Cli": "https://github.com/apache/commons-cli",
    "Closure": "https://github.com/google/closure-compiler",
    "Codec": "https://github.com/apache/commons-codec",
    "Collections": "https://github.com/apache/commons-collections",
    "Compress": "https://github.com/apache/commons-compress",
    "Csv": "https://github.com/apache/commons-csv",
    "Gson": "https://github.com/google/gson",
    "JacksonCore": "https://github.com/FasterXML/jackson-core",
    "JacksonDatabind": "https://github.com/FasterXML/jackson-databind",
    "JacksonXml": "https://github.com/FasterXML/jackson-dataformat-xml",
    "Jsoup": "https://github.com/jhy/jsoup",
    "JxPath": "https://github.com/apache/commons-jxpath",
    "Lang": "https://github.com/apache/commons-lang",
    "Math": "https://github.com/apache/commons-math",
    "Mockito": "https://github.com/mockito/mockito",
    "Time": "https://github.com/JodaOrg/joda-time",
}
ENCODINGS = {"Lang": "ISO-8859-1", "Math": "ISO-8859-1", "Jsoup": "UTF-8"}
"""For the projects that javac and JUnit can build on their own."""
JARS = f"{JUNIT}:/usr/share/java/commons-lang.jar"  # early versions of Jsoup use it
OPENED = " ".join(  # by reflection, as on Java 8: tests of the time look into the library's own classes
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.lang.reflect", "java.util", "java.text", "java.math", "java.io", "java.net")
)
JAVA = f"java {OPENED} -Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.timezone=America/Los_Angeles"


@dataclass(frozen=True)
class Bug:
    """A line of `active-bugs.csv` or `deprecated-bugs.csv`."""

    project: str
    number: str
    fixed: str
    report: str
    split: str
    file: Path
    line: int


def bugs(path: Path) -> Iterator[Bug | Problem]:
    """All bugs that the tables name, whether or not their patches are there."""
    for folder in sorted((path / "framework" / "projects").glob("*")):
        for split in SPLITS:
            file = folder / f"{split}-bugs.csv"
            if not file.is_file():
                continue
            with file.open(newline="") as lines:
                for row in (reader := csv.DictReader(lines)):
                    number, fixed = row.get("bug.id"), row.get("revision.id.fixed")
                    if not number or not fixed or not number.isdigit():
                        yield Problem(file, reader.line_num, "bug.id and revision.id.fixed are needed")
                        continue
                    report = next(
                        (row[k] for k in ("report.url", "report.id") if row.get(k) not in (None, "", "UNKNOWN")), ""
                    )
                    yield Bug(folder.name, number, fixed, report, split, file, reader.line_num)


def read(path: Path) -> Iterator[Task | Problem]:
    for bug in bugs(path):
        if isinstance(bug, Problem):
            yield bug
            continue
        try:
            yield _task(bug)
        except FileNotFoundError as error:
            missing = Path(error.filename).relative_to(bug.file.parent)
            yield Problem(bug.file, bug.line, f"{bug.project}-{bug.number} has no {missing}")
        except ValueError as error:
            yield Problem(bug.file, bug.line, f"{bug.project}-{bug.number}: {error}")


def _task(bug: Bug) -> Task:
    folder = bug.file.parent
    source_patch = _text(folder / "patches" / f"{bug.number}.src.patch")
    triggers = _triggers(_text(folder / "trigger_tests" / bug.number))
    if not triggers:
        raise ValueError(f"trigger_tests/{bug.number} names no test")
    relevant = _text(folder / "relevant_tests" / bug.number).split()
    classes = sorted({*relevant, *(test.split("::")[0] for test, _ in triggers)})
    return Task(
        id=f"defects4j-{bug.project}-{bug.number}",
        corpus="defects4j",
        split=bug.split,
        language="java",
        family=bug.project,
        source=Source(repo=REPOSITORIES.get(bug.project, bug.project), base_commit=bug.fixed, patches=[source_patch]),
        issue=failing_tests(bug.project, triggers, bug.report),
        test=_plan(bug, [test for test, _ in triggers], classes) if bug.project in ENCODINGS else _own(bug, triggers),
        solution=reverse(source_patch),
        provenance={"report": bug.report},
    )


def _text(file: Path) -> str:
    return (
        file.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")
        if file.suffix != ".patch"
        else _patch(file)
    )


def _patch(file: Path) -> str:
    """Line ends as they are: some sources have carriage returns."""
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not UTF-8 at byte {error.start}") from None


def _triggers(text: str) -> list[tuple[str, str]]:
    """(class::method, the exception's first line) of each block."""
    return re.findall(r"^--- (\S+::\S+)\n(.*)", text, flags=re.MULTILINE)


def _plan(bug: Bug, triggers: list[str], classes: list[str]) -> TestPlan:
    main, tests = _layout(bug)
    compiler = (
        f"javac -nowarn -encoding {ENCODINGS[bug.project]} --release 8 -d .crrl/classes "
        f"-sourcepath {main}:{tests} -cp .crrl/classes:{JARS}"
    )
    must = [_file(tests, test.split("::")[0]) for test in triggers]
    others = [file for name in classes if (file := _file(tests, name)) not in must]
    return TestPlan(
        command=_run(main, tests, classes),
        parser="junit",
        fail_to_pass=triggers,
        pass_to_pass=[],
        timeout_s=600.0,
        needs=["junit"],
        build=[
            _shell(f"{compiler} {shlex.join(sorted(set(must)))} CRRL_CANARY.java"),
            # Other tests that do not compile on this machine are not in the baseline.
            _shell(f"{compiler} -XDshould-stop.ifError=GENERATE {shlex.join(others)} || true" if others else "true"),
        ],
        report=_shell("cat .crrl/reports/TEST-*.xml"),
        protect=[f"{tests}/", "src/test/"],
        baseline=True,
    )


def _own(bug: Bug, triggers: list[tuple[str, str]]) -> TestPlan:
    """By Defects4J itself."""
    return TestPlan(
        command=_shell("defects4j test -r"),
        parser="defects4j",
        fail_to_pass=[test for test, _ in triggers],
        pass_to_pass=[],
        timeout_s=1800.0,
        needs=["defects4j"],
        build=[_shell("defects4j compile")],
        report=_shell("cat all_tests failing_tests"),
        protect=[f"{_layout(bug)[1]}/"],
        baseline=True,
    )


def _layout(bug: Bug) -> tuple[str, str]:
    """(sources, tests) of the fixed revision."""
    file = bug.file.parent / "dir-layout.csv"
    for row in csv.reader(file.read_text().splitlines()) if file.is_file() else ():
        if len(row) == 3 and row[0] == bug.fixed:
            return row[1], row[2]
    return "src/main/java", "src/test/java"


def _file(tests: str, name: str) -> str:
    return f"{tests}/{name.split('$')[0].replace('.', '/')}.java"


def _run(main: str, tests: str, classes: list[str]) -> Command:
    """All relevant classes that were compiled."""
    path = ":".join([".crrl/classes", main, tests, "src/main/resources", "src/test/resources", JARS])
    console = f"{JAVA} -cp {path} org.junit.platform.console.ConsoleLauncher --disable-banner --details=none"
    there = '[ -f ".crrl/classes/$(echo "$c" | tr . /).class" ] && printf -- " -c %s" "$c"'
    chosen = f"$(for c in {shlex.join(classes)}; do {there}; done)"
    line = f"{console} --reports-dir=.crrl/reports {chosen} -c CRRL_CANARY"
    return Command(["sh", "-c", line], env={"TZ": "America/Los_Angeles"})


def _shell(line: str) -> Command:
    return Command(["sh", "-c", line], timeout_s=300.0)


CORPUS = Corpus("defects4j", SPLITS, read, "https://github.com/rjust/defects4j")
