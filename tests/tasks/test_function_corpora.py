"""Corpora of labelled functions: real records where there are some, both layouts of PrimeVul, and whatever is wrong."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from crrl.errors import CrrlError
from crrl.label import Label
from crrl.task import Task
from crrl.tasks.classification import LARGEST, changed_lines, pair_tasks, units
from crrl.tasks.command import Wanted, split
from crrl.tasks.corpora import find, load
from crrl.tasks.files import Problem, check, load_tasks
from crrl.tasks.leakage import twins


def label(task: Task) -> Label:
    assert task.test.label is not None
    return task.test.label


def rows_file(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows) + b"\n")
    return path


def found(corpus: str, path: Path) -> tuple[list[Task], list[Problem]]:
    items = list(find(corpus).read(path))
    return [i for i in items if isinstance(i, Task)], [i for i in items if isinstance(i, Problem)]


def test_sven_whole(test_data: Path) -> None:
    """All real pairs but those whose versions are the same; the lines are those that SVEN itself says."""
    tasks, problems = found("sven", test_data / "sven")
    rows = {
        (file.stem, row["row"]): row
        for file in (test_data / "sven").glob("*.jsonl")
        for row in map(json.loads, file.read_text().splitlines())
    }
    assert len(tasks) == 2 * (len(rows) - len(problems)) and all("but for white space" in str(p) for p in problems)
    assert {(problem.file.name, problem.line > 0) for problem in problems} == {
        ("cwe-125.jsonl", True),
        ("cwe-416.jsonl", True),
    }
    agree = 0
    for pair in units(tasks):
        assert len(pair) == 2 and Counter(label(task).vulnerable for task in pair) == {True: 1, False: 1}
        old, new = sorted(pair, key=lambda task: not label(task).vulnerable)
        (before,), (after,) = (list((task.source.files or {}).values()) for task in (old, new))
        stem, number = label(old).pair.rsplit("-", 2)[1:]
        row = rows[f"cwe-{stem}", int(number)]
        assert before.rstrip("\n") == row["func_src_before"].rstrip("\n")
        assert after.rstrip("\n") == row["func_src_after"].rstrip("\n")
        deleted = [change["line_no"] for change in row["line_changes"]["deleted"]]
        agree += set(deleted) <= set(label(old).lines)
        for task in pair:
            check(task, measured=True)
            assert label(task).cwe == [f"CWE-{int(stem)}"] and label(task).lines
    assert agree >= 0.9 * len(units(tasks))
    assert Counter(task.language for task in tasks).keys() == {"python", "c", "cpp"}


def test_secvuleval_whole(test_data: Path) -> None:
    tasks, problems = found("secvuleval", test_data / "secvuleval")
    rows = [json.loads(line) for line in (test_data / "secvuleval" / "subset.jsonl").read_text().splitlines()]
    assert len(tasks) == len(rows) == 158 and not problems
    for task, row in zip(tasks, rows, strict=True):
        (code,) = (task.source.files or {}).values()
        lines = code.split("\n")
        said = {text.strip() for _, text in row["line_statements"] if text.strip()}
        told = {lines[number - 1].strip() for number in label(task).lines if lines[number - 1].strip()}
        assert told == said, "the lines are found in the function"
        assert label(task).vulnerable is row["is_vulnerable"] and label(task).cwe == [row["cwe"]]
    assert sum(bool(label(task).lines) for task in tasks if label(task).vulnerable) == 54


BEFORE = "static int {name}(char *p, int n)\n{{\n  char b[8];\n  memcpy(b, p, n);\n  return b[0];\n}}\n"
AFTER = BEFORE.replace("  memcpy", "  if (n > 8) return -1;\n  memcpy")


def original(n: int, name: str, code: str, target: int, commit: str) -> dict[str, Any]:
    told = {"project": "p", "commit_id": commit, "cwe": ["CWE-787"], "cve": "CVE-1"}
    return {"idx": n, "target": target, "func": code.format(name=name), "func_hash": 10**30 + n, **told}


def hub(n: int, name: str, code: str, target: int, commit: str) -> dict[str, Any]:
    told = {"cwe": "CWE-787", "cwe_description": "d", "hash": f"h{commit}{name}"}
    return {"is_vulnerable": bool(target), "func": code.format(name=name), **told}


@pytest.mark.parametrize("layout", [original, hub])
def test_primevul_pairs_whatever_the_order(tmp_path: Path, layout: Any) -> None:
    """Two functions of one commit, and two commits: shuffled rows make the same pairs."""
    rows = [
        layout(4 * c + 2 * f + t, f"fn{f}", AFTER if t == 0 else BEFORE, t, f"c{c}")
        for c in range(3)
        for f in range(2)
        for t in (0, 1)
    ]
    for seed in range(5):
        mixed = random.Random(seed).sample(rows, len(rows))
        tasks, problems = found("primevul", rows_file(tmp_path / "primevul_test_paired.jsonl", mixed))
        assert not problems and len(tasks) == 12 and len(units(tasks)) == 6
        for pair in units(tasks):
            old, new = sorted(pair, key=lambda task: not label(task).vulnerable)
            assert (label(old).vulnerable, label(new).vulnerable) == (True, False)
            (before,), (after,) = ((task.source.files or {}).values() for task in (old, new))
            assert after.replace("  if (n > 8) return -1;\n", "") == before
            assert (label(old).lines, label(new).lines) == ([3, 4], [4]) and label(old).cwe == ["CWE-787"]
            assert old.split == "test" and old.provenance.get("commit_id") == new.provenance.get("commit_id")


@pytest.mark.parametrize("layout", [original, hub])
def test_primevul_alone(tmp_path: Path, layout: Any) -> None:
    rows = [layout(n, f"f{n}", BEFORE, n % 30 == 0, f"c{n}") for n in range(300)]
    tasks, problems = found("primevul", rows_file(tmp_path / "primevul_train.jsonl", rows))
    assert not problems and len(tasks) == 300 and {task.split for task in tasks} == {"train"}
    assert sum(label(task).vulnerable for task in tasks) == 10 and not any(label(task).pair for task in tasks)
    assert not any(label(task).lines for task in tasks), "nothing tells which lines its fix changed"
    inverted = [layout(n, f"f{n}", BEFORE, n % 30 != 0, f"c{n}") for n in range(300)]
    with pytest.raises(CrrlError, match="290 of 300 functions are labelled vulnerable"):
        found("primevul", rows_file(tmp_path / "primevul_train.jsonl", inverted))


def test_what_is_wrong_is_named_by_line(tmp_path: Path) -> None:
    good = {"func": "int f(void) { return 1; }", "label": 0, "cwe": "CWE-20"}
    rows = [
        good,
        {key: value for key, value in good.items() if key != "label"},
        good | {"label": None},
        good | {"label": "maybe"},
        good | {"label": 2},
        {"label": 1},
        good | {"func": "  \n"},
        good | {"func": "x" * (LARGEST + 1)},
        good | {"func": "a\0b"},
        good | {"func": "\ud800"},
        good | {"func": 7},
        b'{"func": "caf\xe9", "label": 1}',
        b"{",
        b"[1]",
        good | {"pair": "p1", "label": 1},
        good | {"pair": "p2", "label": 1},
        good | {"pair": "p2", "label": 1, "func": "other"},
        good | {"pair": "p3", "label": 1},
        good | {"pair": "p3", "label": 0},
        good | {"lines": [0], "label": 1},
        good | {"lines": [7], "label": 1},
        good | {"func": "def f():\n    return 1\n", "label": "vulnerable", "lines": [2], "language": "Python"},
        good | {"pair": 5, "label": 0, "func": "good"},
        good | {"pair": 5, "label": 1, "func": "bad"},
    ]
    tasks, problems = found("functions", rows_file(tmp_path / "own.jsonl", rows))
    told = {problem.line: problem.message for problem in problems}
    said = {
        2: "missing: the record has no label",
        3: "missing: the record has no label",
        4: "is no label",
        5: "is no label",
        6: "func: missing",
        7: "func: empty",
        8: f"more than {LARGEST}",
        9: "binary",
        10: "no text",
        11: "not int",
        12: "not JSON",
        13: "not JSON",
        14: "not a JSON object",
        15: "its partner, fixed, is missing",
        16: "see line 17",
        17: "see line 16",
        18: "is the same",
        20: "lines:",
        21: "line 7 is beyond",
    }
    assert told.keys() == said.keys()
    for line, words in said.items():
        assert words in told[line], (line, told[line])
    assert len(tasks) == 4 and [len(unit) for unit in units(tasks)] == [1, 1, 2]
    assert (
        tasks[1].language == "python"
        and label(tasks[1]).lines == [2]
        and list(tasks[1].source.files or {}) == ["function.py"]
    )
    lone = rows_file(
        tmp_path / "primevul_valid_paired.jsonl", [original(1, "f", BEFORE, 1, "c"), original(2, "g", AFTER, 0, "d")]
    )
    _, problems = found("primevul", lone)
    assert [(p.line, "is missing" in p.message) for p in problems] == [(1, True), (2, True)]


def test_the_rest_is_written_and_read_again(tmp_path: Path, test_data: Path) -> None:
    """Through a task file, as training takes them."""
    from crrl.tasks.files import write_tasks

    tasks = load(find("sven"), test_data / "sven" / "cwe-022.jsonl").tasks
    write_tasks(tmp_path / "t.jsonl", tasks)
    again, problems = load_tasks(tmp_path / "t.jsonl")
    assert again == tasks and not problems


def test_lines_of_a_fix() -> None:
    assert changed_lines("a\nb\nc\n", "a\nB\nc\n") == ([2], [2])
    assert changed_lines("a\nb\nc\n", "a\nx\nb\nc\n") == ([1, 2], [2])
    assert changed_lines("a\nb\nc\n", "a\nc") == ([2], [1, 2])
    assert changed_lines("a\n", "x\na\n") == ([1], [1])
    assert changed_lines("a", "a\nb") == ([1], [2])


def test_splitting_parts_no_pair(tmp_path: Path, test_data: Path) -> None:
    wanted = Wanted("sven", path=test_data / "sven" / "cwe-079.jsonl", seed=3)
    assert split(wanted, [], held_out=9, out=tmp_path, json=True) == 0
    held, rest = (load_tasks(tmp_path / f"{name}.jsonl")[0] for name in ("held_out", "train"))
    assert len(held) == 10 and all(len(unit) == 2 for unit in units(held))
    assert not {label(task).pair for task in held} & {label(task).pair for task in rest}


def test_a_function_is_known_again() -> None:
    one = pair_tasks("x", "c", "train", "int f() { return 1; }", "int f() { return 2; }", "c", [])
    other = pair_tasks("y", "d", "test", "int f()\n{ return 1;\n}", "int f() { return 3; }", "c", [])
    assert [(twin.how, twin.task) for twin in twins(one, other)] == [
        ("function", task.id) for task in one if label(task).vulnerable
    ]
    assert len(twins(one, one[:1])) == 2, "the other version of a pair is known, too"
