"""`crrl tasks make`: from a small project with a suite to admitted tasks; stopped and resumed; what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crrl.admission.work_file import WorkFile
from crrl.cli.main import main
from crrl.making.hiding import without_tests
from crrl.making.screening import Screener
from crrl.making.survey import Survey
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.files import load_tasks
from crrl.tasks.leakage import twins

CODE = '''"""Numbers."""


def clamp(value, low, high):
    """`value`, moved into [low, high]."""
    if value < low:
        return low
    return min(value, high)


def total(numbers):
    found = 0
    for number in numbers:
        found += number
    return found
'''
TESTS = """import pytest
from numbers_of import clamp, total


def test_inside():
    assert clamp(5, 1, 9) == 5


def test_below():
    assert clamp(-3, 1, 9) == 1


def test_above():
    assert clamp(12, 1, 9) == 9


@pytest.mark.parametrize("numbers, expected", [([], 0), ([4], 4), ([4, 5], 9)])
def test_total(numbers, expected):
    assert total(numbers) == expected


class TestTotal:
    def test_negative(self):
        assert total([-1, -2]) == -3


def test_red():
    assert clamp(1, 2, 3) == 1
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "numbers_of.py").write_text(CODE)
    (root / "tests/test_numbers.py").write_text(TESTS)
    (root / "tests/conftest.py").write_text("")
    (root / "pytest.ini").write_text("[pytest]\naddopts = --cov=numbers_of\n")  # a plugin that is not here
    return root


MAKE, PLAIN = ["tasks", "make"], ["setup=none", "network=no"]


def make(project: Path, out: Path, *words: str) -> int:
    return main([*MAKE, str(project), f"out={out}", *PLAIN, "times=1", *words])


@pytest.mark.timeout(600)
def test_a_project_becomes_tasks_that_load_elsewhere(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "project.jsonl"
    out.parent.mkdir()
    assert make(project, out, "limit=3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tasks"] == 3 and told["candidates"]["admitted"] >= 3 and told["cpu_seconds"] > 0
    (tmp_path / "made").rename(tmp_path / "moved")  # file and tree together
    tasks, problems = load_tasks(tmp_path / "moved" / "project.jsonl")
    assert len(tasks) == 3 and not problems and len({task.id for task in tasks}) == 3
    for task in tasks:
        assert task.source.repo == str(tmp_path / "moved" / "project.git") and task.source.files is None
        assert task.test.fail_to_pass and task.test.pass_to_pass and "test_red" not in str(task.test.pass_to_pass)
        changed = [line[1:].strip() for line in (task.solution or "").splitlines() if line[:2] in ("- ", "+ ")]
        assert len(changed) == 2 and not any(line in task.issue for line in changed)  # one line, and no hint of it
    assert twins(tasks[:1], tasks[1:]) == []  # of one commit, and not the same bug
    assert main(["tasks", "check", str(tmp_path / "moved" / "project.jsonl"), "times=1"]) == 0


@pytest.mark.timeout(600)
def test_what_was_finished_is_not_done_again(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "project.jsonl"
    assert make(project, out, "limit=1") == 0
    first = out.read_text()
    work = out.with_suffix(".work")
    finished = work.read_bytes()
    work.write_bytes(finished + b'{"cut sh')  # killed while it wrote
    out.unlink()
    assert make(project, out, "limit=1") == 0
    assert out.read_text() == first and work.read_bytes() == finished
    told = capsys.readouterr().err.split("making tasks 1/1", 1)
    assert "coverage" in told[0] and "coverage" not in told[1] and "making tasks 1/1" in told[1]


@pytest.mark.timeout(600)
def test_stopped_by_ctrl_c_it_goes_on_to_the_same_tasks(project: Path, tmp_path: Path) -> None:
    """SIGINT to the whole process group, boxes included, as a terminal sends it."""
    out, straight = tmp_path / "project.jsonl", tmp_path / "straight" / "project.jsonl"
    words = [*MAKE, str(project), f"out={out}", "limit=5", "times=2", *PLAIN]
    process = subprocess.Popen(
        [sys.executable, "-m", "crrl.cli.main", *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )
    work = out.with_suffix(".work")
    while process.poll() is None and (not work.exists() or '{"task"' not in work.read_text()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and f"{work} keeps what is finished" in said, said
    before, finished = [task.id for task in load_tasks(out)[0]], work.read_text()
    assert 1 <= len(before) < 5
    assert main(words) == 0
    assert work.read_text().startswith(finished)  # nothing of it was done again
    straight.parent.mkdir()
    assert main([*words[:3], f"out={straight}", *words[4:]]) == 0
    after = [task.id for task in load_tasks(out)[0]]
    assert set(before) <= set(after) and after == [task.id for task in load_tasks(straight)[0]] and len(after) == 5


def test_a_work_file_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    work = WorkFile(tmp_path / "w", {"seed": 0})
    work.keep("a", "unnoticed")
    work.close()
    assert WorkFile(tmp_path / "w", {"seed": 0}).done == {"a": "unnoticed"}
    assert WorkFile(tmp_path / "w", {"seed": 1}).done == {}


@pytest.mark.timeout(600)
def test_refusals_say_what_to_do(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(says: str, *words: str) -> None:
        assert make(project, tmp_path / "x.jsonl", *words) == 1
        said = capsys.readouterr().err
        assert says in said, said

    (project / "tests/test_numbers.py").write_text("import nowhere\n")
    refused("setup='pip install -e . nowhere'")
    (project / "tests/test_numbers.py").write_text("def test_a():\n    assert 1 == 2\n")
    refused("The suite is red: 1 of 1 tests fail")
    (project / "tests/test_numbers.py").write_text("")
    refused("pytest finds no tests")
    (project / "tests/test_numbers.py").write_text("def test_a():\n    pass\n")
    refused("No task was made of 1 tests")
    (project / "src").mkdir()
    (project / "src/pluggy.py").write_text("")
    refused("The judge's own pytest runs on pluggy")
    assert main(["tasks", "make", str(tmp_path / "nowhere"), f"out={tmp_path}/x.jsonl"]) == 1
    assert main(["tasks", "make", str(project), "out=x.json"]) == 2
    assert main(["tasks", "make", str(project), "limit=0"]) == 2
    assert main(["tasks", "make"]) == 2


def test_hidden_tests_are_gone_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(TESTS)
    (text,) = without_tests(tmp_path, ["t.py::test_total", "t.py::TestTotal::test_negative"]).values()
    assert b"parametrize" not in text and b"TestTotal" not in text
    assert b"def test_above" in text and b"def test_red" in text


TRAPS = """# -*- coding: latin-1 -*-
NAME = "M\xfcller"


def steps(xs):
    y = 0
    for x in xs:
        y += 1 if x else 2
        key = lambda: y
    return key()


def deep(n):
    return SUM


async def later(n):
    return n


def first(names, least=1):
    found = [name for name in names if len(name) > least]
    return found[: len(found) - 1]
""".replace("SUM", "+".join(["n"] * 700))  # ast.unparse does not get to its end
TRAP_TESTS = """# -*- coding: latin-1 -*-
from traps import NAME, deep, first, steps


def test_name():
    assert NAME == "M\xfcller"


def test_steps():
    assert steps([1, 0]) == 3


def test_steps_of_nothing():
    assert steps([0]) == 2


def test_deep():
    assert deep(1) == 700


def test_first():
    assert first(["a", "M\xfcller", "bc", "cd"]) == ["M\xfcller", "bc"]


def test_first_least():
    assert first(["abc", "abcd", "abcde"], 3) == ["abcd"]
"""


@pytest.mark.timeout(600)
def test_one_bad_function_or_file_never_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ternaries and lambdas in loops, an expression too deep to be written, a file that Python does not read, Latin-1
    sources and tests, CRLF tests."""
    root, out = tmp_path / "project", tmp_path / "traps.jsonl"
    (root / "tests").mkdir(parents=True)
    (root / "traps.py").write_bytes(TRAPS.encode("latin-1"))
    (root / "python2.py").write_text("print 'two'\n")
    (root / "tests/test_traps.py").write_bytes(TRAP_TESTS.replace("\n", "\r\n").encode("latin-1"))
    assert make(root, out, "limit=5", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["candidates"]["function skipped"] == 1 and "RecursionError" in str(told["reasons"])
    tasks, problems = load_tasks(out)
    assert not problems and {task.provenance["function"] for task in tasks} <= {"traps.py:steps", "traps.py:first"}
    work = out.with_suffix(".work").read_text()
    assert make(root, out, "limit=5") == 0  # and none is met again
    assert out.with_suffix(".work").read_text() == work
    assert main(["tasks", "check", str(out), "times=1"]) == 0


@pytest.mark.timeout(600)
def test_many_cases_are_sampled_and_a_broken_test_file_is_left_out(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = "import pytest\nfrom numbers_of import clamp\n\n\n@pytest.mark.parametrize('n', range(500))\n"
    many += "def test_many(n):\n    assert clamp(n, 3, 496) == sorted([3, n, 496])[1]\n"
    (project / "tests/test_many.py").write_text(many)
    made = "import unittest\nfrom numbers_of import clamp\n\n\nclass TestMade(unittest.TestCase):\n    pass\n\n\n"
    made += "def case(n):\n    return lambda self: self.assertEqual(clamp(n, 3, 496), sorted([3, n, 496])[1])\n\n\n"
    made += "for n in range(500):\n    setattr(TestMade, f'test_of_{n}', case(n))\n"
    (project / "tests/test_made.py").write_text(made)
    written = "import unittest\nfrom numbers_of import clamp\n\n\nclass TestWritten(unittest.TestCase):\n"
    body = "        self.assertEqual(clamp({0}, 3, 296), {1})\n"
    written += "".join(f"    def test_no_{n}(self):\n" + body.format(n, min(max(n, 3), 296)) for n in range(300))
    (project / "tests/test_written.py").write_text(written)
    (project / "tests/test_lacking.py").write_text("import nowhere\n\n\ndef test_it():\n    assert nowhere\n")
    out = tmp_path / "many.jsonl"
    assert make(project, out, "limit=4") == 0
    assert "left out: tests/test_lacking.py: E   ModuleNotFoundError: No module named 'nowhere'" in (
        said := capsys.readouterr().err
    ), said
    tasks = [task for task in load_tasks(out)[0] if task.provenance["function"] == "numbers_of.py:clamp"]
    for task in tasks:
        cases = [test for test in (*task.test.fail_to_pass, *task.test.pass_to_pass) if "test_many[" in test]
        assert 10 < len(cases) <= 40 and {"test_many[0]", "test_many[499]"} <= {t.rpartition("::")[2] for t in cases}
        asked = [*task.test.fail_to_pass, *task.test.pass_to_pass]
        assert 10 < sum("TestMade::" in test for test in asked) <= 40
        assert 10 < sum("TestWritten::" in test for test in asked) <= 40
        ran = [word for word in task.test.command.argv if word.startswith("tests/")]
        assert not any(
            word.endswith(("::test_many", "_many.py", "_made.py", "_written.py")) for word in ran
        )  # nor these
    assert tasks and main(["tasks", "check", str(out), "times=1"]) == 0


def test_the_limit_of_a_run_counts_every_test_that_it_runs(tmp_path: Path) -> None:
    seconds = {
        f"tests/test_it.py::test_{word}": 1 / 32 for word in map("".join, itertools.product("abcdefgh", repeat=4))
    }
    base = Task("base", "it", "train", "python", "", Source(), "", TestPlan(Command([]), "pytest", [], []))
    screener = Screener(base, tmp_path, Survey(seconds), seconds, None, None, 0.1)  # type: ignore[arg-type]
    few, many = list(seconds)[:50], list(seconds)[:500]  # more than are named one by one: the file, all 4,096
    assert screener.plan(few).test.cpu_s == 18 and len(screener.plan(few).test.command.argv) == 50
    assert screener.plan(many).test.cpu_s == 650 and screener.plan(many).test.command.argv == ["tests/test_it.py"]
    assert screener.until(screener.plan(few), 25).test.command.argv[0] == "--maxfail=26"
    others = len(seconds) - len(many)  # that run as well, and may fail
    assert screener.until(screener.plan(many), 250).test.command.argv[0] == f"--maxfail={others + 251}"


@pytest.mark.timeout(600)
def test_a_fault_under_which_most_tests_fail_is_counted_though_the_run_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, words = tmp_path / "scaling", map("".join, itertools.product("abcde", repeat=2))
    (root / "tests").mkdir(parents=True)
    (root / "scaling.py").write_text("def scale(x):\n    return x * 2 + 1\n")
    tests = [f"\n\ndef test_{word}():\n    assert scale({n + 5}) == {2 * n + 11}\n" for n, word in enumerate(words)]
    (root / "tests/test_scaling.py").write_text("from scaling import scale\n" + "".join(tests))
    assert make(root, tmp_path / "scaling.jsonl", "limit=1", "mix=operator:1,constant:1") == 1
    said = capsys.readouterr()
    assert "breaks everything" in said.out + said.err, said


@pytest.mark.timeout(600)
def test_several_faults_lie_in_different_files_and_each_is_told(project: Path, tmp_path: Path) -> None:
    (project / "words.py").write_text("def longer(a, b):\n    if len(a) >= len(b):\n        return a\n    return b\n")
    test = "from words import longer\n\n\ndef test_{0}():\n    assert longer({1!r}, {2!r}) == {3!r}\n\n\n"
    cases = [("first", "abc", "b", "abc"), ("equal", "ab", "cd", "ab"), ("second", "a", "bc", "bc")]
    (project / "tests/test_words.py").write_text("".join(test.format(*case) for case in cases))
    out = tmp_path / "two.jsonl"
    assert make(project, out, "limit=2", "faults=2") == 0
    for task in load_tasks(out)[0]:
        assert {part.partition(":")[0] for part in task.provenance["function"].split(", ")} == {
            "words.py",
            "numbers_of.py",
        }
        assert task.issue.count("Seen in") == 2 and "longer" in task.issue
        assert {test.partition("::")[0] for test in task.test.fail_to_pass} == {
            "tests/test_words.py",
            "tests/test_numbers.py",
        }


@pytest.mark.timeout(600)
def test_the_mix_is_a_setting_and_difficulty_is_recorded(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed.jsonl"
    assert make(project, out, "limit=3", "mix=boundary:1,operator:2") == 0
    for task in load_tasks(out)[0]:
        assert task.provenance["mutation"] in ("boundary", "operator")
        assert task.provenance["fails_by"] == "value" and task.provenance["distance"] == "0"
        assert 0 < float(task.provenance["failed_share"]) <= 1
    assert main([*MAKE, str(project), f"out={out}", "mix=boundery:1"]) == 2
    assert main([*MAKE, str(project), f"out={out}", "mix=boundary"]) == 2
