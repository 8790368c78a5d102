"""A fault in a project of another language: whole suites are asked, traces of calls tell what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crrl.making.outcomes import Refused
from crrl.making.screening import SHOWN, Fault, Noticed, Screener
from crrl.making.source_file import diff
from crrl.making.survey import Survey
from crrl.making.trees import telling
from crrl.making.trees.hiding import without_tests
from crrl.making.trees.toolchain import Boxes, Toolchain, suite_of
from crrl.making.trees.units import units
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Task


class TreeScreener(Screener):
    """`known`: names of the project's functions."""

    def __init__(
        self, base: Task, tree: Path, found: Survey, stable: dict[str, float], judge: TaskJudge, crashes: float,
        toolchain: Toolchain, boxes: Boxes, known: frozenset[str],
    ) -> None:  # fmt: skip
        super().__init__(base, tree, found, stable, judge, None, crashes)
        self.toolchain, self.boxes, self.known = toolchain, boxes, known

    @property
    def spent_s(self) -> float:
        return self.boxes.spent_s

    def covering(self, path: str, line: int) -> list[str]:
        """Without coverage every test; line 0 stands for a whole file."""
        if path not in self.survey.lines:
            return [] if self.survey.lines and self.toolchain.knows(path) else list(self.stable)
        covered = self.survey.lines[path]
        return [test for test in covered.get(line, covered.get(0, [])) if test in self.stable]

    def asked(self, fault: Fault) -> list[str]:
        """All tests of the suites that cover it."""
        suites = {suite_of(test) for test in self.covering(fault.function.path, fault.line)}
        return [test for test in self.stable if suite_of(test) in suites]

    def plan(self, asked: list[str]) -> Task:
        suites = sorted({suite_of(test) for test in asked})
        plan = self.toolchain.plan(suites, sum(self.stable[test] for test in asked))
        commit = self.base.source.base_commit or ""
        restored = dict.fromkeys(self.restored([], asked), commit)
        return replace(self.base, test=replace(plan, pass_to_pass=asked, restore_from=restored))

    def restored(self, failing: list[str], asked: list[str]) -> list[str]:
        """All that run: a suite that is not put back has no canary."""
        return sorted({path for suite in {suite_of(test) for test in asked} for path in self.toolchain.files(suite)})

    def whole(self, tests: list[str]) -> Task:
        """Asks all of them."""
        return self.plan(tests)

    def until(self, plan: Task, most: int) -> Task:
        return plan  # whole suites

    async def _failing(self, faults: Sequence[Fault], asked: list[str]) -> list[str] | Refused:
        failing = await super()._failing(faults, asked)
        if isinstance(failing, Refused) and failing.reason == "breaks everything":
            return replace(failing, why="it does not compile, ends the run, or fails most tests")
        return failing

    async def _telling(self, fault: Fault, failing: list[str], asked: list[str]) -> Noticed | None:
        others = len([test for test in failing if not any(other.startswith(f"{test}/") for other in failing)]) - 1
        changed = {fault.function.path: fault.function.source.with_edits([fault.mutant.edit])}
        for suite in dict.fromkeys(suite_of(test) for test in failing):
            wrong, right = await self.toolchain.compared(self.boxes, changed, suite, self.known)
            files = {path: (self.tree / path).read_bytes() for path in self.toolchain.files(suite)}
            of_suite = [test for test in failing if suite_of(test) == suite]
            given_away = (fault.mutant.old_line, fault.mutant.new_line)
            found = telling.tell(wrong, right, of_suite, files, others, given_away)
            if found is not None:
                told, shown, error = found
                return Noticed(failing, asked, told, shown, None, error)
        return None

    def hidden(self, failing: list[str], shown: set[str]) -> tuple[int, list[str]]:
        number, diffs = 0, []
        for path in self.restored([], failing):
            data = (self.tree / path).read_bytes()
            found = [unit for unit in units(path, data) if any(unit.has(test) for test in failing)]
            apart = [unit.name for unit in found if not any(unit.has(test) for test in shown)]
            names = {name for place, name in enumerate(sorted(set(apart))) if (place + 1) % SHOWN}
            left = without_tests(path, data, names)
            if left != data and (made := diff(path, data, left)):
                diffs.append(made)
                number += len(names)
        return number, diffs
