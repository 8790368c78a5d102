"""A pytest plugin, run inside the box over a whole suite: which tests there are, how they end, which lines each covers.

Needs pytest and coverage only. Writes JSON to the file in CRRL_SURVEY: {"tests": [[id, outcome, seconds]...],
"lines": {path: {line: [test numbers]}}}; lines that run while a module is imported belong to no test.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator

import coverage
import pytest

ROOT = os.getcwd()
COVERED = coverage.Coverage(data_file=None, include=[f"{ROOT}/*"], config_file=False)
TESTS: dict[str, list] = {}


def pytest_sessionstart() -> None:
    COVERED.start()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    COVERED.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        COVERED.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    test = TESTS.setdefault(report.nodeid, [report.nodeid, "passed", 0.0])
    test[2] += report.duration
    if report.outcome != "passed":
        test[1] = report.outcome


def pytest_sessionfinish() -> None:
    COVERED.stop()
    data = COVERED.get_data()
    numbers = {id: number for number, id in enumerate(TESTS)}
    lines: dict[str, dict[int, list[int]]] = defaultdict(dict)
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            if found := sorted(numbers[context] for context in contexts if context in numbers):
                lines[os.path.relpath(file, ROOT)][line] = found
    with open(os.environ["CRRL_SURVEY"], "w") as out:
        json.dump({"tests": list(TESTS.values()), "lines": lines}, out)
