"""GitBug-Java (Silva et al. 2024, arXiv:2402.02961): 199 recent bugs of Java projects. From a clone of its repository.

`data/bugs/<owner>-<repo>.json` has one record per line. The buggy tree is the previous commit with `non_code_patch` and
`test_patch`; where a bug was only in the tests, the previous commit as it is. Each record has three runs of all
tests: the failing ones are in the second (PASS_PASS: new tests on the old code) or the first (FAIL_PASS: the old
commit failed), and the third is the repair's. Success means that every test of the third run passes again.
Traps: a run can be null; builds go through Maven or Gradle and need the projects' dependencies. Projects that need
no more than JUnit (`PLAIN`) are built here with javac.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.issue import failing_tests
from crrl.tasks.corpora.quixbugs import CONSOLE
from crrl.tasks.corpora.quixbugs import REPORT as CONSOLE_REPORT
from crrl.tasks.corpora.rows import Row, diff, read_files, text
from crrl.tasks.diffs import touched
from crrl.tasks.files import Problem
from crrl.tasks.setup.toolchains import JUNIT

FAILING_RUN = {"PASS_PASS": 1, "FAIL_PASS": 0}
COMMANDS = {
    "maven": ["mvn", "-o", "-B", "-q", "-fae", "-llr", "-Dmaven.repo.local=/opt/m2", "test"],
    "gradle": ["/opt/gradle/bin/gradle", "--offline", "--no-daemon", "-g", "/opt/gradle-home", "--continue", "test"],
}
REPORT = 'find . -path "*/surefire-reports/TEST-*.xml" -o -path "*/test-results/test/TEST-*.xml" | sort | xargs cat'


@dataclass(frozen=True)
class Plain:
    """How javac and JUnit build a project. `sources`, `resources`: folders, tests' included. `jupiter`: JUnit 5, which
    writes `name()` where surefire writes `name`."""

    sources: tuple[str, ...] = ("src/main/java", "src/test/java")
    resources: tuple[str, ...] = ("src/main/resources", "src/test/resources")
    jupiter: bool = False


PLAIN = {
    "GoSimpleLLC/nbvcxz": Plain(),
    "fusesource/jansi": Plain(jupiter=True),
    "iipc/jwarc": Plain(("src", "test"), ("resources", "test-resources")),
}


def read(path: Path) -> Iterator[Task | Problem]:
    folder = path / "data" / "bugs"
    yield from read_files(folder if folder.is_dir() else path, convert, ("test",))


def convert(row: Row, split: str) -> Task:
    repo, commit = text(row, "repository"), text(row, "commit_hash")
    solution, tests, rest = (diff(row, key, "") for key in ("bug_patch", "test_patch", "non_code_patch"))
    if not solution:
        raise ValueError("bug_patch: empty: the bug was only in the tests")
    strategy = text(row, "strategy")
    if strategy not in FAILING_RUN:
        raise ValueError(f"strategy: {strategy} is neither PASS_PASS nor FAIL_PASS")
    runs = row.get("actions_runs")
    if not isinstance(runs, list) or len(runs) != 3:
        raise ValueError("actions_runs: three runs are needed")
    passed, failed = _results(runs, 2), _results(runs, FAILING_RUN[strategy])
    fixed = [test for test, (status, _) in passed.items() if status == "Passed"]
    flip = [test for test in fixed if failed.get(test, ("", ""))[0] != "Passed"]
    if not flip:
        raise ValueError("actions_runs: no test fails before and passes after")
    tool = _build_tool(runs)
    plan = _plain(PLAIN[repo], flip, fixed) if repo in PLAIN else _built(tool, flip, fixed)
    return Task(
        id=f"{repo.replace('/', '-')}-{commit[:12]}",
        corpus="gitbug-java",
        split=split,
        language="java",
        family=repo,
        source=Source(
            repo=text(row, "clone_url"),
            base_commit=text(row, "previous_commit_hash"),
            patches=[patch for patch in (rest, tests) if patch.strip()],
        ),
        issue=_issue(row, repo, [(test, failed.get(test, ("", ""))[1]) for test in flip]),
        test=replace(plan, protect=[*touched(tests), "src/test/", *_test_folders(repo)]),
        solution=solution,
        created_at=text(row, "commit_timestamp", ""),
        provenance={"strategy": strategy, "change": text(row, "change_type", ""), "build": tool},
    )


def _built(tool: str, flip: list[str], fixed: list[str]) -> TestPlan:
    """By the project's own build tool."""
    return TestPlan(
        command=Command(COMMANDS[tool]),
        parser="surefire",
        fail_to_pass=flip,
        pass_to_pass=[test for test in fixed if test not in set(flip)],
        timeout_s=1800.0,
        needs=[tool],
        report=Command(["sh", "-c", REPORT]),
    )


def _test_folders(repo: str) -> list[str]:
    """Where a project that is built here has its tests, and what they read."""
    project = PLAIN.get(repo, Plain())
    folders = [folder for part in (project.sources, project.resources) for folder in part if "test" in folder]
    return [f"{folder}/" for folder in folders if not folder.startswith("src/test/")]


def _plain(project: Plain, flip: list[str], fixed: list[str]) -> TestPlan:
    """By javac and JUnit alone."""

    def own(test: str) -> str:
        return f"{test}()" if project.jupiter and not test.endswith((")", "]")) else test

    sources = f"$(find {shlex.join(project.sources)} CRRL_CANARY.java -name '*.java' ! -name module-info.java)"
    javac = f"javac -nowarn -proc:none -encoding UTF-8 -d .crrl/classes -cp {JUNIT} {sources}"
    copy = [f"if [ -d {folder} ]; then cp -r {folder}/. .crrl/classes; fi" for folder in project.resources]
    return TestPlan(
        command=Command(CONSOLE.split()),
        parser="junit",
        fail_to_pass=[own(test) for test in flip],
        pass_to_pass=[own(test) for test in fixed if test not in set(flip)],
        timeout_s=600.0,
        needs=["junit"],
        build=[Command(["sh", "-c", " && ".join([javac, *copy])], timeout_s=300.0)],
        report=Command(["sh", "-c", CONSOLE_REPORT]),
    )


def _results(runs: list[Any], index: int) -> dict[str, tuple[str, str]]:
    """Test -> (result, message) of all jobs of a run."""
    if runs[index] is None:
        raise ValueError(f"actions_runs[{index}]: null")
    found = {}
    try:
        for job in runs[index]:
            for test in job["tests"]:
                (result, *_) = test["results"]
                found[f"{test['classname']}::{test['name']}"] = (result["result"], result["message"] or "")
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"actions_runs[{index}]: each test needs classname, name and a result") from None
    return found


def _build_tool(runs: list[Any]) -> str:
    tools = [str(job.get("build_tool")) for run in runs if run for job in run if isinstance(job, dict)]
    tool = next((tool for tool in tools if tool in COMMANDS), "")
    if not tool:
        raise ValueError(f"actions_runs: build_tool {tools[:1]} is neither maven nor gradle")
    return tool


def _issue(row: Row, repo: str, failures: list[tuple[str, str]]) -> str:
    """The issues that the repair names, else the failing tests; its commit message would reveal the repair."""
    issues = [issue for issue in row.get("issues") or [] if isinstance(issue, dict) and issue.get("title")]
    told = [f"{issue['title']}\n\n{issue.get('body') or ''}".strip() for issue in issues]
    return "\n\n".join([*told, failing_tests(repo, failures)])


CORPUS = Corpus("gitbug-java", ("test",), read, "https://github.com/gitbugactions/gitbug-java")
