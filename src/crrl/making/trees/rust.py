"""Cargo packages: `cargo test`. A suite is a test binary of `tests/`, and every one of them is asked: no coverage.

The tests inside of `src/` stand in the files that a repair changes: they cannot be put back, so they judge nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from crrl.errors import CrrlError
from crrl.making.survey import Survey
from crrl.making.trees.asserted import Asserted, Failure
from crrl.making.trees.toolchain import Boxes, ended, surveyed
from crrl.rewards.reports import Suite, cargo_text
from crrl.task import Command, TestPlan
from crrl.tasks.setup.environments import PLACE

VENDOR = f"CARGO_HOME=/tmp/cargo cargo vendor --quiet {PLACE}/crates > /dev/null"
VENDORED = [
    *("--config", 'source.crates-io.replace-with="vendored"'),
    *("--config", f'source.vendored.directory="{PLACE}/crates"'),
]
NEW = re.compile(
    r"panicked at (tests/[^:\n]+):(\d+):\d+:\nassertion `left == right` failed.*\n +left: (.*)\n +right: (.*)"
)
OLD = re.compile(  # before 1.73
    r"panicked at 'assertion failed: `\(left == right\)`\n +left: `(.*)`,\n +right: `(.*)`.*', (tests/[^:\n]+):(\d+)"
)


class Rust(Asserted):
    language = "rust"
    suffixes = (".rs",)
    aside = re.compile(rf"{Asserted.aside.pattern}|(^|/)(build\.rs|tests/|benches/)")

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        super().__init__(tree, arguments)
        try:
            found = tomllib.loads((tree / "Cargo.toml").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CrrlError(f"Cargo.toml: {error}", "Is it a package of Cargo?") from None
        self.vendored = any(found.get(kind) for kind in ("dependencies", "dev-dependencies", "build-dependencies"))

    def setup(self) -> list[Command]:
        return [Command(["sh", "-ec", VENDOR], timeout_s=1800.0)] if self.vendored else []

    def _argv(self, suites: Sequence[str]) -> list[str]:
        """Of these test binaries, or of all in tests/."""
        named = [word for suite in suites for word in ("--test", _binary(suite))]
        return ["cargo", "test", "--no-fail-fast", *(VENDORED if self.vendored else []), *(named or ["--test", "*"])]

    def plan(self, suites: Sequence[str], seconds: float) -> TestPlan:
        argv = ["prlimit", f"--cpu={int(300 + 10 * seconds)}", *self._argv(suites)]
        return TestPlan(Command(argv), "cargo", [], [], needs=["rust"], timeout_s=900 + 3 * seconds)

    def files(self, suite: str) -> list[str]:
        return [suite]

    async def survey(self, boxes: Boxes, timeout_s: float) -> Survey:
        async with boxes.open({}) as box:
            result = await boxes.run(box, [*self._argv([]), *self.arguments], timeout_s)
        ended(result, timeout_s)
        suites = [suite for suite in cargo_text(result.output) if suite.name.startswith("tests/")]
        tests = sum(len(suite.tests) for suite in suites)
        if not tests:
            raise CrrlError(
                f"cargo runs no test of tests/.\n{result.output.strip()[-1200:]}",
                "Tests inside of src/ stand in the files that a repair changes: they cannot judge it.",
            )
        seconds = {id: result.cpu_s / tests for suite in suites for id in _ids(suite)}
        return surveyed(suites, seconds, {}, result.output, {})

    async def failures(self, boxes: Boxes, changed: Mapping[str, bytes], suite: str) -> list[Failure]:
        async with boxes.open(changed) as box:
            argv = ["prlimit", "--cpu=600", *self._argv([suite])]
            result = await boxes.run(box, argv, 900, {"RUST_BACKTRACE": "0"})
        new = [Failure(path, int(line), (a, b)) for path, line, a, b in NEW.findall(result.output)]
        return new + [Failure(path, int(line), (a, b)) for a, b, path, line in OLD.findall(result.output)]


def _binary(suite: str) -> str:
    """The name of `tests/NAME.rs` or `tests/NAME/main.rs`."""
    path = PurePath(suite)
    return path.parent.name if path.name == "main.rs" else path.stem


def _ids(suite: Suite) -> list[str]:
    return [f"{suite.name}::{test}" for test, _ in suite.tests]
