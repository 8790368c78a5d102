"""A suite is run once, under coverage, in a box: which tests pass, how long each takes, which lines each covers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError, LostError
from crrl.making.pytest_options import PYTEST, first_that_runs, left_out, plugins_env
from crrl.sandbox.api import ExecResult, Limits, Mount, Sandbox, Spec
from crrl.task import Source
from crrl.tasks.setup import environments
from crrl.tasks.setup.environments import Environment

LIMITS = Limits(memory_bytes=3 << 30, processes=256, disk_bytes=1 << 30, inodes=60_000, tmp_bytes=512 << 20)
REPORT = ".crrl-survey.json"
REPORT_BYTES = 512 << 20
EXTENSIONS = re.compile(
    r"\bext_modules\b|\bExtension\(|\b(maturin|mesonpy|scikit[-_]build|setuptools[-_]rust|cython)\b", re.I
)
NO_TESTS = 5  # pytest's exit code
GO_ON = "--continue-on-collection-errors"


@dataclass(frozen=True)
class Survey:
    """Args:
    seconds: of each test that passed.
    failed: those that did not, with what became of them.
    lines: path -> line -> the tests that passed and ran it.
    options: pytest arguments without which the suite does not run here.
    sampled: test functions that are, or are among, so many cases of one test that only some were run.
    broken: test files that cannot be imported here, with what they raise.
    doctests: how many were left out: they stand in the code that is repaired.
    judged_cpu_s: of all that passed, in one run of the judge; 0: not measured.
    """

    seconds: dict[str, float]
    failed: dict[str, str] = field(default_factory=dict)
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    doctests: int = 0
    judged_cpu_s: float = 0.0


async def survey(
    source: Source,
    boxes: Sandbox,
    state_dir: Path,
    pytest_site: Mount,
    environment: Environment | None,
    tests: list[str],
    timeout_s: float,
) -> Survey:
    """Raises CrrlError, with what to do, where the suite does not run or has no test that passes."""
    plugin = Path(__file__).with_name("survey_plugin.py").read_text()
    tools = environments.tool(state_dir, "coverage", {"crrl_survey.py": plugin})
    mounts, env = [pytest_site, Mount(tools, "/tools")], {"CRRL_SURVEY": f"/workspace/{REPORT}"}
    if environment is not None:
        mounts, env = [*mounts, environment.mount], env | environment.variables
    env |= {"PYTHONPATH": "/tools", **plugins_env(environment)}
    box = await boxes.start(Spec(await boxes.prepare(source), mounts, LIMITS, env=env))
    try:
        run = [*PYTEST, "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "crrl_survey", GO_ON]
        out = await left_out(box, environment)

        async def once(options: Sequence[str]) -> ExecResult:
            return await box.exec([*run, *options, *tests], timeout_s=timeout_s, output_limit=1 << 20)

        options, result = await first_that_runs(once, out)
        try:
            found = json.loads(await box.read(REPORT, limit=REPORT_BYTES))
        except (OSError, ValueError):
            found = {}
        passes = any(outcome == "passed" for _, outcome, _ in found.get("tests", ()))
        if not passes or result.reason != "exit" or result.code not in (0, 1):
            _refuse(result, tests, timeout_s, _extensions((await boxes.prepare(source)).lower), found)
    finally:
        await box.close()
    return _read(found, options, result)


def _extensions(tree: Path) -> bool:
    """Whether the project builds modules of its own that are not Python: they are no part of a checkout's set-up."""
    said = [tree / name for name in ("setup.py", "setup.cfg", "pyproject.toml")]
    texts = [file.read_text("utf-8", "replace") for file in said if file.is_file()]
    return any(EXTENSIONS.search(text) for text in texts)


def _refuse(result: ExecResult, tests: list[str], timeout_s: float, extensions: bool, found: dict[str, Any]) -> None:
    """Of a suite that did not end, or in which nothing has passed. `found`: its report; empty: it left none."""
    said = result.output.strip()[-1500:]
    if result.reason == "lost":
        raise LostError("sandbox_died", "the box was lost while the suite ran")
    if result.reason == "timeout":
        raise CrrlError(f"The suite did not end within {timeout_s:.0f} s.", "Name a quicker part: tests=PATH.")
    if result.reason != "exit":
        raise CrrlError(f"The suite was stopped ({result.reason}).\n{said}", "Name a part of it: tests=PATH.")
    if missing := re.findall(r"ModuleNotFoundError: No module named '([\w.]+)'", result.output):
        names = ", ".join(dict.fromkeys(missing))
        if extensions:
            raise CrrlError(
                f"The suite cannot import {names}, and the project builds extension modules, which are not built here.",
                "Name tests that do without them, tests=PATH; if it is another package: setup='pip install -e . NAME'.",
            )
        remedy = (
            f"Name what it needs: setup='pip install -e . {' '.join(dict.fromkeys(n.split('.')[0] for n in missing))}'"
        )
        raise CrrlError(f"The suite needs packages that its environment does not have: {names}.", remedy)
    if result.code == NO_TESTS and found.get("doctests"):
        raise CrrlError(
            f"pytest finds nothing but doctests{f' in {tests[0]}' if tests else ''}: they stand in the code that is "
            "repaired, and cannot judge it.",
            "Say where there are other tests: tests=PATH.",
        )
    if result.code == NO_TESTS:
        raise CrrlError(f"pytest finds no tests{f' in {tests[0]}' if tests else ''}.", "Say where: tests=PATH.")
    if result.code not in (0, 1):
        raise CrrlError(
            f"The suite does not run (pytest's exit code {result.code}):\n{said}", "Does `pytest` run there?"
        )
    if not found:
        raise CrrlError("The suite left no report.", f"It said: {result.output[-500:]}")
    if broken := found["broken"]:
        raise CrrlError(
            f"No test of the suite can be run: {'; '.join(f'{path}: {why}' for path, why in list(broken.items())[:3])}",
            "Does `pytest` run there?",
        )


def _read(found: dict, options: list[str], result: ExecResult) -> Survey:
    tests = found["tests"]
    passed = {id: seconds for id, outcome, seconds in tests if outcome == "passed"}
    failed = {id: outcome for id, outcome, _ in tests if outcome == "failed"}
    if len(passed) <= len(failed):
        raise CrrlError(
            f"The suite is red: {len(failed)} of {len(tests)} tests fail before anything is changed.\n"
            f"{result.output.strip()[-1500:]}",
            "Make it pass first, or name the part that does: tests=PATH.",
        )
    lines = {
        path: {int(line): [tests[n][0] for n in numbers if tests[n][0] in passed] for line, numbers in covered.items()}
        for path, covered in found["lines"].items()
    }
    return Survey(passed, failed, lines, options, found["sampled"], found["broken"], found["doctests"])
