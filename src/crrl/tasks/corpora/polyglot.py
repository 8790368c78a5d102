"""Aider's polyglot benchmark: 225 Exercism exercises in six languages, two tries each. From a clone of its repository.

An exercise is a stub to fill in. The contents of `.meta/` and `.docs/` (the reference, hints) and the tests stay out of
the workspace; the instructions are the issue. Like the benchmark, we switch on the tests that Exercism skips at first.
Admission measures the list of tests.
Traps: `files.test` does not name everything that tests need (Go keeps cases in `editor` files); C++ takes the
exercise's name from its folder; all C++ exercises include one and the same `test/catch.hpp`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.quixbugs import CONSOLE, REPORT
from crrl.tasks.diffs import between
from crrl.tasks.files import Problem
from crrl.tasks.setup.toolchains import JARS, JUNIT

SPLITS = ("cpp", "go", "java", "javascript", "python", "rust")
TRIES = 2
ASSERTJ = f"{JARS}/assertj-core.jar"
CATCH = "test/catch.hpp"


@dataclass(frozen=True)
class Exercise:
    """`files`: path -> text of all that is in the folder; the lists are `.meta/config.json`'s."""

    language: str
    name: str
    files: dict[str, str]
    solution: list[str]
    tests: list[str]
    examples: list[str]

    @property
    def top(self) -> str:
        """The folder of the workspace it lies in: C++ builds go by its name."""
        return f"{self.name}/" if self.language == "cpp" else ""


def read(path: Path) -> Iterator[Task | Problem]:
    for language in SPLITS:
        for folder in sorted((path / language / "exercises" / "practice").glob("*")):
            if not folder.is_dir():
                continue
            try:
                yield _task(_exercise(language, folder))
            except (OSError, ValueError) as error:
                yield Problem(folder / ".meta" / "config.json", 0, f"{language}/{folder.name}: {error}")


def _exercise(language: str, folder: Path) -> Exercise:
    config = json.loads((folder / ".meta" / "config.json").read_text())
    lists = config.get("files") if isinstance(config, dict) else None
    if not isinstance(lists, dict):
        raise ValueError("files: missing")
    for key in ("solution", "test", "example"):
        if not isinstance(lists.get(key), list) or not lists[key] or not all(isinstance(x, str) for x in lists[key]):
            raise ValueError(f"files.{key}: a list of paths is needed")
        if missing := [name for name in lists[key] if not (folder / name).is_file()]:
            raise ValueError(f"files.{key}: {missing[0]} does not exist")
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in (".jar", ".bat"):
            files[file.relative_to(folder).as_posix()] = file.read_text()
    if language == "cpp" and CATCH not in files:
        files[CATCH] = next(iter(sorted(folder.parent.glob(f"*/{CATCH}")))).read_text()
    return Exercise(language, folder.name, files, lists["solution"], lists["test"], lists["example"])


def _task(exercise: Exercise) -> Task:
    hidden = [path for path in exercise.files if path.startswith(".") or path in _test_files(exercise)]
    shown = {exercise.top + path: text for path, text in exercise.files.items() if path not in hidden}
    instructions = [f".docs/{name}.md" for name in ("introduction", "instructions", "instructions.append")]
    solution = _reference(exercise)
    return Task(
        id=f"polyglot-{exercise.language}-{exercise.name}",
        corpus="polyglot",
        split=exercise.language,
        language=exercise.language,
        family=exercise.name,
        source=Source(files=shown),
        issue="\n\n".join(
            [exercise.files[path].strip() for path in instructions if path in exercise.files]
            + [f"Fill in {' and '.join(exercise.solution)}. Names and signatures that are there must stay."]
        ),
        test=_plan(exercise),
        solution="".join(between(path, shown.get(path), text) for path, text in sorted(solution.items())),
        tries=TRIES,
    )


def _test_files(exercise: Exercise) -> list[str]:
    """The tests, and what only they use."""
    beside = {
        "go": lambda path: path.endswith("_test.go"),
        "cpp": lambda path: path.startswith("test/"),
        "java": lambda path: path.startswith("src/test/"),
        "rust": lambda path: path.startswith("tests/"),
    }.get(exercise.language, lambda path: False)
    return [path for path in exercise.files if path in exercise.tests or beside(path)]


def _reference(exercise: Exercise) -> dict[str, str]:
    """Path in the workspace -> reference text. A reference belongs to the solution file of its own name or kind."""
    made = {}
    for example in exercise.examples:
        name, suffix = posixpath.basename(example), posixpath.splitext(example)[1]
        alike = [path for path in exercise.solution if posixpath.splitext(path)[1] == suffix]
        named = [path for path in alike if posixpath.basename(path) == name]
        beside = posixpath.join(posixpath.dirname(exercise.solution[0]), name)
        path = (named or (alike if len(alike) == 1 and exercise.language != "java" else [beside]))[0]
        made[exercise.top + path] = exercise.files[example]
    return made


def _plan(exercise: Exercise) -> TestPlan:
    tests = {exercise.top + path: _all_on(exercise, path) for path in _test_files(exercise)}
    command, build, report, parser, needs = _commands(exercise)
    return TestPlan(
        command=command,
        parser=parser,
        fail_to_pass=[],
        pass_to_pass=[],
        restore=tests,
        timeout_s=180.0,
        cpu_s=180,
        needs=needs,
        build=build,
        report=report,
        protect=[exercise.top + path for path in exercise.files if path in ("CMakeLists.txt", "build.gradle", "go.mod")]
        + [path for path in ("package.json", "babel.config.js") if path in exercise.files],
        baseline=True,
    )


def _all_on(exercise: Exercise, path: str) -> str:
    """Exercism marks all tests but the first as skipped; the benchmark runs all of them."""
    text = exercise.files[path]
    if exercise.language == "java":
        return re.sub(r"@Disabled(\(.*?\))?", "", text)
    if exercise.language == "javascript":
        return re.sub(r"\bx(test|it|describe)\b", r"\1", text)
    return text


def _commands(exercise: Exercise) -> tuple[Command, list[Command], Command | None, str, list[str]]:
    """How the tests of a language run: command, builds, report, parser, needs."""
    match exercise.language:
        case "python":
            return Command([path for path in exercise.tests]), [], None, "pytest", []
        case "java":
            sources = 'find src CRRL_CANARY.java -name "*.java"'
            build = f"javac -nowarn -encoding UTF-8 -d .crrl/classes -cp {JUNIT}:{ASSERTJ} $({sources})"
            run = CONSOLE.replace("-cp ", f"-cp {ASSERTJ}:", 1).split()
            return Command(run), [_shell(build)], _shell(REPORT), "junit", ["junit", "assertj"]
        case "go":
            return Command(["go", "test", "-json", "."]), [], None, "go", ["go"]
        case "rust":
            cargo = ["cargo", "test", "--offline", "--no-fail-fast", "--", "--include-ignored", "--test-threads=1"]
            return Command(cargo), [_shell("cargo test --offline --no-run")], None, "cargo", ["rust"]
        case "javascript":
            jest = "node /node_modules/jest/bin/jest.js --silent --rootDir=. --json --outputFile=.crrl/report.json ."
            return _shell(f"mkdir -p .crrl; {jest}"), [], _shell("cat .crrl/report.json"), "jest", ["jest"]
    folder = exercise.name
    make = "cmake -S . -B .crrl-build -DEXERCISM_RUN_ALL_TESTS=1 && cmake --build .crrl-build --target "
    run = [f".crrl-build/{folder}", "-r", "junit", "-o", ".crrl-report.xml"]
    return (
        Command(run, cwd=folder),
        [Command(["sh", "-c", make + folder], cwd=folder, timeout_s=300.0)],
        Command(["cat", ".crrl-report.xml"], cwd=folder),
        "catch",
        ["cmake"],
    )


def _shell(line: str) -> Command:
    return Command(["sh", "-c", line], timeout_s=180.0)


CORPUS = Corpus("polyglot", SPLITS, read, "https://github.com/Aider-AI/polyglot-benchmark")
