"""One small task, and patches made by writing the files as they shall be."""

from __future__ import annotations

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.diffs import between

BUGGY = '''"""Statistics."""


def mean(xs):
    """The arithmetic mean."""
    return sum(xs) / (len(xs) + 1)


def double(x):
    return 2 * x
'''
FIXED = BUGGY.replace(" / (len(xs) + 1)", " / len(xs)")
TESTS = """from stats import double, mean


def test_mean():
    assert mean([1, 2, 3]) == 2


def test_mean_of_one():
    assert mean([7]) == 7


def test_double():
    assert double(4) == 8
"""
FILES = {
    "stats.py": BUGGY,
    "tests/test_stats.py": TESTS,
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-ra"\n',
    "README.md": "# stats\n",
}
FAIL = ["tests/test_stats.py::test_mean", "tests/test_stats.py::test_mean_of_one"]
PASS = ["tests/test_stats.py::test_double"]


def make_task(
    files: dict[str, str] = FILES,
    *,
    fail: list[str] = FAIL,
    keep: list[str] = PASS,
    argv: list[str] | None = None,
    timeout_s: float = 15.0,
) -> Task:
    restore = {path: text for path, text in files.items() if path.startswith("tests/")}
    return Task(
        id="stats-1",
        corpus="test",
        split="train",
        language="python",
        family="mean",
        source=Source(files=files),
        issue="mean is too small",
        test=TestPlan(Command(argv or ["tests"]), "pytest", list(fail), list(keep), restore, timeout_s),
        solution=diff({"stats.py": FIXED}, files),
    )


def diff(changes: dict[str, str | None], files: dict[str, str] = FILES) -> str:
    """A git-style patch that turns `files` into `files | changes` (None deletes)."""
    return "".join(between(path, files.get(path), after) for path, after in changes.items())
