"""Task files: one JSON `Task` a line. A broken line is named by its number, and the others load (invariant 11)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crrl.errors import CrrlError
from crrl.tasks.task import Task

PARSERS = ("pytest",)


@dataclass(frozen=True)
class Problem:
    """A line that is not a task."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def load_tasks(path: Path) -> tuple[list[Task], list[Problem]]:
    """The tasks of a file in its order, and what is wrong with the lines that were left out.

    Raises:
        CrrlError: the file cannot be read, or has no usable task at all.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CrrlError(f"{path}: {error.strerror}.", "Write the path of a task file (.jsonl).") from None
    tasks: dict[str, Task] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            task = msgspec.convert(_object(line), Task)
            _check(task)
            if task.id in tasks:
                raise ValueError(f"a second task with the id {task.id!r}")
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            problems.append(Problem(path, number, f"not a task: {error}"))
            continue
        tasks[task.id] = task
    if not tasks:
        first = f" {problems[0]}" if problems else ""
        raise CrrlError(
            f"{path} has no usable task.{first}",
            "One JSON object a line, as `crrl tasks list generated --json` prints them.",
        )
    return list(tasks.values()), problems


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Atomically: a reader sees the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        for task in tasks:
            file.write(msgspec.json.encode(task) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _object(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None


def _check(task: Task) -> None:
    source = task.source
    if sum(part is not None for part in (source.repo, source.dir, source.files)) != 1:
        raise ValueError("source needs exactly one of repo (with base_commit), dir, files")
    if source.repo is not None and not source.base_commit:
        raise ValueError("source.repo needs source.base_commit")
    if task.test.parser not in PARSERS:
        raise ValueError(f"test.parser {task.test.parser!r} does not exist; there is: {', '.join(PARSERS)}")
    if not task.test.fail_to_pass:
        raise ValueError("test.fail_to_pass is empty: nothing would say that the bug is repaired")
