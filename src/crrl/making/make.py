"""`crrl tasks make`: a Python project with a pytest suite, turned into admitted tasks.

The suite runs once under coverage (`survey.py`). Mutants (`real_mutation.py`) are put where tests cover the code,
function by function; the covering tests and their neighbours judge each, in the judge that training uses. Where some
fail and others pass, an issue is written from a failure (`failures.py`), a share of the failing tests is kept back from
the agent, and the task is admitted like any other. Everything is drawn from the seed, whatever ends first; what became
of each candidate is kept as it ends (`work_file.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath

import msgspec

from crrl.admission.admission import admit
from crrl.admission.work_file import WorkFile
from crrl.console.display import Display
from crrl.errors import CrrlError, LostError
from crrl.making import snapshot
from crrl.making.failures import failures, issue
from crrl.making.hiding import without_tests
from crrl.making.real_mutation import Function, Mutant, functions
from crrl.making.survey import Survey, survey
from crrl.rewards.exploits import Protected
from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.sandbox.api import Mount, Sandbox
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.diffs import between
from crrl.tasks.files import write_tasks
from crrl.tasks.setup import project
from crrl.tasks.setup.environments import with_generated

VERSION = 1
AT_ONCE = 4  # candidates screened at a time, while at most as many are being admitted
TRIES, MOST = 16, 4  # mutants tried, and tasks taken, of one function
STAY_S, STAY = 2.0, 60  # seconds of tests, and tests, that a task asks for besides those that cover its line
ARGUMENTS = 60  # test functions named to pytest; beyond that, whole files
SHOWN = 3  # one in so many failing test functions stays in the agent's workspace
LATER = ("lost", "timed out", "unavailable")  # it may be the machine: tried again when the command is given again
LEAST_CHARS = 8  # of a line whose appearance in an issue gives the repair away


@dataclass(frozen=True)
class Wanted:
    """Args:
    setup: commands that build the environment; None: what the project's own files ask for.
    tests: what of the suite, as pytest's arguments; all of it.
    times: of admission.
    """

    repository: Path
    out: Path
    limit: int = 100
    seed: int = 0
    setup: list[Command] | None = None
    tests: list[str] = field(default_factory=list)
    times: int = 3
    timeout_s: float = 1200.0


@dataclass
class Made:
    """What came of it: `outcomes` counts candidates by what became of them."""

    tasks: list[Task]
    tests: int
    functions: int
    outcomes: Counter[str]


async def make(wanted: Wanted, boxes: Sandbox, judge: TaskJudge, display: Display) -> Made:
    """Writes `wanted.out`, and beside it the repository's tree (`.git`) and the work file (`.work`).

    Raises CrrlError where there is nothing to make tasks of."""
    store = wanted.out.with_suffix(".git")
    commit = await asyncio.to_thread(snapshot.take, wanted.repository, store)
    source = Source(repo=str(store.resolve()), base_commit=commit)
    tree = (await boxes.prepare(source)).lower
    setup = project.setup(tree) if wanted.setup is None else wanted.setup
    key = {"version": VERSION, "commit": commit, "seed": wanted.seed, "tests": wanted.tests, "times": wanted.times}
    work = WorkFile(wanted.out.with_suffix(".work"), key | {"setup": [asdict(command) for command in setup]})
    plan = TestPlan(Command(wanted.tests), "pytest", [], [])
    base = Task("base", wanted.repository.resolve().name, "train", "python", "", source, "", plan, setup)
    try:
        maker = Maker(base, tree, wanted, judge, work, display)
        await maker.prepare(boxes)
        try:
            await maker.run()
        finally:
            if maker.tasks:
                write_tasks(wanted.out, [_beside(task, store) for task in maker.tasks])
    finally:
        work.close()
    if not maker.tasks:
        counts = ", ".join(f"{number} {outcome}" for outcome, number in maker.outcomes.most_common())
        raise CrrlError(f"No task was made of {len(maker.stable)} tests ({counts or 'nothing to change'}).", LITTLE)
    return Made(maker.tasks, len(maker.stable), len(maker.pool), maker.outcomes)


LITTLE = "The suite may cover too little, or assert too little: mutants that no test notices make no task."


def _beside(task: Task, store: Path) -> Task:
    """With the repository named relative to the task file."""
    return replace(task, source=replace(task.source, repo=f"./{store.name}"))


class Maker:
    """One run. `stable`: the tests that pass in the judge, with their seconds."""

    def __init__(
        self, base: Task, tree: Path, wanted: Wanted, judge: TaskJudge, work: WorkFile, display: Display
    ) -> None:
        self.base, self.tree, self.wanted = base, tree, wanted
        self.judge, self.work, self.display = judge, work, display
        self.admitted: dict[int, Task] = {}  # by the place in which they were drawn
        self.outcomes: Counter[str] = Counter()
        self.pool: list[Function] = []
        self.stable: dict[str, float] = {}
        self._taken: set[tuple[str, str, tuple[str, ...]]] = set()  # file, function, failing tests

    @property
    def tasks(self) -> list[Task]:
        return [self.admitted[place] for place in sorted(self.admitted)][: self.wanted.limit]

    async def prepare(self, boxes: Sandbox) -> None:
        """Environment, coverage, and what passes in the judge. Raises CrrlError."""
        if self.base.setup:
            self.display.phase("building the environment", 0)
        environment = await self.judge.environment(self.base)
        self.base = with_generated(self.base, environment)
        if "survey" not in self.work.done:
            self.display.phase("running the suite with coverage", 0)
            site = Mount(self.judge.harness.path / "site", SITE)
            limits = (self.wanted.tests, self.wanted.timeout_s)
            found = await survey(self.base.source, boxes, self.judge.state_dir, site, environment, *limits)
            self.display.phase("running the suite in the judge", 0)
            self.work.keep("survey", [asdict(found), await self._steady(found)])
        kept, steady = self.work.done["survey"]
        self.survey = msgspec.convert(kept, Survey, strict=False)
        self.stable = {test: self.survey.seconds[test] for test in steady}
        rules = Protected(replace(self.base, test=replace(self.base.test, pass_to_pass=steady)), lambda path: True)
        for path in sorted(self.survey.lines):
            if path.endswith(".py") and not rules.covers(path) and not _of_tests(path) and (self.tree / path).is_file():
                source = (self.tree / path).read_text("utf-8", "replace")
                self.pool += [
                    f
                    for f in functions(path, source)
                    if any(self._covering(path, n) for n in range(f.first, f.last + 1))
                ]
        left = len(self.survey.failed) + len(self.survey.seconds) - len(steady)
        self.display.note(
            f"{len(steady)} tests pass{f' ({left} left out)' if left else ''} and cover {len(self.pool)} functions"
        )

    async def _steady(self, found: Survey) -> list[str]:
        """The tests that pass in the judge, twice. Raises CrrlError where most do not."""
        tests = list(found.seconds)
        whole = self._asking(tests, self.wanted.tests, found.options, self.wanted.timeout_s)
        results = [await self.judge.run_anew(whole, "") for _ in range(2)]
        steady = [test for test in tests if all(result.tests[test] == "passed" for result in results)]
        if 2 * len(steady) < len(tests):
            raise CrrlError(
                f"Only {len(steady)} of {len(tests)} passing tests pass in the judge ({results[0].reason}): it is "
                f"offline, and has {self.judge.limits.memory_bytes >> 20} MiB.\n{results[0].output[-800:]}",
                "Name a part of the suite that needs neither: tests=PATH.",
            )
        return steady

    def _covering(self, path: str, line: int) -> list[str]:
        return [test for test in self.survey.lines[path].get(line, []) if test in self.stable]

    def _asking(
        self, tests: list[str], argv: list[str], options: list[str], timeout_s: float, cpu_s: int = 600
    ) -> Task:
        plan = TestPlan(Command([*options, *argv]), "pytest", [], tests, timeout_s=timeout_s, cpu_s=cpu_s)
        return replace(self.base, test=plan)

    # Candidates -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until there are enough, or nothing is left to draw."""
        self.display.phase("making tasks", self.wanted.limit)
        drawn, ends = enumerate(self._drawn()), list[asyncio.Task[None]]()
        try:
            while batch := list(itertools.islice(drawn, AT_ONCE)):
                screened = await asyncio.gather(*(self._screened(*candidate) for _, candidate in batch))
                for (place, candidate), found in zip(batch, screened, strict=True):
                    fresh = found if isinstance(found, str) else self._fresh(found)
                    ends.append(asyncio.create_task(self._end(place, _name(*candidate), fresh)))
                while open := [end for end in ends if not end.done()]:
                    if len(open) < AT_ONCE and len(self.admitted) + len(open) < self.wanted.limit:
                        break
                    await next(iter(asyncio.as_completed(open)))
                if len(self.admitted) >= self.wanted.limit:
                    break
            await asyncio.gather(*ends)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    def _drawn(self) -> Iterator[tuple[Function, Mutant]]:
        """A mutant of each function in turn, in an order that the seed says, where tests cover its line."""
        order = list(self.pool)
        random.Random(f"make/{VERSION}/{self.wanted.seed}").shuffle(order)
        mutants = {}
        for function in order:
            rng = random.Random(
                f"make/{VERSION}/{self.wanted.seed}/{function.path}/{function.name}/{function.node.lineno}"
            )
            mutants[id(function)] = (m for m in function.mutants(rng) if self._covering(function.path, m.line))
        for _ in range(TRIES):
            for function in list(order):
                taken = sum(1 for path, name, _ in self._taken if (path, name) == (function.path, function.name))
                mutant = next(mutants[id(function)], None) if taken < MOST else None
                if mutant is None:
                    order.remove(function)
                else:
                    yield function, mutant

    async def _screened(self, function: Function, mutant: Mutant) -> Task | str:
        """The task that the mutant makes, or why it makes none."""
        if (known := self.work.done.get(_name(function, mutant))) is not None:
            return known if isinstance(known, str) else self._moved(msgspec.convert(known["task"], Task))
        asked = self._asked(function, mutant)
        seconds = sum(self.stable[test] for test in asked)
        limits = (60.0 + 10 * seconds, math.ceil(2 + 5 * seconds))  # of CPU it is tight; a busy machine takes longer
        plan = self._asking(asked, _arguments(asked), self.survey.options, *limits)
        patch = between(function.path, function.source, mutant.text)
        try:
            results = await self.judge.run_anew(plan, patch)
        except LostError:
            return "lost"
        if results.reason == "timeout":
            return "timed out"
        if results.reason != "complete":
            return "never ends or breaks the run"
        failing = [test for test in asked if results.tests[test] != "passed"]
        if not failing:
            return "unnoticed"
        if "missing" in results.tests.values() or len(failing) > max(10, len(asked) // 2):
            return "breaks everything"
        report, shown = self._report(results.output, failing, mutant)
        if not report:
            return "cannot be told"
        return self._task(function, mutant, patch, report, shown, failing, asked, plan)

    def _asked(self, function: Function, mutant: Mutant) -> list[str]:
        """The tests that cover the line; then those that cover the function, then their neighbours, as time allows."""
        must = self._covering(function.path, mutant.line)
        near = [t for line in range(function.first, function.last + 1) for t in self._covering(function.path, line)]
        files = {test.partition("::")[0] for test in must}
        near += [test for test in self.stable if test.partition("::")[0] in files]
        asked, left = dict.fromkeys(must), STAY_S
        for test in near:
            if test not in asked and left > 0 and len(asked) < STAY + len(must):
                asked[test] = None
                left -= self.stable[test]
        return list(asked)

    def _report(self, output: str, failing: list[str], mutant: Mutant) -> tuple[str, str]:
        """The issue that is shortest to tell, and the test it tells of; empty where none can be told."""
        names = {".".join(test.split("::")[1:]): test for test in failing}
        paths = frozenset(test.partition("::")[0] for test in failing)
        sources = {path: (self.tree / path).read_text("utf-8", "replace") for path in paths}
        told = []
        for failure in failures(output, paths):
            if failure.name not in names or any(" at 0x" in line for line in failure.said):
                continue
            text = issue(failure, sources, len(failing) - 1)
            given_away = [
                line for line in (mutant.old_line, mutant.new_line) if len(line) >= LEAST_CHARS and line in text
            ]
            if not given_away:
                told.append((text, names[failure.name]))
        return min(told, key=lambda pair: (len(pair[0]), pair), default=("", ""))

    def _task(
        self,
        function: Function,
        mutant: Mutant,
        patch: str,
        report: str,
        shown: str,
        failing: list[str],
        asked: list[str],
        plan: Task,
    ) -> Task:
        commit = self.base.source.base_commit or ""
        files = sorted({test.partition("::")[0] for test in failing})
        hidden = _kept_back(failing, shown)
        hiding = [
            between(path, (self.tree / path).read_text(), text)
            for path, text in without_tests(self.tree, hidden).items()
        ]
        return replace(
            self.base,
            id=f"{self.base.corpus}-{_name(function, mutant)}",
            family=str(PurePath(function.path).with_suffix("")).replace("/", "."),
            source=replace(self.base.source, patches=[*self.base.source.patches, patch, *filter(None, hiding)]),
            issue=report,
            test=replace(
                plan.test,
                fail_to_pass=failing,
                pass_to_pass=[test for test in asked if test not in set(failing)],
                restore_from=dict.fromkeys(files, commit),
            ),
            solution=between(function.path, mutant.text, function.source),
            provenance={
                "function": f"{function.path}:{function.name}",
                "mutation": mutant.kind,
                "hidden": str(len(hidden)),
            },
        )

    def _fresh(self, task: Task) -> Task | str:
        """None twice: the same function with the same failing tests is the same bug."""
        path, _, name = task.provenance["function"].rpartition(":")
        what = (path, name, tuple(task.test.fail_to_pass))
        if what in self._taken:
            return "like another"
        self._taken.add(what)
        return task

    def _moved(self, task: Task) -> Task:
        """With the repository where it is now."""
        return replace(task, source=replace(task.source, repo=self.base.source.repo))

    async def _end(self, place: int, name: str, found: Task | str) -> None:
        """Admits what was made of a candidate, counts it, and keeps it."""
        if not isinstance(found, str) and name not in self.work.done:
            admission = await admit(found, self.judge, self.wanted.times)
            found = admission.task if admission.task is not None else admission.status
        if name not in self.work.done and found not in LATER:
            self.work.keep(name, found if isinstance(found, str) else {"task": msgspec.to_builtins(found)})
        new = isinstance(found, Task) and len(self.admitted) < self.wanted.limit
        if isinstance(found, Task):
            self.admitted[place] = found
        self.outcomes[found if isinstance(found, str) else "admitted"] += 1
        others = {what: number for what, number in self.outcomes.items() if what != "admitted"}
        self.display.advance(int(new), tried=self.outcomes.total(), **others)


def _name(function: Function, mutant: Mutant) -> str:
    text = f"{function.path}\0{function.name}\0{mutant.line}\0{mutant.old_line}\0{mutant.new_line}"
    return f"{function.name.split('.')[-1].strip('_')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _arguments(tests: list[str]) -> list[str]:
    """For pytest: test functions, with all their parameters; files where that would be many."""
    named = list(dict.fromkeys(test.partition("[")[0] for test in tests))
    return named if len(named) <= ARGUMENTS else list(dict.fromkeys(test.partition("::")[0] for test in tests))


def _kept_back(failing: list[str], shown: str) -> list[str]:
    """Test functions that the agent does not get to see: all but the one the issue tells of and one in `SHOWN`."""
    named = sorted({test.partition("[")[0] for test in failing} - {shown.partition("[")[0]})
    return [test for place, test in enumerate(named) if (place + 1) % SHOWN]


def _of_tests(path: str) -> bool:
    parts = PurePath(path).parts
    return bool({"test", "tests", "testing", "docs", "examples"} & set(parts[:-1])) or parts[-1] in (
        "setup.py",
        "conftest.py",
    )
