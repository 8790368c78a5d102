"""`crrl tasks mix`, as it is typed: one file to train on, of tasks from several places."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.task import Source
from crrl.tasks.files import load_tasks, write_tasks
from crrl.tasks.generator.generate import generate


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Twelve tasks in a repository that lies beside their file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder / "a.git"], check=True)
    source = Source(repo="./a.git", base_commit="0" * 40)
    write_tasks(folder / "a.jsonl", [replace(generate("train", 5, i), id=f"a-{i}", source=source) for i in range(12)])
    return folder / "a.jsonl"


def test_tasks_of_several_places_make_one_file(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mixed.jsonl"
    words = ["tasks", "mix", "generated:6", f"{made}:4", "functions=3", "seed=2"]
    assert main([*words, f"out={out}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "out": str(out),
        "tasks": 10,
        "of": {"generated": 6, str(made): 4},
    }
    tasks, problems = load_tasks(out)
    assert not problems and tasks[:6] == [generate("train", 2, i, functions=3) for i in range(6)]
    assert {task.source.repo for task in tasks[6:]} == {str(made.parent / "a.git")}, "usable from any folder"
    assert main([*words, f"out={tmp_path / 'again.jsonl'}"]) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()
    assert main(["tasks", "mix", f"{made}:4", "seed=3", f"out={tmp_path / 'other.jsonl'}"]) == 0
    assert [task.id for task in load_tasks(tmp_path / "other.jsonl")[0]] != [task.id for task in tasks[6:]]


def test_a_line_that_is_no_task_is_named_and_the_others_are_mixed(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write_text("not a task\n" + made.read_text())
    assert main(["tasks", "mix", str(made), "generated:1", f"out={tmp_path / 'm.jsonl'}"]) == 1
    assert f"{made}:1: not a task" in capsys.readouterr().err and len(load_tasks(tmp_path / "m.jsonl")[0]) == 13


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "What is to be mixed?"),
        (["generated", "out=m.jsonl"], "How many generated tasks?"),
        (["generated:2"], "Where does the mixture go?"),
        (["generated:2", "out=m.txt"], "Where does the mixture go?"),
        (["quixbugs:3", "out=m.jsonl"], "crrl tasks check CORPUS out=FILE.jsonl"),
        (["MADE:0", "out=m.jsonl"], "a number above 0"),
        (["MADE:13", "out=m.jsonl"], "has 12 usable tasks"),
        (["MADE", "MADE:1", "out=m.jsonl"], "Two tasks have the id a-"),
        (["MADE", "functions=2", "out=m.jsonl"], "functions= is for generated tasks"),
        (["generated:1", "count=2", "out=m.jsonl"], "takes no settings"),
        (["nowhere.jsonl", "out=m.jsonl"], "nowhere.jsonl: No such file"),
    ],
)
def test_what_it_refuses(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", "mix", *(word.replace("MADE", str(made)) for word in words)]) in (1, 2)
    assert says in capsys.readouterr().err and not (tmp_path / "m.jsonl").exists()
