"""`crrl tasks mine`: the fix commits of a repository's history that came with tests, turned into admitted tasks.

A candidate is a commit with one parent that changes code and tests; that its message sounds like a fix only lets it
come first. The task is the parent commit; the commit's tests are put back before they run, its change of the code is
the solution. Which tests must flip is measured: by the test command before and after. The issue is the commit's
message, unless that tells the repair; then, or where it says too little, it is what the failing tests printed.
Invariant 5: boxes see the parent's tree with a history of one commit.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath

import msgspec

from crrl.admission.admission import admit
from crrl.admission.work_file import WorkFile
from crrl.console.display import Display
from crrl.errors import CrrlError
from crrl.making.snapshot import git
from crrl.rewards.task_judge import TaskJudge
from crrl.sandbox.api import Sandbox
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.diffs import changes
from crrl.tasks.files import write_tasks
from crrl.tasks.setup import project
from crrl.tasks.setup.toolchains import JUNIT

VERSION = 1
AT_ONCE = 2  # commits
FIX = re.compile(
    r"\b(fix(e[sd]|ing)?|bugs?|defect|crash(es)?|regression|wrong|incorrect|broken|fail(s|ed|ure)?)\b", re.I
)
TESTS = re.compile(
    r"(^|/)(tests?|testing|__tests__|spec)/|(^|/)(test_[^/]*|[^/]*_test\.\w+|[^/]*Tests?\.java|[^/]*\.(test|spec)\.\w+)$"
)
TRAILER = re.compile(
    r"^(signed-off-by|co-authored-by|reviewed-by|change-id|cherry.picked|cc|acked-by)\b.*$|^\(cherry picked.*\)$",
    re.I | re.M,
)
LEAST_WORDS = 3  # of a message that says anything
MOST_LINES = 500  # of a patch that is one repair
CLASSES = ".crrl/classes"
JAVA = (
    f"mkdir -p {CLASSES} && javac -nowarn -encoding UTF-8 -d {CLASSES} -cp {JUNIT}:$CLASSPATH $(find . -name '*.java')"
)
JAVA_RUN = (
    f"java -Xmx512m -cp {CLASSES}:{JUNIT}:$CLASSPATH org.junit.platform.console.ConsoleLauncher --disable-banner "
    f"--details=none --reports-dir=.crrl/reports --scan-class-path={CLASSES} --include-classname=.*"
)
REPORTS = "cat .crrl/reports/TEST-*.xml"
PARSERS = {"go": ("go", "go"), "rust": ("cargo", "rust"), "javascript": ("jest", "jest")}
SUFFIXES = {"python": (".py",), "java": (".java",), "go": (".go",), "rust": (".rs",), "javascript": (".js", ".ts")}


@dataclass(frozen=True)
class Wanted:
    """As `make.Wanted`; `test`: the words of the test command, `since`: a date."""

    repository: Path
    out: Path
    limit: int = 100
    test: list[str] = field(default_factory=list)
    language: str = "python"
    since: str = ""
    setup: list[Command] | None = None
    times: int = 3


@dataclass
class Mined:
    tasks: list[Task]
    outcomes: Counter[str]


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str
    date: str
    message: str


async def mine(wanted: Wanted, boxes: Sandbox, judge: TaskJudge, display: Display) -> Mined:
    """Writes `wanted.out`. Raises CrrlError where there is nothing to make tasks of."""
    if wanted.language not in SUFFIXES:
        raise CrrlError(f"language={wanted.language} is not known.", f"There is: {', '.join(SUFFIXES)}.")
    if not wanted.test and wanted.language not in ("python", "java"):
        raise CrrlError(f"mine needs a test command for {wanted.language}.", "Write test='COMMAND'.")
    at = ["-c", "safe.directory=*", "-C", str(wanted.repository)]
    head = git([*at, "rev-parse", "HEAD"]).decode().strip()
    key = {"version": VERSION, "head": head, "test": wanted.test, "language": wanted.language, "since": wanted.since}
    key |= {"times": wanted.times, "setup": None if wanted.setup is None else [asdict(c) for c in wanted.setup]}
    work = WorkFile(wanted.out.with_suffix(".work"), key)
    tasks: list[Task] = []
    outcomes: Counter[str] = Counter()

    async def one(commit: Commit) -> None:
        if commit.id not in work.done:
            end = await _task(commit, at, wanted, boxes, judge)
            work.keep(commit.id, end if isinstance(end, str) else {"task": msgspec.to_builtins(end)})
        kept = work.done[commit.id]
        outcomes[kept if isinstance(kept, str) else "admitted"] += 1
        if not isinstance(kept, str) and len(tasks) < wanted.limit:
            tasks.append(msgspec.convert(kept["task"], Task))
        display.advance(1, **outcomes)

    commits = sorted(_commits(at, wanted.since), key=lambda commit: FIX.search(commit.message) is None)  # stable
    display.phase("trying commits", len(commits))
    try:
        for first in range(0, len(commits), AT_ONCE):
            if len(tasks) >= wanted.limit:
                break
            await asyncio.gather(*(one(commit) for commit in commits[first : first + AT_ONCE]))
    finally:
        work.close()
        if tasks:
            write_tasks(wanted.out, tasks)
    if not tasks:
        said = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
        raise CrrlError(
            f"None of {len(commits)} commits makes a task ({said or 'none has one parent'}).",
            "A commit is used if it changes code and tests, and a test fails before it and passes after.",
        )
    return Mined(tasks, outcomes)


def _commits(at: list[str], since: str) -> Iterator[Commit]:
    """With one parent, newest first."""
    dated = [f"--since={since}"] if since else []
    log = git([*at, "log", "--min-parents=1", "--max-parents=1", "-z", "--format=%H%n%P%n%cI%n%B", *dated])
    for entry in log.decode("utf-8", "replace").split("\0"):
        if entry.strip():
            id, parent, date, message = entry.split("\n", 3)
            yield Commit(id, parent, date, message.strip())


async def _task(commit: Commit, at: list[str], wanted: Wanted, boxes: Sandbox, judge: TaskJudge) -> Task | str:
    """The admitted task, or why there is none."""
    diff = ["diff", "--no-renames", "--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/", "--full-index"]
    listed = git([*at, *diff, "--name-only", "-z", commit.parent, commit.id]).decode("utf-8", "replace")
    paths = [path for path in listed.split("\0") if path]
    tests = [path for path in paths if TESTS.search(path)]
    code = [path for path in paths if path not in tests and path.endswith(SUFFIXES[wanted.language])]
    if not code or not any(path.endswith(SUFFIXES[wanted.language]) for path in tests):
        return "without code or tests"
    solution = git([*at, *diff, commit.parent, commit.id, "--", *code]).decode("utf-8", "surrogateescape")
    if not solution.isascii() and "\udc80" <= max(solution) <= "\udcff":
        return "not text"
    if sum(len(lines) for _, lines in changes(solution)) > MOST_LINES:
        return "too large"
    source = Source(repo=str(wanted.repository.resolve()), base_commit=commit.parent)
    tree = (await boxes.prepare(source)).lower
    setup = wanted.setup
    if setup is None:
        setup = project.setup(tree) if wanted.language == "python" else []
    restore = {path: commit.id for path in tests}
    name = wanted.repository.resolve().name
    plan = _plan(wanted, [path for path in tests if (path.endswith(".py"))], restore)
    task = Task(
        id=f"{name}-{commit.id[:12]}",
        corpus=name,
        split="train",
        language=wanted.language,
        family=str(PurePath(code[0]).with_suffix("")).replace("/", "."),
        source=source,
        issue="",
        test=plan,
        setup=setup,
        solution=solution,
        created_at=commit.date,
        provenance={"commit": commit.id},
    )
    admission = await admit(task, judge, wanted.times)
    if admission.task is None:
        why = admission.reasons[0] if admission.reasons else ""
        if admission.status == "unavailable":
            raise CrrlError(f"{commit.id[:12]}: {why}", "Correct test= or setup=, or leave the commit out: since=DATE.")
        return "no test flips" if "no test fails" in why else admission.status
    return replace(admission.task, issue=await _issue(commit, admission.task, judge))


def _plan(wanted: Wanted, tests: list[str], restore: dict[str, str]) -> TestPlan:
    """For pytest: the changed test files, unless the command says which; for others: the command, over all."""
    if wanted.language == "python":
        words = wanted.test[wanted.test.index("pytest") + 1 :] if "pytest" in wanted.test else wanted.test
        return TestPlan(Command(words or tests), "pytest", [], [], restore_from=restore, timeout_s=300.0, baseline=True)
    if wanted.language == "java":
        run = Command(["sh", "-c", JAVA_RUN])
        build = [Command(["sh", "-c", JAVA])]
        if wanted.test:  # compiles and runs; leaves JUnit's reports in .crrl/reports
            run, build = Command(wanted.test), []
        return TestPlan(
            run, "junit", [], [], restore_from=restore, timeout_s=600.0, needs=["junit"], build=build,
            report=Command(["sh", "-c", REPORTS]), baseline=True,
        )  # fmt: skip
    parser, needs = PARSERS[wanted.language]
    return TestPlan(
        Command(wanted.test), parser, [], [], restore_from=restore, timeout_s=600.0, needs=[needs], baseline=True
    )


async def _issue(commit: Commit, task: Task, judge: TaskJudge) -> str:
    """The message, or, where it is no report or shows the repair, what the failing tests say."""
    message = TRAILER.sub("", commit.message).strip()
    if len(message.split()) >= LEAST_WORDS and not _tells_repair(message, task.solution or ""):
        return f"{message}\n"
    failing = "\n".join(f"- {test}" for test in task.test.fail_to_pass[:10])
    output = (await judge.run(task, "")).output.strip()[-2000:]
    return f"These tests fail, and should pass:\n\n{failing}\n\nThey print:\n\n```\n{output}\n```\n"


def _tells_repair(message: str, solution: str) -> bool:
    """Whether a line that the repair adds stands in the message."""
    said = " ".join(message.split())
    added = (" ".join(line[1:].split()) for _, lines in changes(solution) for line in lines if line[0] == "+")
    return any(len(line) >= 8 and line in said for line in added)
