"""A pytest plugin, run inside the box over a whole suite: which tests there are, how they end, which lines each covers.

Needs pytest and coverage only. Writes JSON to the file in CRRL_SURVEY: {"tests": [[id, outcome, seconds]...],
"lines": {path: {line: [test numbers]}}, "sampled": [test functions], "broken": {path: error}, "doctests": how many of
the project's modules were left out, since they stand in the code}; lines that run while a module is imported belong to
no test. A suite with tens of thousands of cases is cut to what a survey can hold: of a
test function with many cases, of test functions that differ in a number, and of a line that many tests run, some are
taken, evenly spread.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator

import coverage
import pytest

ROOT = os.getcwd()
COVERED = coverage.Coverage(data_file=None, include=[f"{ROOT}/*"], config_file=False)
MOST_CASES, MOST_ON_A_LINE = 40, 300  # of a test function, functions numbered alike; tests
TESTS: dict[str, list] = {}
SAMPLED: list[str] = []
BROKEN: dict[str, str] = {}
DOCTESTS: list[str] = []
NUMBER = re.compile(r"\d+(?!.*::)")  # in the function's own name


def spread(among: list, most: int) -> list:
    """At most so many, evenly spread, the first and the last among them."""
    if len(among) <= most:
        return among
    return [among[place * (len(among) - 1) // (most - 1)] for place in range(most)]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    cases: dict[object, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if type(item).__name__ == "DoctestItem" and item.path.suffix == ".py":
            DOCTESTS.append(item.nodeid)
        else:
            cases[made_of(item)].append(item)
    numbered: dict[str, dict[str, None]] = defaultdict(dict)  # test functions, by their names without numbers
    for among in cases.values():
        if len(among) <= MOST_CASES:
            numbered[NUMBER.sub("", function(among[0]))] |= {function(item): None for item in among}
    out: set[str] = set()
    for functions in numbered.values():
        if len(functions) > MOST_CASES:
            taken = spread(list(functions), MOST_CASES)
            SAMPLED.extend(taken)
            out |= functions.keys() - set(taken)
    kept = {id(item) for among in cases.values() for item in spread(among, MOST_CASES) if function(item) not in out}
    cut = [item for among in cases.values() if len(among) > MOST_CASES for item in among if id(item) in kept]
    SAMPLED.extend(dict.fromkeys(function(item) for item in cut))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


def function(item: pytest.Item) -> str:
    """Of a case, without its parameters."""
    return item.nodeid.partition("[")[0]


def made_of(item: pytest.Item) -> object:
    """What the cases of one test have in common: file, class and code, whether pytest, ddt or a loop has made them."""
    try:
        code = inspect.unwrap(getattr(item, "function", None)).__code__  # type: ignore[arg-type]
    except (AttributeError, ValueError, TypeError):
        return function(item)
    return function(item).rpartition("::")[0], code


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        BROKEN[report.nodeid] = report.longreprtext.strip().rpartition("\n")[2][:300]


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
                lines[os.path.relpath(file, ROOT)][line] = spread(found, MOST_ON_A_LINE)
    with open(os.environ["CRRL_SURVEY"], "w") as out:
        report = {"tests": list(TESTS.values()), "lines": lines, "sampled": SAMPLED, "broken": BROKEN}
        json.dump(report | {"doctests": len(DOCTESTS)}, out)
