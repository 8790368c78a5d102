"""What a language brings to `tasks make`: how a project's suite is set up, run, covered, traced and judged.

A suite is what the parser's ids begin with: a package of Go, a file of JavaScript, a test binary of Rust, a class of
Java. Whole suites are run; the tests that a task asks for are those of the suites that cover its fault.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from typing import ClassVar

from crrl.errors import CrrlError, LostError
from crrl.making.commits import TESTS
from crrl.making.snapshot import LEFT_OUT
from crrl.making.survey import Survey
from crrl.making.tracing import Trace
from crrl.rewards.reports import Suite
from crrl.rewards.task_judge import TaskJudge
from crrl.sandbox.api import Box, ExecResult, Limits, Sandbox, Spec
from crrl.task import Command, Task, TestPlan
from crrl.tasks.setup.setting import setting_of

LIMITS = Limits(memory_bytes=3 << 30, processes=256, disk_bytes=1 << 30, inodes=60_000, tmp_bytes=1 << 30)
REPORT_BYTES = 256 << 20
ASIDE = re.compile(r"(^|/)(docs?|examples?|benchmarks?|bench|fixtures|testdata|vendor|third_party|dist|coverage)/")


class Boxes:
    """Boxes with the project in its setting. `spent_s`: CPU-seconds of what ran in them."""

    def __init__(self, boxes: Sandbox, judge: TaskJudge, base: Task) -> None:
        self._boxes, self._judge, self._base = boxes, judge, base
        self.spent_s = 0.0

    @asynccontextmanager
    async def open(self, changed: Mapping[str, bytes]) -> AsyncIterator[Box]:
        """A box with these files changed."""
        setting = await setting_of(self._base, self._judge.environments)
        workspace = await self._boxes.prepare(self._base.source)
        box = await self._boxes.start(Spec(workspace, setting.mounts, LIMITS, env=setting.env))
        try:
            for path, data in changed.items():
                await box.write(path, data)
            yield box
        finally:
            await box.close()

    async def run(
        self, box: Box, argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None
    ) -> ExecResult:
        """Raises LostError."""
        result = await box.exec(argv, env=env, timeout_s=timeout_s, output_limit=64 << 20)
        self.spent_s += result.cpu_s
        if result.reason == "lost":
            raise LostError("sandbox_died", f"the box was lost during {argv[0]}")
        return result


class Toolchain(ABC):
    """Of one project. `tree`: its files; `arguments`: what of its suite is used."""

    language: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    aside: ClassVar[re.Pattern[str]] = ASIDE
    """Paths that hold no code of the project."""

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        self.tree, self.arguments = tree, list(arguments)

    @abstractmethod
    def setup(self) -> list[Command]:
        """What installs its dependencies, with the network, into /environment."""

    @abstractmethod
    def plan(self, suites: Sequence[str], seconds: float) -> TestPlan:
        """How these suites, which take so long, are judged; its test lists are empty."""

    @abstractmethod
    async def survey(self, boxes: Boxes, timeout_s: float) -> Survey:
        """The whole suite, run once, with coverage where there is a means. Raises CrrlError, with what to do."""

    @abstractmethod
    def files(self, suite: str) -> list[str]:
        """The suite's test files."""

    @abstractmethod
    async def compared(
        self, boxes: Boxes, changed: Mapping[str, bytes], suite: str, known: frozenset[str]
    ) -> tuple[dict[str, Trace], dict[str, Trace]]:
        """Name of a test of the suite (`units.py`) -> what it calls and looks at, on the changed tree and on the one as
        it is; under "" what stands outside of any test. `known`: names of the project's own functions."""

    def leave_out(self, broken: Mapping[str, str]) -> None:
        """Told what an earlier survey has left out, where it is not run again."""
        return

    def sources(self) -> list[str]:
        """Paths of its code."""
        return [path for path in self.paths() if not TESTS.search(path) and not self.aside.search(path)]

    def knows(self, path: str) -> bool:
        """Whether coverage says all of a file that it names, and of one that it does not that nothing ran it."""
        return True

    def paths(self) -> list[str]:
        found = []
        for path in sorted(self.tree.rglob("*")):
            place = path.relative_to(self.tree)
            if (
                place.suffix in self.suffixes
                and not LEFT_OUT & set(place.parts)
                and path.is_file()
                and not path.is_symlink()
            ):
                found.append(str(place))
        return found


def suite_of(test: str) -> str:
    return test.partition("::")[0]


def ended(result: ExecResult, timeout_s: float) -> None:
    """Raises CrrlError where the suite was stopped."""
    if result.reason == "timeout":
        raise CrrlError(f"The suite did not end within {timeout_s:.0f} s.", "Name a quicker part: tests=...")
    if result.reason != "exit":
        raise CrrlError(
            f"The suite was stopped ({result.reason}).\n{result.output[-1500:]}", "Name a part of it: tests=..."
        )


def surveyed(
    suites: Iterable[Suite], seconds: Mapping[str, float], lines: dict[str, dict[int, set[str]]], said: str,
    broken: dict[str, str],
) -> Survey:  # fmt: skip
    """`lines`: path -> line -> the suites that cover it; `said`: what was printed; `broken`: suites that do not run,
    and why. Raises CrrlError where most tests fail."""
    passed: dict[str, float] = {}
    failed: dict[str, str] = {}
    for suite in suites:
        for test, status in suite.tests:
            id = f"{suite.name}::{test}"
            if status == "passed" and id not in failed:
                passed[id] = seconds.get(id, 0.0)
            elif status != "skipped":
                failed[id] = status
                passed.pop(id, None)
    if not passed and not failed:
        raise CrrlError(f"The suite has no tests that can be read here.\n{said[-1500:]}", "Name some: tests=...")
    if len(passed) <= len(failed):
        raise CrrlError(
            f"The suite is red: {len(failed)} of {len(passed) + len(failed)} tests fail before anything is changed.\n"
            f"{said.strip()[-1500:]}",
            "Make it pass first, or name the part that does: tests=...",
        )
    by_suite: dict[str, list[str]] = {}
    for test in passed:
        by_suite.setdefault(suite_of(test), []).append(test)
    covered = {
        path: {
            line: [test for suite in sorted(names) for test in by_suite.get(suite, [])] for line, names in found.items()
        }
        for path, found in lines.items()
    }
    return Survey(passed, failed, covered, broken=broken)


def file_suffix(path: str) -> str:
    return PurePath(path).suffix
