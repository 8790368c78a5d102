"""`crrl tasks mine`: the fix commits of a repository's history that came with tests, turned into admitted tasks.

A candidate is a commit with one parent that changes code and tests; that its message sounds like a fix only lets it
come first. The task is the parent commit; the commit's tests are put back before they run, its change of the code is
the solution. Which tests must flip is measured: by the test command before and after. The issue is the commit's
message, unless that tells the repair (`mined_issue.py`). No commit ends the run: each that is refused gets its reason.
Invariant 5: boxes see the parent's tree with a history of one commit.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath

import msgspec

from crrl.admission.admission import admit
from crrl.admission.work_file import WorkFile
from crrl.console.display import Display
from crrl.errors import CrrlError
from crrl.making import mined_issue, plans
from crrl.making.commits import Commit, History
from crrl.making.interface import interface
from crrl.making.outcomes import LATER, Outcomes, Refused, refused
from crrl.making.pytest_options import PYTEST, first_that_runs, left_out, plugins_env, refuse_part_of_pytest
from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.sandbox.api import ExecResult, Mount, Sandbox, Spec
from crrl.task import Command, Source, Task
from crrl.tasks.diffs import changes
from crrl.tasks.files import write_tasks
from crrl.tasks.setup import project, toolchains
from crrl.tasks.setup.environments import Environment, with_generated

VERSION = 4
AT_ONCE = 2  # commits
FIX = re.compile(
    r"\b(fix(e[sd]|ing)?|bugs?|defect|crash(es)?|regression|wrong|incorrect|broken|fail(s|ed|ure)?)\b", re.I
)
MOST_LINES = 500  # of a patch that is one repair
NO_CANDIDATE = "without code or tests"


@dataclass(frozen=True)
class Wanted:
    """As `make.Wanted`; `test`: the words of the test command, `since`: a date, `language`: "": what the files say."""

    repository: Path
    out: Path
    limit: int = 100
    test: list[str] = field(default_factory=list)
    language: str = ""
    since: str = ""
    setup: list[Command] | None = None
    times: int = 3


@dataclass
class Mined:
    tasks: list[Task]
    outcomes: Outcomes


async def mine(wanted: Wanted, boxes: Sandbox, judge: TaskJudge, display: Display) -> Mined:
    """Writes `wanted.out`. Raises CrrlError where there is nothing to make tasks of."""
    history = History(wanted.repository)
    wanted = replace(wanted, language=wanted.language or plans.language_of(history.files()))
    plans.check(wanted.language, wanted.test)
    toolchains.require(plans.plan(wanted.language, wanted.test, [], {}).needs, judge.state_dir)
    key = {"version": VERSION, "head": history.head, "test": wanted.test, "language": wanted.language}
    key |= {"since": wanted.since, "times": wanted.times}
    key |= {"setup": None if wanted.setup is None else [asdict(c) for c in wanted.setup]}
    work = WorkFile(wanted.out.with_suffix(".work"), key)
    miner = Miner(wanted, history, boxes, judge)
    tasks: list[Task] = []
    outcomes = Outcomes()

    async def one(commit: Commit) -> None:
        end: Task | Refused
        if (kept := work.done.get(commit.id)) is not None:
            end = refused(kept) or msgspec.convert(kept["task"], Task)
        else:
            end = await miner.task(commit)
            if not (isinstance(end, Refused) and end.reason in LATER):
                work.keep(commit.id, end.kept() if isinstance(end, Refused) else {"task": msgspec.to_builtins(end)})
            if isinstance(end, Refused) and end.reason != NO_CANDIDATE:
                display.note(f"{commit.id[:12]}  {end.reason}{f': {end.why}' if end.why else ''}")
        outcomes.add(end if isinstance(end, Refused) else None)
        if isinstance(end, Task) and len(tasks) < wanted.limit:
            tasks.append(end)
        display.advance(1, **outcomes.counts)

    commits = sorted(history.commits(wanted.since), key=lambda commit: FIX.search(commit.message) is None)  # stable
    if history.shallow:
        display.note(f"{wanted.repository} is a shallow clone: only {len(commits)} commits of its history are here.")
    display.phase("trying commits", len(commits))
    try:
        for first in range(0, len(commits), AT_ONCE):
            if len(tasks) >= wanted.limit:
                break
            await asyncio.gather(*(one(commit) for commit in commits[first : first + AT_ONCE]))
    finally:
        work.close()
        outcomes.tell(display)
        if tasks:
            write_tasks(wanted.out, tasks)
    if not tasks:
        said = outcomes.said() or f"{history.merges(wanted.since)} merges, and none with one parent"
        raise CrrlError(f"None of {len(commits)} commits makes a task ({said}).", _remedy(wanted, history, outcomes))
    return Mined(tasks, outcomes)


def _remedy(wanted: Wanted, history: History, outcomes: Outcomes) -> str:
    """Of what most commits that were tried have failed on."""
    if history.shallow:
        return "It is a shallow clone. Get its history: git fetch --unshallow"
    reason = next((reason for reason in outcomes.refused if reason != NO_CANDIDATE), NO_CANDIDATE)
    why = next(iter(outcomes.whys.get(reason, ())), "")
    if reason == "unavailable":
        return f"{why}. Say how its packages are installed (setup=CMD), or leave old commits out (since=DATE)."
    if reason == "broken":
        how = "test='pytest ARGS'" if wanted.language == "python" else "test=CMD"
        return f"{why}. Say how its tests are run ({how}), and what they need (setup=CMD)."
    used = "A commit is used if it changes code and tests, and a test fails before it and passes after."
    if reason == NO_CANDIDATE:
        files = " ".join(f"*{suffix}" for suffix in plans.SUFFIXES[wanted.language])
        return f"{used} Looked at: {files} (language={wanted.language})."
    return used


class Miner:
    """Makes tasks of commits, one by one."""

    def __init__(self, wanted: Wanted, history: History, boxes: Sandbox, judge: TaskJudge) -> None:
        self.wanted, self.history, self.boxes, self.judge = wanted, history, boxes, judge

    async def task(self, commit: Commit) -> Task | Refused:
        """The admitted task, or why there is none."""
        try:
            return await self._task(commit)
        except Exception as error:  # one commit never ends the run
            return Refused.by(error)

    async def _task(self, commit: Commit) -> Task | Refused:
        wanted, suffixes = self.wanted, plans.SUFFIXES[self.wanted.language]
        changed = list(self.history.changed(commit))
        tests = [file for file in changed if file.is_test and file.plain]
        code = [file.path for file in changed if not file.is_test and file.path.endswith(suffixes)]
        there = [file.path for file in tests if file.there]
        if not code or not any(path.endswith(suffixes) for path in there):
            return Refused(NO_CANDIDATE)
        if any("\udc80" <= letter <= "\udcff" for path in (*code, *(file.path for file in tests)) for letter in path):
            return Refused("not text", "the name of a file that it changes is not UTF-8")
        solution = self.history.diff(commit, code)
        if solution is None:
            return Refused("not text", "its change of the code is not UTF-8")
        if sum(len(lines) for _, lines in changes(solution)) > MOST_LINES:
            return Refused("too large", f"its change of the code is longer than {MOST_LINES} lines")
        source = Source(repo=str(wanted.repository.resolve()), base_commit=commit.parent)
        tree = (await self.boxes.prepare(source)).lower
        name = wanted.repository.resolve().name
        task = Task(
            id=f"{name}-{commit.id[:12]}",
            corpus=name,
            split="train",
            language=wanted.language,
            family=str(PurePath(code[0]).with_suffix("")).replace("/", "."),
            source=source,
            issue="",
            test=plans.plan(wanted.language, wanted.test, there, {file.path: commit.id for file in tests}),
            setup=self._setup(tree),
            solution=solution,
            created_at=commit.date,
            provenance={"commit": commit.id},
        )
        if task.test.parser == "pytest":
            refuse_part_of_pytest(tree)
        environment = await self.judge.environment(task)
        task = with_generated(task, environment)
        if task.test.parser == "pytest":
            command = replace(
                task.test.command, argv=[*await self._options(task, environment), *task.test.command.argv]
            )
            task = replace(task, test=replace(task.test, command=command))
        admission = await admit(task, self.judge, wanted.times)
        if admission.task is None:
            why = admission.reasons[0] if admission.reasons else ""
            return Refused("no test flips") if "no test fails" in why else Refused(admission.status, why)
        test_paths = [file.path for file in tests if file.path.endswith(suffixes)]
        return await self._told(commit, admission.task, self.history.diff(commit, test_paths) or "")

    def _setup(self, tree: Path) -> list[Command]:
        if self.wanted.setup is not None:
            return self.wanted.setup
        return project.setup(tree) if self.wanted.language == "python" else []

    async def _options(self, task: Task, environment: Environment | None) -> list[str]:
        """What pytest needs here: the environment's plugins, and not what its configuration asks for in vain."""
        site = Mount(self.judge.harness.path / "site", SITE)
        mounts, env = [site], plugins_env(environment)
        if environment is not None:
            mounts, env = [*mounts, environment.mount], env | environment.variables
        box = await self.boxes.start(Spec(await self.boxes.prepare(task.source), mounts, env=env))
        try:
            out = await left_out(box, environment)

            async def once(options: Sequence[str]) -> ExecResult:
                return await box.exec([*PYTEST, *options, "--markers"], timeout_s=120.0)

            options, _ = await first_that_runs(once, out)
        finally:
            await box.close()
        return options

    async def _told(self, commit: Commit, task: Task, tests: str) -> Task | Refused:
        """The task with its issue. Refused where nothing could be run before the repair, and nobody says why."""
        solution = task.solution or ""
        buggy = await self.judge.run(task, "")
        text = mined_issue.report(commit.message, solution, tests)
        brought = [line for line in interface(solution, tests) if line.split("`")[1] not in text]
        if not brought and not task.test.pass_to_pass and set(buggy.tests.values()) <= {"missing", "error"}:
            return Refused("nothing runs before the repair", "its tests do not compile, or cannot be imported")
        if not text:
            failing = "\n".join(f"- {test}" for test in task.test.fail_to_pass[:10])
            output = buggy.output.strip()[-2000:]
            text = f"These tests fail, and should pass:\n\n{failing}\n\nThey print:\n\n```\n{output}\n```"
        if brought:
            listed = "\n".join(f"- {line}" for line in brought)
            text = f"{text}\n\nThe tests use what is not there yet:\n\n{listed}"
        return replace(task, issue=f"{text}\n")
