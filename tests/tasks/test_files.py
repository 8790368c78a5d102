"""Task files: a broken line is named by its number and costs nothing else (invariant 11)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.tasks.files import load_tasks, write_tasks
from crrl.tasks.generator.generate import generate

TASKS = [generate("train", 0, i) for i in range(3)]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.jsonl", TASKS)
    assert load_tasks(tmp_path / "tasks.jsonl") == (TASKS, [])
    assert [p.name for p in tmp_path.iterdir()] == ["tasks.jsonl"]


def broken(line: str, field: str, value: object) -> str:
    values = json.loads(line)
    *owners, last = field.split(".")
    part = values
    for owner in owners:
        part = part[owner]
    part[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not a task"),
        ("[1, 2]", "Expected `object`"),
        ("[" * 100_000, "not a task"),
        ("\ud800", "not UTF-8"),
        (("issue", "\ud800"), "surrogates not allowed"),
        (("test.fail_to_pass", []), "fail_to_pass is empty"),
        (("test.parser", "junit5"), "junit5"),
        (("test.needs", ["jdk"]), "no toolchain 'jdk'"),
        (("test.fail_to_pass", "x"), "$.test.fail_to_pass"),
        (("source.repo", "https://example.org/x"), "exactly one of repo"),
        (("source", {"repo": "./gone.git", "base_commit": "abc"}), "gone.git is not there: what a task file"),
        (("source", {"dir": "gone"}), "gone is not there: what a task file"),
        (("id", "generated-train-0-0"), "a second task with the id"),
        *(
            ((field, value), f"{named}: {shown[:200]!r} is no relative path")
            for shown in ("/etc/x", "../x", "a/../../x", "a\0b", "", "x" * 256)
            for field, value, named in (
                ("test.restore", {shown: ""}, "test.restore"),
                ("test.restore_from", {shown: "HEAD"}, "test.restore_from"),
                ("source.files", {shown: ""}, "source.files"),
                ("test.command.cwd", shown, "cwd"),
                ("test.build", [{"argv": ["true"], "cwd": shown}], "cwd"),
                ("test.report", {"argv": ["true"], "cwd": shown}, "cwd"),
                ("setup", [{"argv": ["true"], "cwd": shown}], "cwd"),
            )
        ),
    ],
)
def test_a_broken_line_is_named_and_the_rest_loads(tmp_path: Path, line: str | tuple, says: str) -> None:
    file = tmp_path / "tasks.jsonl"
    write_tasks(file, TASKS)
    lines = file.read_text().splitlines()
    text = line if isinstance(line, str) else broken(lines[1], *line)
    file.write_bytes("\n".join([lines[0], "", text, lines[2]]).encode("utf-8", "surrogatepass"))
    tasks, problems = load_tasks(file)
    assert tasks == [TASKS[0], TASKS[2]]
    assert [p.line for p in problems] == [3]
    assert says in str(problems[0]) and str(problems[0]).startswith(f"{file}:3: ")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"nonsense\n"])
def test_a_file_without_tasks_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_bytes(content)
    with pytest.raises(CrrlError, match="no usable task"):
        load_tasks(file)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CrrlError, match="No such file"):
        load_tasks(tmp_path / "none.jsonl")
