"""`crrl tasks spec`: functions of a project that its tests cover, without their bodies: implement them.

The course is that of `make.py`: survey, candidates in an order that the seed draws, each judged, made a task and
admitted (masked fails, original passes); `spec_untested.py` has what no test judges. Before anything is judged,
candidates are left out that have no body to speak of (`spec_mask.py`), whose docstring says too little
(`spec_text.py`), whose licence is not wanted (`spec_licence.py`), that have a near-duplicate in the project, or whose
body stands elsewhere in the box (`spec_elsewhere.py`): invariant 5. After the first judged run: those that no test
notices, that all tests need to be imported at all, that an empty body would pass, and those whose tests compare texts
that only the body has. Each candidate that is not taken is listed with its reason in NAME.left_out.jsonl.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

from crrl.making import real_mutation, spec_elsewhere, spec_licence, spec_text
from crrl.making.make import Maker
from crrl.making.make import Wanted as MakeWanted
from crrl.making.outcomes import Refused
from crrl.making.real_mutation import functions_of
from crrl.making.screening import Fault, Function
from crrl.making.source_file import SourceFile
from crrl.making.spec_elsewhere import Place, near_duplicates
from crrl.making.spec_licence import Licences
from crrl.making.spec_mask import Masked, masked
from crrl.making.trees.functions import TreeFunction
from crrl.making.trees.functions import functions as trees_functions
from crrl.making.trees.maker import kind_of as make_kind_of
from crrl.making.trees.spec_mask import masked_tree
from crrl.rewards.api import TestResults
from crrl.sandbox.api import Sandbox
from crrl.task import Task

VERSION = 1
EMPTY = {".py": "return", **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx"), "return;")}
"""A body that gives nothing: whoever answers with it has implemented nothing. Typed languages have none."""


@dataclass(frozen=True)
class Wanted(MakeWanted):
    """`licences`: those that tasks may have."""

    licences: Licences = field(default_factory=Licences)

    def key(self) -> dict[str, Any]:
        return super().key() | {"spec": VERSION, "licences": asdict(self.licences)}


def kind_of(wanted: MakeWanted) -> type[Maker]:
    """Raises CrrlError for a language that is not known."""
    kind = make_kind_of(wanted)
    return type(f"Spec{kind.__name__}", (SpecMaker, kind), {}) if isinstance(wanted, Wanted) else kind


class SpecMaker(Maker):
    """Mixed into the `Maker` of a language."""

    little = "Its tests may cover too few functions that have a docstring: NAME.left_out.jsonl has a line for each."
    wanted: Wanted
    boxes: Sandbox

    async def survey_of(self, boxes: Sandbox) -> None:
        """What there is: `pool`, `stable`, `screener`."""
        await super().prepare(boxes)

    async def prepare(self, boxes: Sandbox) -> None:
        await self.survey_of(boxes)
        self.boxes = boxes
        self.left: list[dict[str, Any]] = []
        self.candidates: dict[str, Masked] = {}
        self.licence = spec_licence.of_project(self.tree)
        for function in self.pool:
            one = self._wanted(self._masked(function))
            if isinstance(one, Masked):
                self.candidates[one.fault.name] = one
            else:
                self._leave(function, one)
        await asyncio.to_thread(self._without_twins)
        await self._without_those_elsewhere()
        self.display.note(
            f"licence: {self.licence}; {len(self.candidates)} of {len(self.pool)} functions are specified"
        )

    def _masked(self, function: Function) -> Masked | Refused:
        """One function never ends the run."""
        try:
            if isinstance(function, TreeFunction):
                return masked_tree(function)
            assert isinstance(function, real_mutation.Function)
            return masked(function)
        except Exception as error:
            return Refused.by(error)

    def _wanted(self, one: Masked | Refused) -> Masked | Refused:
        if isinstance(one, Refused):
            return one
        licence = self._licence_of(one.function)
        if not self.wanted.licences.allow(licence):
            return Refused("licence", licence)
        if why := spec_text.lacks(one):
            return Refused("says too little", why)
        return one

    def _licence_of(self, function: Function) -> str:
        return spec_licence.of_file(self.tree, function.path, function.source.data, self.licence)

    def _without_twins(self) -> None:
        bodies: dict[Place, list[str]] = {}
        for source in {id(function.source): function.source for function in self.pool}.values():
            every = (
                functions_of(source) if isinstance(source, SourceFile) else trees_functions(source.path, source.data)
            )
            for function in every:
                bodies[_place(function)] = source.bare[function.first - 1 : function.last]
        twins = near_duplicates(bodies)
        for name, one in list(self.candidates.items()):
            if (twin := twins.get(_place(one.function))) is not None:
                other, score = twin
                self._leave(one.function, Refused("near-duplicate", f"{other.path}:{other.name} ({score:.2f})"))
                del self.candidates[name]

    async def _without_those_elsewhere(self) -> None:
        names = sorted(self.candidates)
        if self.work.done.get("elsewhere", {}).get("asked") != names:
            self.display.phase("looking for the bodies elsewhere", 0)
            found = await spec_elsewhere.elsewhere(
                {name: self.candidates[name] for name in names}, self.base, self.boxes, self.judge.environments
            )
            self.work.keep("elsewhere", {"asked": names, "found": found})
        for name, place in self.work.done["elsewhere"]["found"].items():
            function = self.candidates.pop(name).function
            reason = "near-duplicate" if place == function.path else "stands elsewhere"
            self._leave(function, Refused(reason, place))

    def _leave(self, function: Function, why: Refused, count: bool = True) -> None:
        place = {"function": f"{function.path}:{function.name}", "line": function.line}
        self.left.append(place | {"reason": why.reason, "why": why.why})
        if count:
            self.outcomes.add(why)

    # Candidates -------------------------------------------------------------------------------------------------------

    def _drawn(self) -> Iterator[Fault]:
        order = list(self.candidates.values())
        random.Random(f"spec/{VERSION}/{self.wanted.seed}").shuffle(order)
        yield from (one.fault for one in order)

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            for one in self.candidates.values():
                self._leave(one.function, Refused("not tried", f"limit={self.wanted.limit}"), count=False)
            lines = sorted(self.left, key=lambda one: (one["function"], one["line"]))
            self.wanted.out.with_suffix(".left_out.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))

    def _count(self, name: str, end: Refused | None) -> None:
        super()._count(name, end)
        one = self.candidates.pop(name)
        if end is not None:
            self._leave(one.function, end, count=False)

    async def _judged(self, faults: tuple[Fault, ...]) -> Task | Refused:
        (fault,), screener = faults, self.screener
        one, asked = self.candidates[fault.name], screener.asked(fault)
        patch, solution = screener.patch(faults), screener.patch(faults, back=True)
        if patch is None or solution is None:
            return Refused("not UTF-8 where it changes")
        plan = screener.plan(asked)
        failing = _failing(await self.judge.run_anew(plan, patch), asked)
        if isinstance(failing, Refused):
            return failing
        empty = EMPTY.get(PurePath(fault.function.path).suffix)
        if empty is not None and (nothing := screener.patch([one.with_body(empty)])):
            results = await self.judge.run_anew(plan, nothing)
            if all(results.tests[test] == "passed" for test in failing):
                return Refused("an empty body passes")
        tests = spec_text.tests_of(self.tree, failing)
        if compared := spec_text.unsaid(one, tests):
            return Refused("tests compare what is not said", compared)
        return self._task(one, plan, patch, solution, failing, asked, tests)

    def _task(
        self,
        one: Masked,
        plan: Task,
        patch: str,
        solution: str,
        failing: list[str],
        asked: list[str],
        tests: dict[str, str],
    ) -> Task:
        screener = self.screener
        first = min(failing, key=lambda test: (self.stable[test], test))
        shown = spec_text.shown(one, tests)
        hidden, hiding = screener.hidden(
            failing, {test for test in failing if test.partition("[")[0] in shown} | {first}
        )
        return replace(
            self.base,
            id=f"{self.base.corpus}-{one.fault.name}",
            family=self.family_of(one.function),
            source=replace(self.base.source, patches=[*self.base.source.patches, patch, *hiding]),
            issue=spec_text.text(one, one.function.line, tests, first),
            test=screener.tests_of(plan, failing, asked),
            solution=solution,
            provenance=self.said_of(one) | {"hidden": str(hidden), "failed_share": f"{len(failing) / len(asked):.3f}"},
        )

    def family_of(self, function: Function) -> str:
        return str(PurePath(function.path).with_suffix("")).replace("/", ".")

    def said_of(self, one: Masked) -> dict[str, str]:
        """The task's provenance."""
        function = one.function
        return {
            "function": f"{function.path}:{function.name}",
            "objective": "implement",
            "licence": self._licence_of(function),
            "lines": str(len(one.body)),
        }


def _place(function: Function) -> Place:
    return Place(function.path, function.name, function.first, function.last)


def _failing(results: TestResults, asked: list[str]) -> list[str] | Refused:
    """The tests that a missing body fails."""
    if set(results.tests.values()) == {"missing"} and results.reason != "timeout":
        return Refused("needed to import, or does not compile")
    if results.reason == "timeout":
        return Refused("timed out")
    if results.reason != "complete":
        return Refused("never ends or breaks the run", results.reason)
    failing = [test for test in asked if results.tests[test] != "passed"]
    if not failing:
        return Refused("unnoticed")
    return failing
