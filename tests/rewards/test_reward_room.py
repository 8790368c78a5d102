"""Each reward by hand, and a cheap attack on each: paid nothing, or nearly that."""

import time
from dataclasses import replace

import pytest

from crrl.errors import UsageError
from crrl.gateway.api import Sample
from crrl.rewards import REPORTED, REWARDS, combine, make
from crrl.rewards.api import TestResults, Trace
from crrl.task import Task
from crrl.tasks.generator.generate import generate

FIX = "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n-b = 1\n+b = 2\n c = 3\n"
COMMENT = "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,3 @@\n b = 1\n+# b = 2\n c = 3\n"
TASK = generate("train", 0, 0)
TASK = replace(TASK, solution=FIX, test=replace(TASK.test, fail_to_pass=["a", "b"], pass_to_pass=["c", "d"]))


def results(passed: str, trace: Trace | None = None, applied: bool = True) -> TestResults:
    tests = {name: "passed" if name in passed else "failed" for name in "abcd"}
    return TestResults(tests, applied=applied, trace=trace or Trace())  # type: ignore[arg-type]


def samples(tokens: int = 10) -> list[Sample]:
    return [Sample("1", "s", None, [1], [2] * tokens, [0.0] * tokens, [0] * tokens, finish="stop")]


def value(
    name: str, patch: str = FIX, passed: str = "abcd", trace: Trace | None = None, tokens: int = 10, **options: object
) -> float | None:
    return make(name, options)(TASK, patch, results(passed, trace), samples(tokens))


@pytest.mark.parametrize(
    ("passed", "all", "fraction", "flip", "stay"),
    [
        ("abcd", 1, 1, 1, 1),
        ("acd", 0, 0.5, 0.5, 1),
        ("abc", 0, 0.5, 1, 0.5),
        ("ac", 0, 0.25, 0.5, 0.5),
        ("cd", 0, 0, 0, 0),  # nothing flips: staying is no merit, so a patch that changes nothing is paid nothing
        ("ab", 0, 0, 1, 0),
        ("", 0, 0, 0, 0),
    ],
)
def test_tests(passed: str, all: float, fraction: float, flip: float, stay: float) -> None:
    names = ("tests", "tests_fraction", "must_flip", "must_stay")
    assert [value(name, passed=passed) for name in names] == [all, fraction, flip, stay]
    for name in names:
        assert make(name, {})(TASK, "", results("abcd", applied=False), []) == 0.0


def test_file_match() -> None:
    other = FIX.replace("m.py", "n.py")
    assert value("file_match") == 1.0
    assert value("file_match", FIX + other) == 0.5
    assert value("file_match", other) == 0.0
    assert value("file_match", COMMENT) == value("file_match", "") == value("file_match", "N/A") == 0.0
    many = FIX + "".join(FIX.replace("m.py", f"f{i}.py") for i in range(99))
    assert value("file_match", many) == 0.01, "touching every file does not find one"


def test_blocks() -> None:
    assert value("blocks", trace=Trace(counts={"edits": 3, "malformed": 1})) == 0.75
    assert value("blocks", "", trace=Trace(counts={"edits": 3, "malformed": 0})) == 0.0
    assert value("blocks", trace=Trace(counts={"edits": 0, "malformed": 0})) == 0.0
    assert value("blocks", trace=Trace(counts={"edits": 3, "malformed": 0, "tool_calls": 4})) is None


THOUGHT = "The loop stops one element too early, so the last is lost."


@pytest.mark.parametrize(
    ("said", "partial", "strict"),
    [
        (f"<think>\n{THOUGHT}\n</think>\n<answer>\nb = 2\nc = 3\n</answer>", 1, 1),
        (f"So:\n<think>{THOUGHT}</think><answer>x</answer>", 1, 0),
        (f"<think>{THOUGHT}<answer>x</answer>", 0.75, 0),
        (f"<think>{THOUGHT}</think><answer>x", 0.75, 0),
        (f"<answer>x</answer><think>{THOUGHT}</think>", 0, 0),
        ("<think></think><answer></answer>", 0, 0),
        ("<think>N/A</think><answer>N/A</answer>", 0, 0),
        ("<think>" + "word " * 50 + "</think><answer>x</answer>", 0, 0),
        (f"<think>{THOUGHT}</think><answer>...</answer>", 0, 0),
        ("<think><think></think><answer>", 0, 0),
        ("N/A", 0, 0),
    ],
)
def test_reasoning(said: str, partial: float, strict: float) -> None:
    assert value("reasoning", trace=Trace(said=said)) == partial
    assert value("reasoning", trace=Trace(said=said), strict=True) == strict


def test_length_is_paid_for_solved_tasks_only() -> None:
    assert [value("length", tokens=n, budget=100) for n in (10, 100, 150, 200, 900)] == [1, 1, 0.5, 0, 0]
    assert value("length", passed="abc", budget=100) == value("length", "", passed="cd", budget=100) == 0.0
    with pytest.raises(UsageError, match="budget=0"):
        make("length", {"budget": 0})


def test_habits() -> None:
    good = ["ls -la", "grep -rn total .", "sed -n 1,20p m.py"]
    assert value("habits", trace=Trace(commands=good)) == 1.0
    assert value("habits", trace=Trace(commands=["make", "make", "ls", "rg x"])) == 0.4
    assert value("habits", "", trace=Trace(commands=good)) == 0.0
    assert value("habits", trace=Trace(commands=["echo ls grep head; true"])) == 0.0
    assert value("habits", trace=Trace(commands=["ls; grep x .; head m.py"])) == 0.3, "one line is one command"
    assert value("habits") is None


def test_only_what_is_weighted_or_reported_is_computed() -> None:
    verdict = combine({"tests": 1.0, "must_flip": 0.0})(TASK, FIX, results("acd"), samples())
    assert set(verdict.components) <= {*REPORTED, "must_flip"} and verdict.components["must_flip"] == 0.5
    assert verdict.reward == 0.0
    assert set(REPORTED) < set(REWARDS)


def test_every_reward_can_be_made_and_says_in_its_file_how_it_is_gamed() -> None:
    import inspect
    import sys

    for name in REWARDS:
        file = inspect.getdoc(sys.modules[type(make(name, {})).__module__]) or ""
        assert "Gamed" in file or "Paid only" in file or name in ("tests", "format", "visible_only"), name


def test_none_is_left_out_where_nothing_is_known() -> None:
    unknown: Task = replace(TASK, solution=None)
    assert make("file_match", {})(unknown, FIX, results("a"), []) is None
    for name in ("tests_fraction", "must_flip", "must_stay", "length", "reasoning", "blocks", "habits"):
        assert make(name, {})(TASK, FIX, None, samples()) is None


def test_style_is_a_share_of_similarity() -> None:
    assert value("style") == 1.0
    assert value("style", FIX.replace("+b = 2", "+b = 2  ")) == 0.0  # white space at its end
    assert value("style", FIX.replace("+b = 2", "+b = 2" + " " * 90 + "# long")) == 0.0
    two = FIX.replace("@@ -1,2 +1,2 @@", "@@ -1,2 +1,3 @@").replace("+b = 2", "+b = 2\n+\tc = 4")
    assert 0 < (value("style", two) or 0) < 1
    for cheap in (
        COMMENT,
        "",
        "N/A",
        FIX.replace("m.py", "n.py"),
        FIX.replace("+b = 2\n", "").replace("1,2 @@", "1 @@"),
    ):
        assert value("style", cheap) == 0.0


@pytest.mark.parametrize("definition", ["changed_lines", "changed_tokens", "swe_rl", "predecessor"])
def test_a_patch_of_megabytes_is_like_no_fix_and_takes_no_time(definition: str) -> None:
    """By `swe_rl` it took minutes."""
    huge = FIX.replace("@@ -1,2 +1,2 @@", "@@ -1,2 +1,200001 @@").replace("+b = 2\n", "+b = 2\n" * 200_000)
    began = time.process_time()
    assert value("diff_similarity", huge, definition=definition) == 0.0 == value("style", huge)
    assert value("diff_similarity", FIX, definition=definition) == 1.0
    assert time.process_time() - began < 5
