"""One fault, or several at once, put into a project and judged: the task that comes of it, or why there is none.

The tests that cover a fault and their neighbours run on it, in the judge that training uses. Where some fail and others
pass, the failing ones are traced with and without the fault, an issue is written from the call that goes wrong, and a
share of the failing tests is kept back from the agent. How hard the fault is to find is measured and recorded.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Protocol

from crrl.making.hiding import without_tests
from crrl.making.issue import Told, issue
from crrl.making.outcomes import Refused
from crrl.making.real_mutation import Mutant
from crrl.making.source_file import SourceFile, TextFile, UnreadableError, diff
from crrl.making.survey import Survey
from crrl.making.tracing import Trace, Tracer, differences
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Command, Task, TestPlan

MUST_S, LEAST = 10.0, 5  # seconds of tests that cover a line, and so many whatever they take
STAY_S, STAY = 2.0, 60  # seconds of tests, and tests, that a task asks for besides those that cover its line
UNTELLABLE = "cannot be told"
ARGUMENTS = 400  # test functions named to pytest; beyond that, whole files
SHOWN = 3  # one in so many failing test functions stays in the agent's workspace
TRACED = 6  # failing tests
TRACED_CPU_S = 5.0  # of each, and ten times what it takes: some faults never end where every call is looked at


class Function(Protocol):
    """A function or method of a file. `name`: within the file; `starts`: its first line, `line`: of its name, `first`
    to `last`: of its body."""

    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> TextFile: ...
    @property
    def starts(self) -> int: ...
    @property
    def line(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...

    def mutants(self, rng: random.Random, weights: Mapping[str, float]) -> Iterator[Mutant]:
        """All there are, each once, in an order drawn with `weights`."""
        ...


@dataclass(frozen=True)
class Fault:
    function: Function
    mutant: Mutant

    @property
    def line(self) -> int:
        """That tests cover if they run the fault; a default is run with the body."""
        return max(self.mutant.line, self.function.first)

    @property
    def name(self) -> str:
        function, mutant = self.function, self.mutant
        text = f"{function.path}\0{function.name}\0{mutant.edit}\0{mutant.old_line}"
        return f"{function.name.split('.')[-1].strip('_')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Noticed:
    """A fault by itself. `failing`, `asked`: tests; `shown`: the one that the issue tells of."""

    failing: list[str]
    asked: list[str]
    told: Told
    shown: str
    depth: int | None
    error: str


def name_of(faults: Sequence[Fault]) -> str:
    return "-and-".join(fault.name for fault in faults)


def asking(base: Task, tests: list[str], argv: list[str], timeout_s: float, cpu_s: int = 600) -> Task:
    """The project with a plan that runs these tests."""
    plan = TestPlan(Command(argv), "pytest", [], tests, timeout_s=timeout_s, cpu_s=cpu_s)
    return replace(base, test=plan)


class Screener:
    """Screens candidates of one project. `stable`: the tests that pass in the judge, with their seconds; `crashes`: the
    share of faults that crash at once to let through."""

    def __init__(
        self, base: Task, tree: Path, found: Survey, stable: dict[str, float], judge: TaskJudge,
        tracer: Tracer | None, crashes: float,
    ) -> None:  # fmt: skip
        self.base, self.tree, self.survey, self.stable = base, tree, found, stable
        self.judge, self.tracer, self.crashes = judge, tracer, crashes
        self._right: dict[str, Trace] = {}
        self._sources: dict[str, SourceFile | None] = {}  # of test files, which take their time to parse

    @property
    def spent_s(self) -> float:
        """CPU-seconds beside those of the judge."""
        return self.tracer.spent_s if self.tracer is not None else 0.0

    def covering(self, path: str, line: int) -> list[str]:
        return [test for test in self.survey.lines[path].get(line, []) if test in self.stable]

    async def screened(self, faults: Sequence[Fault]) -> Task | Refused:
        noticed: list[Noticed] = []
        for fault in faults:
            found = await self._noticed(fault)
            if isinstance(found, Refused):
                return found
            noticed.append(found)
        asked = list(dict.fromkeys(test for one in noticed for test in one.asked))
        failing = noticed[0].failing
        plan = self.plan(asked)
        if len(faults) > 1:
            judged = await self._failing(faults, asked)
            if isinstance(judged, Refused):
                return judged
            if any(not set(one.failing) & set(judged) for one in noticed):
                return Refused("one hides another")
            failing = judged
        return self._task(faults, noticed, plan, failing, asked)

    async def _noticed(self, fault: Fault) -> Noticed | Refused:
        asked = self.asked(fault)
        failing = await self._failing([fault], asked)
        if isinstance(failing, Refused):
            return failing
        found = await self._telling(fault, failing, asked)
        if found is None:
            return Refused(UNTELLABLE)
        easy = not found.told.value or fault.mutant.kind == "returned"
        if easy and random.Random(f"crash/{fault.name}").random() >= self.crashes:
            return Refused("crashes at once" if not found.told.value else "gives nothing")
        return found

    async def _telling(self, fault: Fault, failing: list[str], asked: list[str]) -> Noticed | None:
        """What the failing tests say of the fault; None where none of it can be told."""
        tests = sorted(failing, key=lambda test: (self.stable[test], test))[:TRACED]
        wrong, right = await self._traces(fault, tests)
        told: list[tuple[Told, str]] = []
        for test in tests:
            if test not in wrong or test not in right:
                continue
            given_away, source = (fault.mutant.old_line, fault.mutant.new_line), self._source(test)
            for found in differences(wrong[test], right[test]):
                text = issue(found, test, source, len(failing) - 1, given_away, params=right[test].params)
                if text is not None:
                    told.append((text, test))
                    break
        if not told:
            return None
        best, shown = min(told, key=lambda pair: (not pair[0].value, len(pair[0].text), pair[1]))
        error = wrong[shown].error
        return Noticed(failing, asked, best, shown, wrong[shown].depth, error[0] if error is not None else "")

    async def _failing(self, faults: Sequence[Fault], asked: list[str]) -> list[str] | Refused:
        patch = self.patch(faults)
        if patch is None:
            return Refused("not UTF-8 where it changes")
        most = max(10, len(asked) // 2)
        results = await self.judge.run_anew(self.until(self.plan(asked), most), patch)
        if results.reason == "timeout":
            return Refused("timed out")
        if results.reason != "complete":
            return Refused("never ends or breaks the run", results.reason)
        failing = [test for test in asked if results.tests[test] != "passed"]
        if not failing:
            return Refused("unnoticed")
        if "missing" in results.tests.values() or len(failing) > most:
            return Refused("breaks everything")
        return failing

    def plan(self, asked: list[str]) -> Task:
        named = arguments(asked, self.survey.sampled)
        seconds = sum(self.stable[test] for test in self._in(named))
        # Of CPU it is tight, since faults that never end take all of it; a busy machine takes longer on the clock.
        cpu_s = min(seconds, self.survey.judged_cpu_s or seconds)
        limits = (60.0 + 10 * seconds, math.ceil(10 + 5 * cpu_s))
        return asking(self.base, asked, [*self.survey.options, *named], *limits)

    def until(self, plan: Task, most: int) -> Task:
        """A plan that stops once more than so many of its tests have failed: those of a fault in a connection can wait
        for minutes."""
        argv = plan.test.command.argv
        others = len(self._in(argv)) - len(plan.test.pass_to_pass)
        command = Command([f"--maxfail={most + others + 1}", *argv])
        return replace(plan, test=replace(plan.test, command=command))

    def _in(self, named: Sequence[str]) -> list[str]:
        """All tests that pytest runs for these arguments: files, functions, tests."""
        whole = set(named)
        return [t for t in self.stable if not whole.isdisjoint((t, t.partition("[")[0], t.partition("::")[0]))]

    def asked(self, fault: Fault) -> list[str]:
        """The tests that cover the line; then those that cover the function, then their neighbours, as time allows."""
        path, function = fault.function.path, fault.function
        must = self._quickest(self.covering(path, fault.line))
        near = [t for line in range(function.first, function.last + 1) for t in self.covering(path, line)]
        files = {test.partition("::")[0] for test in must}
        near += [test for test in self.stable if test.partition("::")[0] in files]
        asked, left = dict.fromkeys(must), STAY_S
        for test in near:
            if test not in asked and left > 0 and len(asked) < STAY + len(must):
                asked[test] = None
                left -= self.stable[test]
        return list(asked)

    def _quickest(self, tests: list[str]) -> list[str]:
        """Of tests that cover a line, those that can be run often."""
        found, left = list[str](), MUST_S
        for test in sorted(tests, key=lambda test: (self.stable[test], test)):
            left -= self.stable[test]
            if left < 0 and len(found) >= LEAST:
                break
            found.append(test)
        return found

    async def _traces(self, fault: Fault, tests: list[str]) -> tuple[dict[str, Trace], dict[str, Trace]]:
        """Of tests with the fault and without; the latter are kept."""
        assert self.tracer is not None
        options = self.survey.options
        cpu_s = TRACED_CPU_S + 10 * max(self.stable[test] for test in tests)
        if new := [test for test in tests if test not in self._right]:
            self._right |= await self.tracer.run(self.base.source, {}, new, options, [], cpu_s)
        function = fault.function
        data = function.source.with_edits([fault.mutant.edit])
        at = [(function.path, function.starts)]
        wrong = await self.tracer.run(self.base.source, {function.path: data}, tests, options, at, cpu_s)
        return wrong, {test: self._right[test] for test in tests if test in self._right}

    def _source(self, test: str) -> SourceFile | None:
        path = test.partition("::")[0]
        if path not in self._sources:
            try:
                self._sources[path] = SourceFile.read(path, (self.tree / path).read_bytes())
            except (UnreadableError, OSError):
                self._sources[path] = None
        return self._sources[path]

    def _files(self, faults: Sequence[Fault]) -> list[tuple[str, bytes, bytes]]:
        """(path, as it is, with the faults) of each file that they are in."""
        by_file: dict[str, list[Fault]] = defaultdict(list)
        for fault in faults:
            by_file[fault.function.path].append(fault)
        sources = {path: among[0].function.source for path, among in by_file.items()}
        return [
            (path, sources[path].data, sources[path].with_edits([fault.mutant.edit for fault in among]))
            for path, among in by_file.items()
        ]

    def patch(self, faults: Sequence[Fault], *, back: bool = False) -> str | None:
        """The diff that makes the faults, or takes them back; None where it is not UTF-8."""
        parts = [diff(path, *((new, old) if back else (old, new))) for path, old, new in self._files(faults)]
        return None if None in parts else "".join(part for part in parts if part is not None)

    def _task(
        self, faults: Sequence[Fault], noticed: list[Noticed], plan: Task, failing: list[str], asked: list[str]
    ) -> Task | Refused:
        hidden, hiding = self.hidden(failing, {one.shown for one in noticed})
        patch, solution = self.patch(faults), self.patch(faults, back=True)
        assert patch is not None and solution is not None
        depths = [one.depth for one in noticed if one.depth is not None]
        return replace(
            self.base,
            id=f"{self.base.corpus}-{name_of(faults)}",
            family=str(PurePath(faults[0].function.path).with_suffix("")).replace("/", "."),
            source=replace(self.base.source, patches=[*self.base.source.patches, patch, *hiding]),
            issue="\n".join(one.told.text for one in noticed),
            test=self.tests_of(plan, failing, asked),
            solution=solution,
            provenance={
                "function": ", ".join(f"{fault.function.path}:{fault.function.name}" for fault in faults),
                "mutation": ", ".join(fault.mutant.kind for fault in faults),
                "hidden": str(hidden),
                "fails_by": ", ".join("value" if one.told.value else one.told.error or one.error for one in noticed),
                "failed_share": f"{len(failing) / len(asked):.3f}",
                "distance": str(max(depths)) if depths else "",
            },
        )

    def tests_of(self, plan: Task, failing: list[str], asked: list[str]) -> TestPlan:
        """What judges a repair: all of `asked` pass, `failing` among them."""
        commit = self.base.source.base_commit or ""
        return replace(
            plan.test,
            fail_to_pass=failing,
            pass_to_pass=[test for test in asked if test not in set(failing)],
            restore_from=dict.fromkeys(self.restored(failing, asked), commit),
        )

    def restored(self, failing: list[str], asked: list[str]) -> list[str]:
        """Test files that are put back before they run."""
        return sorted({test.partition("::")[0] for test in failing})

    def hidden(self, failing: list[str], shown: set[str]) -> tuple[int, list[str]]:
        """How many test functions the agent does not get to see, and the diffs that take them away: all but those that
        the issue tells of and one in `SHOWN`. What is not UTF-8 stays."""
        named = sorted({test.partition("[")[0] for test in failing} - {test.partition("[")[0] for test in shown})
        kept_back = [test for place, test in enumerate(named) if (place + 1) % SHOWN]
        number, diffs = 0, []
        for file in sorted({test.partition("::")[0] for test in kept_back}):
            tests = [test for test in kept_back if test.startswith(f"{file}::")]
            try:
                (text,) = without_tests(self.tree, tests).values()
            except UnreadableError:
                continue
            if made := diff(file, (self.tree / file).read_bytes(), text):
                diffs.append(made)
                number += len(tests)
        return number, diffs


def arguments(tests: list[str], sampled: Sequence[str]) -> list[str]:
    """For pytest: test functions, with all their parameters; files where that would be many. A test function of which
    only some cases were surveyed (`sampled`) is never run whole."""
    cut = set(sampled)
    named: dict[str, list[str]] = defaultdict(list)  # file -> what of it
    for test in tests:
        function = test.partition("[")[0]
        named[test.partition("::")[0]].append(test if function in cut else function)
    if len({name for names in named.values() for name in names}) > ARGUMENTS:
        whole = {file for file in named if not any(function.startswith(f"{file}::") for function in cut)}
        named |= {file: [file] for file in whole}
    return list(dict.fromkeys(name for names in named.values() for name in names))
