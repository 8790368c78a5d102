"""`crrl tasks` over corpora, as it is typed: list, show, check, split; and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crrl.cli.main import main
from crrl.tasks.command import at_mirror
from crrl.tasks.corpora import find, load
from crrl.tasks.files import load_tasks


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["tasks", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(output: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in output.splitlines()]
    assert {row["schema"] for row in found} <= {1}
    return found


def test_list_and_show(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"path={test_data / 'swe-bench/SWE-bench_Lite'}"
    code, out, _ = run(capsys, "list", "swe-bench-lite", path, "split=dev")
    assert code == 0 and len(out.splitlines()) == 11
    assert out.splitlines()[0].split() == ["sqlfluff__sqlfluff-2419", "dev", "sqlfluff/sqlfluff", "2022-01-22"]
    (whole,) = rows(run(capsys, "list", "swe-bench-lite", path, "ids=sqlfluff__sqlfluff-2419", "--json")[1])
    assert whole["source"]["base_commit"] == "f1dba0e1dd764ae72d67c3d5e1471cf14d3db030"
    code, out, _ = run(capsys, "show", "swe-bench-lite", path, "ids=sqlfluff__sqlfluff-2419")
    assert code == 0 and "image     swebench/sweb.eval.x86_64.sqlfluff_1776_sqlfluff-2419:latest (/testbed)" in out
    assert "Rule L060 could give a specific error message" in out and "repair    src/sqlfluff/rules/L060.py: " in out
    assert whole["solution"].splitlines()[-2] not in out


def test_a_task_that_cannot_be_judged_here_says_why(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"path={test_data / 'swe-bench/SWE-bench_Lite'}"
    code, out, _ = run(capsys, "check", "swe-bench-lite", path, "ids=sqlfluff__sqlfluff-2419", "--json")
    (row,) = rows(out)
    assert code == 1 and row["status"] == "unavailable" and row["empty"] == row["fixed"] == 0
    assert "needs the image swebench/sweb.eval.x86_64.sqlfluff_1776_sqlfluff-2419:latest" in row["reasons"][0]
    path = f"path={test_data / 'defects4j/v2.0.1'}"
    code, out, err = run(capsys, "check", "defects4j", path, "ids=defects4j-Chart-1", "--json")
    assert "needs defects4j" in rows(out)[0]["reasons"][0] and "Chart-2 has no patches/2.src.patch" in err


def test_a_check_that_was_killed_goes_on(test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ",".join(f"quixbugs-python-{name}" for name in ("gcd", "sieve", "bucketsort", "flatten", "kth"))
    out_file = tmp_path / "a.jsonl"
    words = ["check", "quixbugs", f"path={test_data / 'quixbugs'}", f"ids={names}", "times=1", f"out={out_file}"]
    argv = [sys.executable, "-c", "import sys; from crrl.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    with subprocess.Popen([*argv, "tasks", *words, "--json"], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        first = json.loads(killed.stdout.readline())
        killed.kill()
    assert not out_file.exists()
    code, out, _ = run(capsys, *words, "--json")
    again = {row["id"]: row for row in rows(out)}
    assert code == 0 and len(again) == 5 and again[first["id"]]["seconds"] == first["seconds"]  # not judged anew
    assert [task.id for task in load_tasks(out_file)[0]] == sorted(again)
    code, out, _ = run(capsys, *words[:-2], "times=2", words[-1], "--json")
    assert {row["empty"] for row in rows(out)} == {2}  # what was asked for is another thing: begun anew


def test_images_no(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"path={test_data / 'swe-bench/SWE-bench_Lite'}"
    (row,) = rows(run(capsys, "list", "swe-bench-lite", path, "ids=sqlfluff__sqlfluff-2419", "images=no", "--json")[1])
    assert row["source"]["image"] is None and row["test"]["test_patch"]
    code, _, err = run(capsys, "list", "quixbugs", f"path={test_data / 'quixbugs'}", "images=no")
    assert code == 2 and "quixbugs has no use for images=no" in err
    code, _, err = run(capsys, "check", "swe-bench-lite", path, "images=yes")
    assert code == 2 and "images=yes is not `no`" in err
    code, _, err = run(capsys, "split", "swe-bench-lite", path, "images=no")  # what check admits can be split
    assert code == 2 and "split swe-bench-lite has no use for images=" in err
    code, _, err = run(capsys, "list", "generated", "images=no")
    assert code == 2 and "has no use for images=" in err


def test_check_measures_the_lists_and_writes_them(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real bug from its corpus to a task file that can be trained on."""
    out_file = tmp_path / "admitted.jsonl"
    words = [
        f"path={test_data / 'quixbugs'}",
        "ids=quixbugs-python-gcd,quixbugs-python-hanoi",
        "times=2",
        f"out={out_file}",
    ]
    code, out, _ = run(capsys, "check", "quixbugs", *words, "--json")
    assert code == 0 and {(row["status"], row["empty"], row["fixed"]) for row in rows(out)} == {("admitted", 2, 2)}
    tasks, problems = load_tasks(out_file)
    assert [task.id for task in tasks] == ["quixbugs-python-gcd", "quixbugs-python-hanoi"] and problems == []
    gcd = tasks[0].test
    assert not gcd.baseline and (len(gcd.fail_to_pass), len(gcd.pass_to_pass)) == (5, 1)
    code, out, _ = run(capsys, "check", out_file, "times=1", "--json")
    assert code == 0 and [row["status"] for row in rows(out)] == ["admitted", "admitted"]


def test_split_removes_what_is_evaluated(test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lite, verified = test_data / "swe-bench/SWE-bench_Lite", test_data / "swe-bench/SWE-bench_Verified"
    words = ["split", "swe-bench-lite", f"path={lite}", f"against=swe-bench-verified:{verified}", "held_out=10"]
    code, out, _ = run(capsys, *words, f"out={tmp_path / 'parts'}", "--json")
    parts = rows(out)
    assert code == 0 and len(parts) == 79
    removed = [row for row in parts if row["part"] == "removed"]
    assert removed and all({"twin", "how", "similarity"} <= set(row) for row in removed)
    train, _ = load_tasks(tmp_path / "parts" / "train.jsonl")
    held, _ = load_tasks(tmp_path / "parts" / "held_out.jsonl")
    assert len(train) + len(held) + len(removed) == 79 and len(held) == 10
    assert not {task.id for task in train} & {task.id for task in load(find("swe-bench-verified"), verified).tasks}
    again = rows(run(capsys, *words, "--json")[1])
    assert again == parts
    other = rows(run(capsys, *words, "seed=1", "--json")[1])
    assert {row["id"] for row in other if row["part"] == "held_out"} != {task.id for task in held}
    assert "79" not in (text := run(capsys, *words)[1].splitlines()[-1]) and "days after the oldest" in text


def test_repositories_from_local_clones(test_data: Path, tmp_path: Path) -> None:
    (task,) = load(find("bugsinpy"), test_data / "bugsinpy", ids=["bugsinpy-tqdm-1"]).tasks
    assert at_mirror(task, tmp_path) == task == at_mirror(task, None)
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "tqdm" / "tqdm.git"], check=True)
    assert at_mirror(task, tmp_path).source.repo == str(tmp_path / "tqdm" / "tqdm.git")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list", "swe-gim", "path=x"], "no corpus named 'swe-gim'"),
        (["list", "quixbugs", "count=3"], "has no use for count="),
        (["list", "generated", "path=x"], "has no use for path="),
        (["list", "quixbugs", "path=x", "times=3"], "takes no settings, got 'times=3'"),
        (["check", "quixbugs", "path=x", "times=0"], "not a whole number of at least 1"),
        (["chekc", "quixbugs"], "crrl tasks cannot 'chekc'"),
        (["record", "quixbugs", "path=x"], "has no use for path="),
    ],
)
def test_what_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2 and says in err
