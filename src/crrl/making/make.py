"""`crrl tasks make`: a Python project with a pytest suite, turned into admitted tasks.

The suite runs once under coverage (`survey.py`). Mutants (`real_mutation.py`) are put where tests cover the code,
function by function, each screened (`screening.py`): judged, told, and made a task, which is admitted like any other.
Everything is drawn from the seed, whatever ends first; what became of each candidate is kept as it ends
(`work_file.py`). No function, file or candidate ends the run: what fails is counted under its reason (`outcomes.py`).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import msgspec

from crrl.admission.admission import admit
from crrl.admission.work_file import WorkFile
from crrl.console.display import Display
from crrl.errors import CrrlError
from crrl.making import snapshot
from crrl.making.operators import WEIGHTS
from crrl.making.outcomes import LATER, Outcomes, Refused, refused
from crrl.making.pytest_options import refuse_part_of_pytest
from crrl.making.real_mutation import Mutant, functions
from crrl.making.screening import UNTELLABLE, Fault, Function, Screener, arguments, asking, name_of
from crrl.making.source_file import UnreadableError
from crrl.making.survey import GO_ON, Survey, survey
from crrl.making.tracing import Tracer
from crrl.rewards.exploits import Protected
from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.sandbox.api import Mount, Sandbox
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.files import write_tasks
from crrl.tasks.setup import project
from crrl.tasks.setup.environments import with_generated

VERSION = 5
AT_ONCE = 4  # candidates screened at a time, while at most as many are being admitted
BROKEN_SHOWN = 5  # test files that cannot be imported
TRIES, MOST = 16, 4  # mutants tried, and tasks taken, of one function
UNTOLD = (
    "Most of its faults cannot be told by a call and its values: what its tests pass around are objects, classes and "
    "functions of their own."
)


@dataclass(frozen=True)
class Wanted:
    """Args:
    setup: commands that build the environment; None: what the project's own files ask for.
    tests: what of the suite, as pytest's arguments; all of it.
    times: of admission.
    faults: in each task; of several each is in another file where there are such.
    crashes: share of the faults that crash at once to let through.
    mix: operator -> how often it is drawn, in place of `operators.WEIGHTS`.
    language: of the project; by default what its files say (`trees/maker.py`).
    """

    repository: Path
    out: Path
    limit: int = 100
    seed: int = 0
    setup: list[Command] | None = None
    tests: list[str] = field(default_factory=list)
    times: int = 3
    faults: int = 1
    crashes: float = 0.1
    mix: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float = 1200.0
    language: str = ""

    def key(self) -> dict[str, Any]:
        """What finished work depends on."""
        said = {"seed": self.seed, "tests": self.tests, "times": self.times, "faults": self.faults}
        said |= {"crashes": self.crashes, "mix": dict(self.mix)}
        return said | ({"language": self.language} if self.language else {})


@dataclass
class Made:
    """What came of it: `outcomes` counts candidates by what became of them; `traced_s`: CPU-seconds of traced runs."""

    tasks: list[Task]
    tests: int
    functions: int
    outcomes: Outcomes
    traced_s: float


async def make(
    wanted: Wanted, boxes: Sandbox, judge: TaskJudge, display: Display, kind: type[Maker] | None = None
) -> Made:
    """Writes `wanted.out`, and beside it the repository's tree (`.git`) and the work file (`.work`).

    Raises CrrlError where there is nothing to make tasks of."""
    kind = kind or Maker
    store = wanted.out.with_suffix(".git")
    commit = await asyncio.to_thread(snapshot.take, wanted.repository, store, kind.suffixes)
    source = Source(repo=str(store.resolve()), base_commit=commit)
    tree = (await boxes.prepare(source)).lower
    base = kind.common(wanted, source, tree)
    key = {"version": VERSION, "commit": commit, **wanted.key()}
    work = WorkFile(wanted.out.with_suffix(".work"), key | {"setup": [asdict(command) for command in base.setup]})
    try:
        maker = kind(base, tree, wanted, judge, work, display)
        await maker.prepare(boxes)
        try:
            await maker.run()
        finally:
            maker.outcomes.tell(display)
            if maker.tasks:
                write_tasks(wanted.out, [_beside(task, store) for task in maker.tasks])
    finally:
        work.close()
    if not maker.tasks:
        counts = maker.outcomes.said() or "nothing to change"
        commonest = next(iter(maker.outcomes.refused), "")
        remedy = UNTOLD if commonest == UNTELLABLE else maker.little
        raise CrrlError(f"No task was made of {len(maker.stable)} tests ({counts}).", remedy)
    return Made(maker.tasks, len(maker.stable), len(maker.pool), maker.outcomes, maker.screener.spent_s)


def _beside(task: Task, store: Path) -> Task:
    """With the repository named relative to the task file."""
    return replace(task, source=replace(task.source, repo=f"./{store.name}"))


class Maker:
    """One run, of a Python project; those of other languages are in `trees/`. `suffixes`: of its source files;
    `stable`: the tests that pass in the judge, with their seconds."""

    suffixes: tuple[str, ...] = (".py",)
    little = "The suite may cover too little, or assert too little: mutants that no test notices make no task."

    @classmethod
    def common(cls, wanted: Wanted, source: Source, tree: Path) -> Task:
        """What all its tasks have in common. Raises CrrlError."""
        refuse_part_of_pytest(tree)
        setup = project.setup(tree) if wanted.setup is None else wanted.setup
        plan = TestPlan(Command(wanted.tests), "pytest", [], [])
        return Task("base", wanted.repository.resolve().name, "train", "python", "", source, "", plan, setup)

    def __init__(
        self, base: Task, tree: Path, wanted: Wanted, judge: TaskJudge, work: WorkFile, display: Display
    ) -> None:
        self.base, self.tree, self.wanted = base, tree, wanted
        self.judge, self.work, self.display = judge, work, display
        self.admitted: dict[int, Task] = {}  # by the place in which they were drawn
        self.outcomes = Outcomes()
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
            steady, cpu_s = await self._steady(found)
            self.work.keep("survey", [asdict(replace(found, judged_cpu_s=cpu_s)), steady])
        kept, steady = self.work.done["survey"]
        self.survey = msgspec.convert(kept, Survey, strict=False)
        self.stable = {test: self.survey.seconds[test] for test in steady}
        self.screener = Screener(
            self.base, self.tree, self.survey, self.stable, self.judge,
            Tracer(boxes, self.judge.state_dir, Mount(self.judge.harness.path / "site", SITE), environment),
            self.wanted.crashes,
        )  # fmt: skip
        rules = Protected(replace(self.base, test=replace(self.base.test, pass_to_pass=steady)), lambda path: True)
        for path in sorted(self.survey.lines):
            if path.endswith(".py") and not rules.covers(path) and not of_tests(path) and (self.tree / path).is_file():
                self.pool += self._functions(path)
        left = len(self.survey.failed) + len(self.survey.seconds) - len(steady)
        self.display.note(
            f"{len(steady)} tests pass{f' ({left} left out)' if left else ''} and cover {len(self.pool)} functions"
        )
        if self.survey.doctests:
            self.display.note(f"left out: {self.survey.doctests} doctests: they stand in the code that is repaired")
        for path, why in list(self.survey.broken.items())[:BROKEN_SHOWN]:
            self.display.note(f"left out: {path}: {why}")

    async def _steady(self, found: Survey) -> tuple[list[str], float]:
        tests = list(found.seconds)
        named = arguments(tests, found.sampled) if found.sampled else self.wanted.tests
        whole = asking(self.base, tests, [*found.options, GO_ON, *named], self.wanted.timeout_s)
        has = f"is offline, and has {self.judge.limits.memory_bytes >> 20} MiB"
        return await self._passing_twice(whole, has, "Name a part of the suite that needs neither: tests=PATH.")

    async def _passing_twice(self, whole: Task, has: str, remedy: str) -> tuple[list[str], float]:
        """Those of the plan's tests that pass in the judge, twice, and the CPU-seconds of a run. Raises CrrlError where
        most do not; `has`: what the judge has that they may not stand."""
        tests = whole.test.pass_to_pass
        results = [await self.judge.run_anew(whole, "") for _ in range(2)]
        steady = [test for test in tests if all(result.tests[test] == "passed" for result in results)]
        if 2 * len(steady) < len(tests):
            raise CrrlError(
                f"Only {len(steady)} of {len(tests)} passing tests pass in the judge ({results[0].reason}): it {has}.\n"
                f"{results[0].output[-800:]}",
                remedy,
            )
        return steady, max(result.cpu_s for result in results)

    def _functions(self, path: str) -> list[Function]:
        """Those of a file that tests run; a file that Python does not read has none."""
        try:
            found = functions(path, (self.tree / path).read_bytes())
        except UnreadableError as error:
            self.outcomes.add(Refused("unreadable file", str(error)))
            return []
        return [f for f in found if any(self.screener.covering(path, n) for n in range(f.first, f.last + 1))]

    # Candidates -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until there are enough, or nothing is left to draw."""
        self.display.phase("making tasks", self.wanted.limit)
        drawn, ends = enumerate(self._grouped()), list[asyncio.Task[None]]()
        try:
            while batch := list(itertools.islice(drawn, AT_ONCE)):
                screened = await asyncio.gather(*(self._screened(faults) for _, faults in batch))
                for (place, faults), found in zip(batch, screened, strict=True):
                    fresh = found if isinstance(found, Refused) else self._fresh(faults, found)
                    ends.append(asyncio.create_task(self._end(place, name_of(faults), fresh)))
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

    def _grouped(self) -> Iterator[tuple[Fault, ...]]:
        """As many faults as a task is to have, of different functions, of different files where there are such."""
        if self.wanted.faults == 1:
            yield from ((fault,) for fault in self._drawn())
            return
        waiting: list[list[Fault]] = []
        for alone in ("path", "name"):
            faults = self._drawn() if alone == "path" else iter([fault for group in waiting for fault in group])
            waiting = []
            for fault in faults:
                apart = [g for g in waiting if all(_apart(fault, other, alone) for other in g)]
                group = apart[0] if apart else []
                waiting += [] if apart else [group]
                group.append(fault)
                if len(group) == self.wanted.faults:
                    waiting.remove(group)
                    yield tuple(group)

    def _drawn(self) -> Iterator[Fault]:
        """A mutant of each function in turn, in an order that the seed says, where tests cover its line."""
        order = list(self.pool)
        random.Random(f"make/{VERSION}/{self.wanted.seed}").shuffle(order)
        mutants = {id(function): self._mutants(function) for function in order}
        for _ in range(TRIES):
            for function in list(order):
                taken = sum(1 for path, name, _ in self._taken if (path, name) == (function.path, function.name))
                fault = next(mutants[id(function)], None) if taken < MOST else None
                if fault is None:
                    order.remove(function)
                else:
                    yield fault

    def _mutants(self, function: Function) -> Iterator[Fault]:
        """Those that tests cover. A function that an operator fails on has no more."""
        place = f"{function.path}/{function.name}/{function.line}"
        mutants = function.mutants(
            random.Random(f"make/{VERSION}/{self.wanted.seed}/{place}"), self.wanted.mix or WEIGHTS
        )
        while True:
            try:
                mutant: Mutant | None = next(mutants, None)
            except Exception as error:  # whatever a syntax tree does to an operator, or its depth to the recursion
                self.outcomes.add(Refused("function skipped", f"{place}: {type(error).__name__}: {error}"))
                return
            if mutant is None:
                return
            fault = Fault(function, mutant)
            if self.screener.covering(function.path, fault.line):
                yield fault

    async def _screened(self, faults: tuple[Fault, ...]) -> Task | Refused:
        """The task that the faults make, or why they make none."""
        if (known := self.work.done.get(name_of(faults))) is not None:
            return refused(known) or self._moved(msgspec.convert(known["task"], Task))
        try:
            return await self._judged(faults)
        except Exception as error:  # one candidate never ends the run
            return Refused.by(error)

    async def _judged(self, faults: tuple[Fault, ...]) -> Task | Refused:
        return await self.screener.screened(faults)

    def _fresh(self, faults: tuple[Fault, ...], task: Task) -> Task | Refused:
        """Refused a second time: the same function with the same failing tests is the same bug."""
        what = [(fault.function.path, fault.function.name, tuple(task.test.fail_to_pass)) for fault in faults]
        if self._taken.issuperset(what):
            return Refused("like another")
        self._taken.update(what)
        return task

    def _moved(self, task: Task) -> Task:
        """With the repository where it is now."""
        return replace(task, source=replace(task.source, repo=self.base.source.repo))

    async def _end(self, place: int, name: str, found: Task | Refused) -> None:
        """Admits what was made of a candidate, counts it, and keeps it."""
        if isinstance(found, Task) and name not in self.work.done:
            try:
                admission = await admit(found, self.judge, self.wanted.times)
            except Exception as error:  # one candidate never ends the run
                found = Refused.by(error)
            else:
                why = admission.reasons[0] if admission.reasons else ""
                found = admission.task if admission.task is not None else Refused(admission.status, why)
        if name not in self.work.done and not (isinstance(found, Refused) and found.reason in LATER):
            self.work.keep(name, found.kept() if isinstance(found, Refused) else {"task": msgspec.to_builtins(found)})
        new = isinstance(found, Task) and len(self.admitted) < self.wanted.limit
        if isinstance(found, Task):
            self.admitted[place] = found
        self._count(name, found if isinstance(found, Refused) else None)
        self.display.advance(int(new), tried=self.outcomes.counts.total(), **self.outcomes.refused)

    def _count(self, name: str, end: Refused | None) -> None:
        """What became of a candidate; None: it was admitted."""
        self.outcomes.add(end)


def _apart(one: Fault, other: Fault, alone: str) -> bool:
    a, b = one.function, other.function
    return a.path != b.path if alone == "path" else (a.path, a.name) != (b.path, b.name)


def of_tests(path: str) -> bool:
    """Whether a Python file is no code to repair: tests, documentation, set-up."""
    parts = PurePath(path).parts
    return bool({"test", "tests", "testing", "docs", "examples"} & set(parts[:-1])) or parts[-1] in (
        "setup.py",
        "conftest.py",
    )
