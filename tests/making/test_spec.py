"""`crrl tasks spec`: from a project with a suite to tasks that ask for a function; what is left out, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.rewards import likeness_judge
from crrl.tasks.files import load_tasks

CODE = '''"""Numbers."""


def clamp(value, low, high):
    """The value, moved into the range from `low` to `high`, both ends included.

    >>> clamp(12, 1, 9)
    9
    """
    if value < low:
        return low
    return min(value, high)


def pairs(values):
    """Yield each of the values together with the one that follows it in the list, as tuples of two.

    >>> list(pairs([1, 2, 3]))
    [(1, 2), (2, 3)]
    """
    before = list(values)
    for place in range(len(before) - 1):
        yield before[place], before[place + 1]


def unspecified(values):
    """Unspecified."""
    return sum(values) * 2


def undocumented(values):
    return sum(values) * 3


def first_twin(rows):
    """The sum of all rows that are longer than two, each row counted with the sum of the numbers in it."""
    found = 0
    for row in rows:
        if len(row) > 2:
            found += sum(row)
    return found


def other_twin(lines):
    """The sum of all lines that are longer than two, each line counted with the sum of the numbers in it."""
    total = 0
    for line in lines:
        if len(line) > 2:
            total += sum(line)
    return total


def quiet(values):
    """Tell nobody: collects the values that were given into a list of its own and forgets them again at once.

    >>> quiet([1])
    """
    seen = []
    for value in values:
        seen.append(value)


def strict(number):
    """The square root of a whole number that is a square, as a whole number; other numbers are refused.

    >>> strict(9)
    3
    """
    root = int(number**0.5)
    if root * root != number:
        raise ValueError("that is not a square")
    return root


def refuse(number):
    """Half of an even number; whatever is odd is refused with an error, since it has no half here.

    >>> refuse(4)
    2
    """
    if number % 2:
        raise LookupError(number)
    return number // 2


def at_import(name):
    """The name in upper case with an underscore before it, as the constants of this module are called.

    >>> at_import("one")
    '_ONE'
    """
    return "_" + name.upper()


NAME = at_import("name")


def copied(words):
    """The words in a text, each with its length after it, in the order that they have, joined by commas.

    >>> copied(["a", "bc"])
    'a1,bc2'
    """
    parts = [word + str(len(word)) for word in words]
    joined = ",".join(parts)
    return joined


def unnoticed(values):
    """The largest of the values together with the smallest of them in a tuple, in this order.

    >>> unnoticed([3, 1])
    (3, 1)
    """
    return max(values), min(values)
'''
TESTS = (
    """import pytest
from numbers_of import *


def test_inside():
    assert clamp(5, 1, 9) == 5


def test_below():
    assert clamp(-3, 1, 9) == 1


def test_above():
    assert clamp(12, 1, 9) == 9


def test_pairs():
    assert list(pairs([1, 2, 3])) == [(1, 2), (2, 3)]


def test_others():
    assert unspecified([1]) == 2 and undocumented([1]) == 3


def test_twins():
    assert first_twin([[1, 2, 3]]) == 6 and other_twin([[1, 2, 3]]) == 6


def test_quiet():
    assert quiet([1]) is None


def test_strict():
    for number in range(10):
        if int(number**0.5) ** 2 == number:
            assert strict(number) ** 2 == number
            continue
        with pytest.raises(ValueError, match="not a square"):
            strict(number)
"""
    + "    assert strict(4) == 2\n" * 40
    + """


def test_refuse():
    with pytest.raises(LookupError):
        refuse(3)


def test_at_import():
    assert at_import("one") == "_ONE"


def test_copied():
    assert copied(["a", "bc"]) == "a1,bc2"


def test_unnoticed():
    try:
        unnoticed([3, 1])
    except NotImplementedError:
        pass
"""
)
COPY = """def made(words):
    # as it was before
    parts = [word + str(len(word)) for word in words]
    joined = ",".join(parts)
    return joined
"""
REASONS = {
    "unspecified": "says too little",
    "undocumented": "says too little",
    "first_twin": "near-duplicate",
    "other_twin": "near-duplicate",
    "quiet": "an empty body passes",
    "strict": "tests compare what is not said",
    "at_import": "needed to import, or does not compile",
    "copied": "stands elsewhere",
    "unnoticed": "unnoticed",
}
LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "numbers-1.0"
    (root / "tests").mkdir(parents=True)
    (root / "numbers_of.py").write_text(CODE)
    (root / "LICENSE").write_text(LICENCE)
    (root / "tests/test_numbers.py").write_text(TESTS)
    (root / "tests/conftest.py").write_text("")
    (root / "old.txt").write_text(COPY)
    return root


def spec(project: Path, out: Path, *words: str) -> int:
    return main(["tasks", "spec", str(project), f"out={out}", "setup=none", "network=no", "times=1", *words])


@pytest.mark.timeout(600)
def test_a_project_becomes_tasks_and_each_other_function_has_its_reason(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made.jsonl"
    assert spec(project, out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    tasks, problems = load_tasks(out)
    assert {task.provenance["function"].partition(":")[2] for task in tasks} == {"clamp", "pairs", "refuse"}
    assert told["tasks"] == told["candidates"]["admitted"] == 3 and not problems
    left = [json.loads(line) for line in out.with_suffix(".left_out.jsonl").read_text().splitlines()]
    assert {one["function"].partition(":")[2]: one["reason"] for one in left} == REASONS
    places = {one["function"].partition(":")[2]: one["why"] for one in left}
    assert places["copied"] == "/workspace/old.txt" and places["strict"] == "that is not a square"
    for reason in set(REASONS.values()):
        assert told["candidates"][reason] == list(REASONS.values()).count(reason)
    for task in tasks:
        assert task.provenance["licence"] == "MIT" and task.provenance["objective"] == "implement"
        assert (
            task.test.fail_to_pass and task.solution is not None and "-    raise NotImplementedError" in task.solution
        )
        body = [line[1:].strip() for line in task.solution.splitlines() if line.startswith("+    ")]
        assert body and not any(line in task.issue for line in body)
    (clamp,) = [task for task in tasks if task.provenance["function"].endswith(":clamp")]
    assert "    def clamp(value, low, high):\n" in clamp.issue and ">>> clamp(12, 1, 9)" in clamp.issue
    assert len(clamp.test.fail_to_pass) == 3 and "tests/test_numbers.py::test_refuse" in clamp.test.pass_to_pass
    (refuse,) = [task for task in tasks if task.provenance["function"].endswith(":refuse")]
    assert "Its tests:\n\n    # tests/test_numbers.py\n    def test_refuse():\n" in refuse.issue
    assert "def test_below():" in clamp.issue and "def test_refuse" not in clamp.issue
    finished = out.with_suffix(".work").read_bytes()
    assert spec(project, out, "--json") == 0  # goes on: nothing is left to do
    again = json.loads(capsys.readouterr().out)
    assert again["candidates"] == told["candidates"] and out.with_suffix(".work").read_bytes() == finished
    assert [task.id for task in load_tasks(out)[0]] == [task.id for task in tasks]
    assert main(["tasks", "check", str(out), "times=1"]) == 0


SCRIPT = """'use strict';

/**
 * The value, moved into the range from low to high, both ends included: clamp(12, 1, 9) => 9
 */
function clamp(value, low, high) {
  if (value < low) {
    return low;
  }
  return Math.min(value, high);
}

function undocumented(value) {
  return [value, value].join('-');
}

module.exports = { clamp, undocumented };
"""
SCRIPT_TESTS = """const test = require('node:test');
const assert = require('node:assert');
const { clamp, undocumented } = require('../lib/numbers');

test('clamps', () => {
  assert.strictEqual(clamp(12, 1, 9), 9);
  assert.strictEqual(clamp(-2, 1, 9), 1);
});

test('joins', () => assert.strictEqual(undocumented(1), '1-1'));
"""


@pytest.mark.timeout(600)
def test_a_script_becomes_tasks_too(tmp_path: Path) -> None:
    root, out = tmp_path / "numbers", tmp_path / "made.jsonl"
    for path, text in {"lib/numbers.js": SCRIPT, "test/numbers.test.js": SCRIPT_TESTS}.items():
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    package = {"name": "numbers", "version": "1.0.0", "license": "ISC", "scripts": {"test": "node --test"}}
    (root / "package.json").write_text(json.dumps(package))
    assert spec(root, out) == 0
    (task,) = load_tasks(out)[0]
    assert task.language == "javascript" and task.provenance["licence"] == "ISC"
    assert "function clamp(value, low, high)" in task.issue and "clamp(12, 1, 9) => 9" in task.issue
    assert '-  throw new Error("not implemented");' in (task.solution or "")
    (left,) = [json.loads(line) for line in out.with_suffix(".left_out.jsonl").read_text().splitlines()]
    assert (left["function"], left["reason"]) == ("lib/numbers.js:undocumented", "says too little")


def test_code_without_tests_is_compared_with_the_original(tmp_path: Path, project: Path) -> None:
    """A project that has no suite; nothing is run, and the record says so."""
    for path in project.glob("tests/*"):
        path.unlink()
    out = tmp_path / "made.jsonl"
    assert spec(project, out, "tests=none") == 0
    tasks, problems = load_tasks(out)
    names = {task.provenance["function"].partition(":")[2] for task in tasks}
    assert not problems and names == {"clamp", "pairs", "quiet", "strict", "refuse", "at_import", "unnoticed"}
    for task in tasks:
        assert task.test.parser == "likeness" and "no test is run" in task.provenance["judged_by"]
        assert "Tested by" not in task.issue and "raise NotImplementedError" not in task.issue
        (original,) = [likeness_judge.judge(task, task.solution or "").tests]
        assert original == {likeness_judge.TEST: "passed"}
        for cheap in ("", "N/A", "".join(task.source.patches)):
            assert likeness_judge.judge(task, cheap).tests[likeness_judge.TEST] != "passed"
    assert main(["tasks", "check", str(out), "times=1"]) == 0


def test_untested_scripts_too(tmp_path: Path) -> None:
    root, out = tmp_path / "numbers", tmp_path / "made.jsonl"
    for path, text in {"lib/numbers.js": SCRIPT, "test/numbers.test.js": SCRIPT_TESTS}.items():
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    (root / "package.json").write_text(json.dumps({"name": "numbers", "version": "1.0.0"}))
    assert spec(root, out, "tests=none") == 0
    (task,) = load_tasks(out)[0]
    assert (task.language, task.provenance["function"]) == ("javascript", "lib/numbers.js:clamp")
