"""Task files: one JSON `Task` per line. A broken line is named by its number, and the others load (invariant 11)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from crrl.errors import CrrlError
from crrl.task import Task
from crrl.tasks.setup.toolchains import TOOLCHAINS

LIKENESS = "likeness"  # compared with the solution; nothing runs
# What `test.parser` may be: our own judge's, and those of `rewards/parsers.py` (a test compares them).
PARSERS = (
    "pytest",
    "pytest-xml",
    "junit",
    "surefire",
    "catch",
    "ctest",
    "go",
    "cargo",
    "jest",
    "defects4j",
    "swe-bench-pro",
    "r2e-gym",
    "multi-swe-bench",
    "label",
    LIKENESS,
)
PYTHON_NEEDS = re.compile(r"python(:|(>=)?3\.\d+$)")  # a package of the system's Python, an interpreter
SWEBENCH = "swebench:"  # and a log parser of the official package: swebench:parse_log_django:pass_and_fail


@dataclass(frozen=True)
class Problem:
    """A record that is not a task. `line`: of the file, from 1; a row of a table; 0 where the whole file is meant."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


def load_tasks(path: Path, *, measured: bool = True) -> tuple[list[Task], list[Problem]]:
    """The tasks of a file in order, and the problems of the lines left out.

    `measured`: leave out tasks whose test lists admission has not measured yet.

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
            check(task, measured)
            msgspec.json.encode(task)  # lone surrogates: not text, and nothing could write or hash them
            task = _beside(task, path)
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
        file.writelines(encoded(tasks))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def encoded(tasks: Iterable[Task]) -> list[bytes]:
    """The lines of a task file."""
    return [msgspec.json.encode(task) + b"\n" for task in tasks]


def _object(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None


def _beside(task: Task, path: Path) -> Task:
    """A repository named `./NAME` or a relative folder lies beside the task file. Raises ValueError: it does not."""
    source = task.source
    if source.repo is not None and source.repo.startswith("./"):
        source = replace(source, repo=_there(path.parent / source.repo))
    elif source.dir is not None and not Path(source.dir).is_absolute():
        source = replace(source, dir=_there(path.parent / source.dir))
    return replace(task, source=source)


def _there(folder: Path) -> str:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not there: what a task file was made with goes where the file goes")
    return str(folder.resolve())


def check(task: Task, measured: bool) -> None:
    """Raises ValueError where no judge here can make anything of it."""
    source = task.source
    given = sum(part is not None for part in (source.repo, source.dir, source.files))
    if given > 1 or (given == 0 and source.image is None):
        raise ValueError(
            "source needs exactly one of repo (with base_commit), dir, files (or an image, alone or beside)"
        )
    if source.repo is not None and not source.base_commit:
        raise ValueError("source.repo needs source.base_commit")
    if task.test.parser not in PARSERS and not task.test.parser.startswith(SWEBENCH):
        raise ValueError(f"test.parser {task.test.parser!r} does not exist; there is: {', '.join(PARSERS)}")
    if unknown := [name for name in task.test.needs if name not in TOOLCHAINS and not PYTHON_NEEDS.match(name)]:
        raise ValueError(f"test.needs: there is no toolchain {unknown[0]!r}; there is: {', '.join(TOOLCHAINS)}")
    if (task.test.parser == "label") != (task.test.label is not None):
        raise ValueError("test.parser 'label' and test.label belong together")
    if task.test.parser == LIKENESS and task.solution is None:
        raise ValueError("test.parser 'likeness' compares with the solution: there is none")
    if task.test.label is not None and source.files is None:
        raise ValueError("test.label: a function to classify stands in source.files")
    if task.test.baseline and measured:
        raise ValueError("its tests are not measured yet: crrl tasks check FILE out=ADMITTED.jsonl")
    if not task.test.fail_to_pass and not task.test.baseline:
        raise ValueError("test.fail_to_pass is empty: nothing would say that the bug is repaired")
