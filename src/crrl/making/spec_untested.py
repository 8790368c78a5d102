"""`crrl tasks spec REPO tests=none`: functions of a project whose suite is not run, or which has none.

Candidates are left out as `spec.py` does, but for what a judged run would show. Nothing runs the answer either: it is
compared with the project's own body (`rewards/likeness_judge.py`), and the task's record says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from crrl.making import spec, spec_text
from crrl.making.make import Maker, of_tests
from crrl.making.make import Wanted as MakeWanted
from crrl.making.outcomes import Refused
from crrl.making.real_mutation import functions as python_functions
from crrl.making.screening import Fault, Function, Screener
from crrl.making.source_file import UnreadableError
from crrl.making.spec import SpecMaker
from crrl.making.spec import Wanted as SpecWanted
from crrl.making.survey import Survey
from crrl.making.trees.functions import functions as trees_functions
from crrl.making.trees.maker import TreeMaker
from crrl.making.trees.maker import kind_of as make_kind_of
from crrl.making.trees.toolchain import TESTS
from crrl.rewards import likeness_judge
from crrl.rewards.exploits import Protected
from crrl.sandbox.api import Sandbox
from crrl.task import Source, Task

WEIGHTS = " rewards.weights.diff_similarity=1 rewards.weights.style=0.2 rewards.weights.tests=0"
"""What to train on such tasks with: all tokens of the original are hardly ever there."""


def is_untested(wanted: object) -> bool:
    return isinstance(wanted, SpecWanted) and wanted.tests == ["none"]


def kind_of(wanted: MakeWanted) -> type[Maker]:
    """What makes the wanted tasks: `make`, `spec`, or `spec` without tests. Raises CrrlError: unknown language."""
    if not is_untested(wanted):
        return spec.kind_of(wanted)
    kind = make_kind_of(wanted)
    language = kind.kind.language if issubclass(kind, TreeMaker) else "python"
    return type(f"Untested{kind.__name__}", (UntestedMaker,), {"suffixes": kind.suffixes, "language": language})


class UntestedMaker(SpecMaker):
    language: ClassVar[str]

    @classmethod
    def common(cls, wanted: MakeWanted, source: Source, tree: Path) -> Task:
        name = wanted.repository.resolve().name
        setup = wanted.setup or []
        return Task("base", name, "train", cls.language, "", source, "", likeness_judge.plan(), setup)

    async def survey_of(self, boxes: Sandbox) -> None:
        self.screener = Screener(self.base, self.tree, Survey({}), {}, self.judge, None, 0.0)
        self.pool = await asyncio.to_thread(self._all)
        self.display.note(f"{len(self.pool)} functions; no test is run")

    def _all(self) -> list[Function]:
        rules = Protected(self.base, lambda path: True)
        found: list[Function] = []
        for path in sorted(self.tree.rglob("*")):
            name = path.relative_to(self.tree).as_posix()
            if path.suffix not in self.suffixes or path.is_symlink() or not path.is_file():
                continue
            if not (rules.covers(name) or of_tests(name) or TESTS.search(name)):
                found += self._read(name, path.read_bytes())
        return found

    def _read(self, path: str, data: bytes) -> list[Function]:
        try:
            return list(python_functions(path, data) if path.endswith(".py") else trees_functions(path, data))
        except (UnreadableError, RecursionError) as error:
            self.outcomes.add(Refused("unreadable file", str(error)))
            return []

    async def _judged(self, faults: tuple[Fault, ...]) -> Task | Refused:
        (fault,) = faults
        one, function = self.candidates[fault.name], fault.function
        patch, solution = self.screener.patch(faults), self.screener.patch(faults, back=True)
        if patch is None or solution is None:
            return Refused("not UTF-8 where it changes")
        return replace(
            self.base,
            id=f"{self.base.corpus}-{fault.name}",
            family=self.family_of(function),
            source=replace(self.base.source, patches=[*self.base.source.patches, patch]),
            issue=spec_text.text(one, function.line, {}, ""),
            solution=solution,
            provenance=self.said_of(one) | {"judged_by": "similarity and style: no test is run"},
        )
