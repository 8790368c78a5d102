"""QuixBugs (Lin et al. 2017): 40 one-line bugs, each in Python and in Java. From a clone of its repository.

Each program is a separate task, with the modules it imports and nothing else: the other programs, the correct ones and
the tests stay out of the workspace. The corpus does not list the failing tests: admission measures them.
Traps: a buggy program may never end (bitcount), so runs have a CPU limit; the slow cases of knapsack and levenshtein
(over 40 s) are behind `--runslow`, and skipped here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from crrl import python_syntax
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.diffs import between
from crrl.tasks.files import Problem
from crrl.tasks.setup.toolchains import JUNIT

SPLITS = ("python", "java")
PYTHON_HELPERS = ("node.py",)
JAVA_HELPERS = ("Node.java", "WeightedEdge.java")
SOURCES = 'find java_programs java_testcases CRRL_CANARY.java -name "*.java"'
BUILD = f"javac -nowarn -encoding UTF-8 -d .crrl/classes -cp {JUNIT} $({SOURCES})"
CONSOLE = (
    "java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "
    f"-cp .crrl/classes:{JUNIT} org.junit.platform.console.ConsoleLauncher --disable-banner --details=none "
    "--reports-dir=.crrl/reports --scan-class-path=.crrl/classes --include-classname=.*"
)
EXPLAINED = re.compile(r'\n+"""(.*?)"""\s*\Z', re.DOTALL)
REPORT = "cat .crrl/reports/TEST-*.xml"


def read(path: Path) -> Iterator[Task | Problem]:
    for folder, make in (("python_programs", _python), ("java_programs", _java)):
        for file in sorted((path / folder).glob("*")):
            if file.suffix not in (".py", ".java") or file.name in (*PYTHON_HELPERS, *JAVA_HELPERS):
                continue
            if file.stem.endswith("_test"):  # drivers that print, not tests
                continue
            try:
                yield make(path, file)
            except FileNotFoundError as error:
                yield Problem(file, 0, f"{file.stem} has no {Path(error.filename).relative_to(path)}")
            except ValueError as error:
                yield Problem(file, 0, str(error))


def _python(root: Path, file: Path) -> Task:
    name = file.stem
    buggy, fixed = file.read_text(), (root / "correct_python_programs" / file.name).read_text()
    fixed = _code(fixed) + _after_code(buggy)  # only the buggy program is explained, after its code
    tests = [f"python_testcases/test_{name}.py", "python_testcases/load_testdata.py", "conftest.py"]
    optional = [f"json_testcases/{name}.json", *(f"python_testcases/{helper}" for helper in PYTHON_HELPERS)]
    tests += [path for path in optional if (root / path).is_file()]
    return Task(
        id=f"quixbugs-python-{name}",
        corpus="quixbugs",
        split="python",
        language="python",
        family=name,
        source=Source(
            files={f"python_programs/{file.name}": buggy} | _helpers(root, "python_programs", PYTHON_HELPERS)
        ),
        issue=_issue(name, f"python_programs/{file.name}", buggy),
        test=TestPlan(
            command=Command([tests[0]]),
            parser="pytest",
            fail_to_pass=[],
            pass_to_pass=[],
            restore={path: (root / path).read_text() for path in tests},
            timeout_s=60.0,
            cpu_s=10,
            baseline=True,
        ),
        solution=_solution(f"python_programs/{file.name}", buggy, fixed),
    )


def _code(program: str) -> str:
    """Up to the last statement that is not a bare text."""
    return "".join(program.splitlines(keepends=True)[: _code_lines(program)])


def _after_code(program: str) -> str:
    return "".join(program.splitlines(keepends=True)[_code_lines(program) :])


def _code_lines(program: str) -> int:
    for node in reversed(python_syntax.parse(program).body):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return node.end_lineno or 0
    raise ValueError("a program without code")


def _java(root: Path, file: Path) -> Task:
    name = file.stem
    buggy, fixed = file.read_text(), (root / "correct_java_programs" / file.name).read_text()
    fixed = re.sub(r"^package correct_java_programs;", "package java_programs;", fixed, flags=re.MULTILINE)
    fixed = re.sub(r"^import (correct_)?java_programs\..*\n", "", fixed, flags=re.MULTILINE)
    tests = [f"java_testcases/junit/{name}_TEST.java", "java_testcases/junit/QuixFixOracleHelper.java"]
    explained = root / "python_programs" / f"{name.lower()}.py"
    return Task(
        id=f"quixbugs-java-{name.lower()}",
        corpus="quixbugs",
        split="java",
        language="java",
        family=name.lower(),
        source=Source(files={f"java_programs/{file.name}": buggy} | _helpers(root, "java_programs", JAVA_HELPERS)),
        issue=_issue(name.lower(), f"java_programs/{file.name}", explained.read_text() if explained.is_file() else ""),
        test=TestPlan(
            command=Command(CONSOLE.split()),
            parser="junit",
            fail_to_pass=[],
            pass_to_pass=[],
            restore={path: (root / path).read_text() for path in tests},
            timeout_s=120.0,
            needs=["junit"],
            build=[Command(["sh", "-c", BUILD], timeout_s=120.0)],
            report=Command(["sh", "-c", REPORT]),
            baseline=True,
        ),
        solution=_solution(f"java_programs/{file.name}", buggy, fixed),
    )


def _helpers(root: Path, folder: str, names: tuple[str, ...]) -> dict[str, str]:
    paths = [f"{folder}/{name}" for name in names]
    return {path: (root / path).read_text() for path in paths if (root / path).is_file()}


def _solution(path: str, buggy: str, fixed: str) -> str:
    if not (patch := between(path, buggy, fixed)):
        raise ValueError("the correct program is the buggy one")
    return patch


def _issue(name: str, path: str, explained: str) -> str:
    """QuixBugs has no issue texts: what the program should do stands at the end of its Python version."""
    found = EXPLAINED.search(explained)
    said = f"What it should do:\n\n{found[1].strip()}\n" if found else ""
    return f"`{name}` in {path} gives wrong results, fails or does not end. The defect is in one line.\n\n{said}"


CORPUS = Corpus("quixbugs", SPLITS, read, "https://github.com/jkoppel/QuixBugs")
