"""How `mine` runs the tests of a repository, language by language: `Wanted.test` made a plan of."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import PurePath

from crrl.errors import CrrlError
from crrl.task import Command, TestPlan
from crrl.tasks.setup.toolchains import JUNIT

SUFFIXES = {
    "python": (".py",),
    "java": (".java",),
    "go": (".go",),
    "rust": (".rs",),
    "javascript": (".js", ".jsx", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx"),
}
MARKS = {"pyproject.toml": "python", "setup.py": "python", "setup.cfg": "python", "go.mod": "go"}
MARKS |= dict.fromkeys(("pom.xml", "build.gradle", "build.gradle.kts", "build.xml"), "java")
MARKS |= {"package.json": "javascript", "Cargo.toml": "rust"}
"""What the folder of a project has -> its language; the first that there is."""
TEST = {"go": "go test -json ./...", "rust": "cargo test", "javascript": "npm test"}
"""What to suggest where `mine` needs a test command."""
CLASSES = ".crrl/classes"
JAVA = (
    f"mkdir -p {CLASSES} && javac -nowarn -encoding UTF-8 -d {CLASSES} -cp {JUNIT}:$CLASSPATH $(find . -name '*.java')"
)
JAVA_RUN = (
    f"java -Xmx512m -cp {CLASSES}:{JUNIT}:$CLASSPATH org.junit.platform.console.ConsoleLauncher --disable-banner "
    f"--details=none --reports-dir=.crrl/reports --scan-class-path={CLASSES} --include-classname=.*"
)
REPORTS = "cat .crrl/reports/TEST-*.xml"
REPORT_XML, REPORT_JSON = ".crrl/report.xml", ".crrl/report.json"
FOLDER = Command(["mkdir", "-p", ".crrl"])


def language_of(files: Collection[str]) -> str:
    """Of a project with these files at its top; Python, where they do not say."""
    return next((language for mark, language in MARKS.items() if mark in files), "python")


def pytest_words(test: Sequence[str]) -> list[str] | None:
    """What pytest is given where the warm judge can run it: `pytest ...`, `python -m pytest ...`, or nothing said."""
    if any("--junit" in word for word in test):
        return None
    if not test or test[0] == "pytest":
        return list(test[1:])
    return list(test[3:]) if test[1:3] == ["-m", "pytest"] else None


def check(language: str, test: Sequence[str]) -> None:
    """Raises CrrlError for what cannot give a report."""
    if language not in SUFFIXES:
        raise CrrlError(f"language={language} is not known.", f"There is: {', '.join(SUFFIXES)}.")
    if not test and language not in ("python", "java"):
        raise CrrlError(f"mine needs a test command for {language}.", f"Write test='{TEST[language]}'.")
    said = " ".join(test)
    if re.search(r"--no-?capture|--show-output|RUST_TEST_NOCAPTURE", said):
        raise CrrlError("What tests print stands between their names and results (--nocapture).", "Leave it out.")
    if language == "rust" and (unnamed := re.search(r"(?<!\S)(-q|--quiet|--format[= ]\S+|nextest)(?!\S)", said)):
        raise CrrlError(f"mine cannot read what {unnamed[1]} prints.", "Write test='cargo test'.")
    if language == "javascript" and (other := re.search(r"\b(vitest|mocha|ava|tap|node --test)\b", said)):
        raise CrrlError(f"mine reads jest's report, not that of {other[1]}.", "crrl tasks make can run mocha, vitest.")
    if language == "go" and "-json" not in said:
        raise CrrlError("go test prints results that can be read with -json only.", "Write test='go test -json ./...'.")


def plan(language: str, test: Sequence[str], tests: list[str], restore: dict[str, str]) -> TestPlan:
    """`tests`: the changed test files that are there; `restore`: path -> commit of what is put back."""
    shared = TestPlan(Command([]), "", [], [], restore_from=restore, timeout_s=600.0, baseline=True)
    return _PLANS[language](list(test), tests, shared)


def _python(test: list[str], tests: list[str], plan: TestPlan) -> TestPlan:
    """pytest on the changed test files, unless the command says which; another command leaves JUnit's XML."""
    if (words := pytest_words(test)) is not None:
        return _with(plan, Command(words or [path for path in tests if path.endswith(".py")]), "pytest")
    report = Command(["cat", REPORT_XML])
    return _with(plan, Command(test), "pytest-xml", build=[FOLDER], report=report)


def _java(test: list[str], tests: list[str], plan: TestPlan) -> TestPlan:
    run, build = Command(["sh", "-c", JAVA_RUN]), [Command(["sh", "-c", JAVA])]
    if test:  # compiles and runs; leaves JUnit's reports in .crrl/reports
        run, build = Command(test), []
    return _with(plan, run, "junit", needs=["junit"], build=build, report=Command(["sh", "-c", REPORTS]))


def _go(test: list[str], tests: list[str], plan: TestPlan) -> TestPlan:
    return _with(plan, Command(test), "go", needs=["go"])


def _rust(test: list[str], tests: list[str], plan: TestPlan) -> TestPlan:
    """cargo goes on after a test binary that fails: the others' tests would be missing."""
    if "--no-fail-fast" not in " ".join(test):
        cargo = next((place for place, word in enumerate(test) if PurePath(word).name == "cargo"), len(test))
        if "test" not in test[cargo:]:
            raise CrrlError("A shell command for cargo has to go on after a failure.", "Add --no-fail-fast.")
        after = test.index("test", cargo) + 1
        test = [*test[:after], "--no-fail-fast", *test[after:]]
    return _with(plan, Command(test), "cargo", needs=["rust"])


def _javascript(test: list[str], tests: list[str], plan: TestPlan) -> TestPlan:
    """jest writes its report into a file: what tests print goes to where it would print it."""
    said = " ".join(test)
    if "--outputFile" not in said:
        through = ["--"] if PurePath(test[0]).name in ("npm", "pnpm") and "--" not in test else []
        if test[0] in ("sh", "bash"):
            raise CrrlError(
                "A shell command for jest has to name the report.", f"Add --json --outputFile={REPORT_JSON}."
            )
        test = [*test, *through, "--json", f"--outputFile={REPORT_JSON}"]
    elif REPORT_JSON not in said:
        raise CrrlError(f"The report of {shlex.join(test)} is looked for elsewhere.", f"--outputFile={REPORT_JSON}")
    return _with(plan, Command(test), "jest", needs=["jest"], build=[FOLDER], report=Command(["cat", REPORT_JSON]))


def _with(
    plan: TestPlan,
    command: Command,
    parser: str,
    *,
    needs: Sequence[str] = (),
    build: Sequence[Command] = (),
    report: Command | None = None,
) -> TestPlan:
    return TestPlan(
        command, parser, [], [], restore_from=plan.restore_from, timeout_s=plan.timeout_s, needs=list(needs),
        build=list(build), report=report, baseline=True,
    )  # fmt: skip


_PLANS = {"python": _python, "java": _java, "go": _go, "rust": _rust, "javascript": _javascript}
