"""One run of `tasks make` on a project in Go, JavaScript or TypeScript, Rust or Java (`make.py` is its course)."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import msgspec

from crrl.errors import CrrlError, nearest
from crrl.making.make import BROKEN_SHOWN, Maker, Wanted
from crrl.making.outcomes import Refused
from crrl.making.plans import language_of
from crrl.making.screening import Function
from crrl.making.source_file import UnreadableError
from crrl.making.survey import Survey
from crrl.making.trees.functions import functions
from crrl.making.trees.go import Go
from crrl.making.trees.java import Java
from crrl.making.trees.javascript import JavaScript
from crrl.making.trees.rust import Rust
from crrl.making.trees.screening import TreeScreener
from crrl.making.trees.toolchain import Boxes, Toolchain, suite_of
from crrl.rewards.exploits import Protected
from crrl.sandbox.api import Sandbox
from crrl.task import Source, Task
from crrl.tasks.setup import toolchains
from crrl.tasks.setup.environments import with_generated

TOOLCHAINS: dict[str, type[Toolchain]] = {"go": Go, "java": Java, "javascript": JavaScript, "rust": Rust}


def kind_of(wanted: Wanted) -> type[Maker]:
    """Raises CrrlError for a language that is not known."""
    files = [file.name for file in wanted.repository.glob("*") if file.is_file()]
    language = wanted.language or language_of(files)
    if language == "python":
        return Maker
    if language not in TOOLCHAINS:
        known = ["python", *TOOLCHAINS]
        raise CrrlError(f"make knows no language {language}.", nearest(language, known))
    return _MAKERS[language]


class TreeMaker(Maker):
    kind: ClassVar[type[Toolchain]]
    toolchain: Toolchain

    @classmethod
    def common(cls, wanted: Wanted, source: Source, tree: Path) -> Task:
        toolchain = cls.kind(tree, wanted.tests)
        setup = toolchain.setup() if wanted.setup is None else wanted.setup
        corpus = wanted.repository.resolve().name
        return Task("base", corpus, "train", toolchain.language, "", source, "", toolchain.plan([], 0.0), setup)

    async def prepare(self, boxes: Sandbox) -> None:
        self.toolchain = self.kind(self.tree, self.wanted.tests)
        toolchains.require(self.base.test.needs, self.judge.state_dir)
        if self.base.setup:
            self.display.phase("installing what the tests need", 0)
        self.base = with_generated(self.base, await self.judge.environment(self.base))
        own = Boxes(boxes, self.judge, self.base)
        if "survey" not in self.work.done:
            self.display.phase("running the suite with coverage", 0)
            found = await self.toolchain.survey(own, self.wanted.timeout_s)
            self.display.phase("running the suite in the judge", 0)
            steady, _ = await self._steady_of(found, own)
            self.work.keep("survey", [asdict(found), steady])
        kept, steady = self.work.done["survey"]
        self.survey = msgspec.convert(kept, Survey, strict=False)
        self.toolchain.leave_out(self.survey.broken)
        self.stable = {test: self.survey.seconds[test] for test in steady}
        self.screener = self._screener(own, frozenset())
        self.pool, known = [], set()
        for path in self._paths(steady):
            for function in self._read(path):
                known.add(function.name.rpartition(".")[2])
                if any(self.screener.covering(path, line) for line in range(function.first, function.last + 1)):
                    self.pool.append(function)
        self.screener = self._screener(own, frozenset(known))
        left = len(self.survey.failed) + len(self.survey.seconds) - len(steady)
        how = "" if self.survey.lines else " (without coverage: every test is asked of every fault)"
        self.display.note(
            f"{len(steady)} tests pass{f' ({left} left out)' if left else ''} and cover {len(self.pool)} functions{how}"
        )
        for suite, why in list(self.survey.broken.items())[:BROKEN_SHOWN]:
            self.display.note(f"left out: {suite}: {why}")

    def _screener(self, own: Boxes, known: frozenset[str]) -> TreeScreener:
        return TreeScreener(
            self.base, self.tree, self.survey, self.stable, self.judge, self.wanted.crashes, self.toolchain, own, known
        )

    async def _steady_of(self, found: Survey, own: Boxes) -> tuple[list[str], float]:
        screener = TreeScreener(
            self.base, self.tree, found, found.seconds, self.judge, 0.0, self.toolchain, own, frozenset()
        )
        has = "is offline, and has its canaries among them"
        remedy = "Name a part of the suite that needs no network: tests=..."
        return await self._passing_twice(screener.whole(list(found.seconds)), has, remedy)

    def _paths(self, steady: list[str]) -> list[str]:
        """Its code: what a repair may change."""
        files = [path for suite in {suite_of(test) for test in steady} for path in self.toolchain.files(suite)]
        tests = replace(self.base.test, restore_from=dict.fromkeys(files, ""))
        rules = Protected(replace(self.base, test=tests), lambda path: True)
        return [path for path in self.toolchain.sources() if path not in files and not rules.covers(path)]

    def _read(self, path: str) -> list[Function]:
        """A file that the parser does not read, or that a program wrote, has none."""
        try:
            return list(functions(path, (self.tree / path).read_bytes()))
        except (UnreadableError, RecursionError) as error:
            self.outcomes.add(Refused("unreadable file", str(error)))
            return []


_MAKERS: dict[str, type[Maker]] = {
    language: type(f"{kind.__name__}Maker", (TreeMaker,), {"kind": kind, "suffixes": kind.suffixes})
    for language, kind in TOOLCHAINS.items()
}
