"""Decoys in the same run, for tests that are nothing but `assert call(...) == literal`: the generated corpus's.

Each call stands there several times, with the right expectation once, under names and in an order that are drawn for
the run: only the host knows which is which. There is nothing to calibrate: a function that gives one value cannot equal
two. A test is believed where its right copy passes and no wrong one does. Where tests are few, each has more
expectations, and what is solved runs again (`chance`).
"""

from __future__ import annotations

import ast
import posixpath
import random
import re
import secrets
from collections import Counter
from dataclasses import dataclass

from crrl import python_syntax
from crrl.rewards.decoys import chance
from crrl.rewards.decoys.literals import among
from crrl.task import Task

NAME = re.compile(r"\btest_[0-9a-f]{12}\b")
FAILURE = re.compile(r"^/workspace/(\S+?):(\d+): (.*)$")
COUNTED = re.compile(r"[\d, a-z]*\bin [\d.]+s.*|[.FEsx]+\s+\[ *\d+%\]")


@dataclass(frozen=True)
class Plain:
    """A file of plain tests: its imports, and of each test the call and the value."""

    imports: str
    cases: dict[str, tuple[str, object]]


@dataclass(frozen=True)
class Run:
    """The tests of one run.

    Args:
        names: id in the run -> (id of the task, whether it is right).
        runs: how many such runs a patch has to pass.
    """

    texts: dict[str, str]
    names: dict[str, tuple[str, bool]]
    runs: int

    def statuses(self, found: dict[str, str]) -> tuple[dict[str, str], list[str]]:
        """Statuses of the task's ids, and those of them that pass whatever is expected."""
        right = {id: found.get(name, "missing") for name, (id, is_right) in self.names.items() if is_right}
        wrong = {id for name, (id, is_right) in self.names.items() if not is_right and found.get(name) == "passed"}
        return right, [id for id, status in right.items() if status == "passed" and id in wrong]

    def shown(self, output: str) -> str:
        """What pytest printed with `--tb=line`, without the wrong expectations' failures, under the task's names."""
        short = {name.rpartition("::")[2]: (id.rpartition("::")[2], right) for name, (id, right) in self.names.items()}
        kept = []
        for line in output.splitlines():
            if found := FAILURE.match(line):
                told = self._test_at(found[1], int(found[2]))
                if told is not None:
                    line = f"FAILED {short[told][0]}: {found[3]}" if short[told][1] else ""
            names = NAME.findall(line)
            if line and not COUNTED.fullmatch(line) and all(short.get(name, ("", True))[1] for name in names):
                kept.append(NAME.sub(lambda found: short.get(found[0], (found[0],))[0], line))
        return "\n".join([*kept, ""])

    def _test_at(self, path: str, line: int) -> str | None:
        lines = self.texts.get(path, "").splitlines()
        found = NAME.search("\n".join(lines[max(0, line - 2) : line]))
        return found[0] if found else None


def plain_files(task: Task) -> dict[str, Plain] | None:
    """The files of the task's tests, where all of them are plain; else None."""
    files = task.source.files
    if task.test.parser != "pytest" or files is None or task.test.test_patch or task.test.restore_from:
        return None
    expected = [*task.test.fail_to_pass, *task.test.pass_to_pass]
    paths = {test.split("::")[0] for test in expected}
    if not paths <= set(task.test.restore) or task.test.command.cwd != "." or task.test.command.env:
        return None
    folders = [word.rstrip("/") for word in task.test.command.argv]
    given = all(any(path == folder or path.startswith(f"{folder}/") for folder in folders) for path in paths)
    if not given or any(word.startswith("-") or "::" in word for word in folders):
        return None
    if any(posixpath.basename(path) == "conftest.py" for path in (*files, *task.test.restore)):
        return None
    found = {}
    for path in paths:
        plain = _plain(task.test.restore[path])
        if plain is None or any(id.split("::")[1:] != [id.rpartition("::")[2]] for id in expected):
            return None
        if any(id.rpartition("::")[2] not in plain.cases for id in expected if id.startswith(f"{path}::")):
            return None
        found[path] = plain
    return found


def draw(task: Task, files: dict[str, Plain]) -> Run:
    rng = random.Random(secrets.randbits(64))
    expected = {*task.test.fail_to_pass, *task.test.pass_to_pass}
    deciding = set(task.test.fail_to_pass)
    number = chance.expectations(len(deciding))
    texts, names, drawn_of = {}, {}, Counter[str]()
    for path, plain in files.items():
        functions = []
        for name, (called, value) in plain.cases.items():
            if (id := f"{path}::{name}") not in expected:
                continue
            for given in among(value, number if id in deciding else 2, rng):
                drawn = f"test_{secrets.token_hex(6)}"
                names[f"{path}::{drawn}"] = (id, given is value)
                drawn_of[id] += id in deciding
                functions.append(f"def {drawn}():\n    assert {called} == {given!r}\n")
        rng.shuffle(functions)
        texts[path] = "\n\n".join([plain.imports, *functions])
    return Run(texts, names, chance.runs(filter(None, drawn_of.values())))


def _plain(text: str) -> Plain | None:
    try:
        tree = python_syntax.parse(text)
    except (SyntaxError, ValueError):
        return None
    imports: list[str] = []
    cases: dict[str, tuple[str, object]] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(ast.unparse(node))
            continue
        if (
            not isinstance(node, ast.FunctionDef)
            or node.decorator_list
            or ast.unparse(node.args)
            or len(node.body) != 1
        ):
            return None
        test = node.body[0].test if isinstance(node.body[0], ast.Assert) else None
        if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
            return None
        try:
            value = ast.literal_eval(test.comparators[0])
        except ValueError:
            return None
        if not isinstance(test.left, ast.Call) or not isinstance(value, bool | int | float | str | list | tuple | dict):
            return None
        cases[node.name] = (ast.unparse(test.left), value)
    return Plain("\n".join(imports), cases) if cases else None
