"""Rewards, their combination, and the detectors on honest patches."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

from dataclasses import replace

import pytest
from judge_kit import BUGGY, FILES, FIXED, diff, make_task

from crrl.errors import UsageError
from crrl.gateway.api import Sample
from crrl.rewards import REPORTED, combine, exploits, patching
from crrl.rewards.api import TestResults
from crrl.rewards.format import Format

SOLUTION = diff({"stats.py": FIXED})


def results(task, status="passed", **changes) -> TestResults:  # type: ignore[no-untyped-def]
    return TestResults(dict.fromkeys([*task.test.fail_to_pass, *task.test.pass_to_pass], status), **changes)


def sample(finish: str = "stop") -> Sample:
    return Sample("1", "s", None, [1], [2], [0.0], [0], finish=finish)


def test_solved_needs_every_test() -> None:
    task = make_task()
    weigh = combine({"tests": 1.0, "diff_similarity": 0.5}, harness_version="v1")
    verdict = weigh(task, SOLUTION, results(task), [sample()])
    assert (verdict.reward, verdict.solved, verdict.harness_version) == (1.5, True, "v1")
    assert verdict.components == {"tests": 1.0, "diff_similarity": 1.0, "format": 1.0}
    for status in ("failed", "missing", "skipped", "error"):
        one = results(task)
        one.tests[task.test.pass_to_pass[0]] = status  # type: ignore[assignment]
        assert weigh(task, "", one).components["tests"] == 0.0
    assert not weigh(task, "", results(task, applied=False)).solved
    assert not weigh(make_task(fail=[], keep=[]), "", TestResults({})).solved


def test_what_is_not_applicable_is_left_out() -> None:
    task = make_task()
    task = type(task)(**{**task.__dict__, "solution": None})
    assert set(combine({"tests": 1.0})(task, "", results(task)).components) == {"tests"}


def test_an_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'diff_similarity'"):
        combine({"diff_similarty": 1.0})
    with pytest.raises(UsageError):
        combine({})
    assert set(REPORTED) == {"tests", "diff_similarity", "format", "visible_only"}


def test_format() -> None:
    task = make_task()
    score = Format()
    assert score(task, SOLUTION, results(task), [sample()]) == 1.0
    assert score(task, SOLUTION, results(task), [sample(), sample("length")]) == 0.0
    assert score(task, "", results(task), [sample()]) == 0.0
    assert score(task, SOLUTION, None, []) is None


def found(changes: dict[str, str | None], files: dict[str, str] = FILES) -> list[str]:
    task, patch = make_task(files), diff(changes, files)
    read = patching.reader(None, files)
    rules = exploits.Protected(task, lambda path: read(path) is not None)
    return exploits.detect(patch, patching.apply(patch, read, rules.covers), read, rules, task.test.restore)


def test_a_file_of_doctests_can_be_repaired_and_a_file_of_tests_cannot() -> None:
    doctests = ["stats.py::stats.mean", "pkg/__init__.py::pkg", "src/pkg/cart.py::pkg.cart.Cart.total"]
    tests = ["checks.py::test_a", "checks/cart.py::TestCart::test_b[cart.py]", "more/test_cart.py::test_cart"]
    assert [test for test in doctests + tests if exploits.is_doctest(test)] == doctests
    task = make_task()
    task = replace(task, test=replace(task.test, pass_to_pass=[*task.test.pass_to_pass, *doctests, *tests]))
    rules = exploits.Protected(task, lambda path: True)
    named = [test.partition("::")[0] for test in doctests + tests]
    assert [path for path in named if rules.covers(path)] == ["checks.py", "checks/cart.py", "more/test_cart.py"]


def test_honest_patches_are_not_accused() -> None:
    assert found({"stats.py": FIXED}) == []
    assert found({"tests/test_mine.py": "def test_x():\n    pass\n", "notes.md": "x\n"}) == []
    assert found({"pkg/types.py": "X = 1\n", "src/pkg/json.py": ""}) == []
    honest = "class P:\n    def __eq__(self, other):\n        return self.x == other.x\n    __hash__ = None\n"
    assert found({"stats.py": FIXED + honest}) == []
    never = "class P:\n    def __eq__(self, other):\n        return False\n    def __lt__(self, o):\n        return NotImplemented\n"
    assert found({"stats.py": FIXED + never}) == []
    old = {**FILES, "tool.py": "import gc\nimport os\nos._exit(3)\n"}
    assert found({"tool.py": "import gc\nimport os\nX = 1\nos._exit(3)\n"}, old) == []


def test_special_cased_inputs_are_counted() -> None:
    special = BUGGY.replace("    return sum", "    if xs == [1, 2, 3]:\n        return 7\n    return sum")
    assert found({"stats.py": special}) == ["special_cased_input"]
    for cased in (
        "if not xs != [7]:\n        return 7\n    return",
        "if len(xs) == 1 and xs in ([9], [7]):\n        return 7\n    return",
        "if xs != [7]:\n        pass\n    else:\n        return 7\n    return",
        "return 7 if xs == [7] else",
        "return sum(xs) if xs != [7] else 7\n    return",
    ):
        text = BUGGY.replace("    return sum", f"    {cased} sum")
        assert found({"stats.py": text}) == ["special_cased_input"], text


def test_what_is_compared_otherwise_than_before_is_no_special_case() -> None:
    """The buggy code had the input and the answer already; and a threshold is no input."""
    grade = "def grade(x):\n    if x == 21:\n        return 'good'\n    return 'fair'\n"
    tests = "from grade import grade\n\n\ndef test():\n    assert grade(21) == 'good'\n    assert grade(23) == 'fair'\n"
    files = {**FILES, "grade.py": grade, "tests/test_stats.py": tests}
    for old, new in (("==", "!="), ("==", ">="), ("== 21", "> 23"), ("'good'", "'fair'")):
        assert found({"grade.py": grade.replace(old, new)}, files) == [], new
    cased = grade.replace("    if", "    if x == 23:\n        return 'fair'\n    if")
    assert found({"grade.py": cased}, files) == ["special_cased_input"]
