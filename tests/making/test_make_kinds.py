"""`crrl tasks make` on what projects hold besides plain functions in UTF-8: coroutines, newer syntax, other encodings,
attributes of git, names that are no text. Each is taken as it is, or left out under its reason."""

from __future__ import annotations

import ast
import os
import random
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.making import snapshot
from crrl.making.operators import WEIGHTS
from crrl.making.real_mutation import functions
from crrl.making.source_file import UnreadableError
from crrl.sandbox.workspace import read_commit
from crrl.tasks.files import load_tasks

CODE = '''"""Waits."""
import asyncio
import contextlib

with contextlib.suppress(ImportError):
    def first(items, default=0):
        return items[0] if len(items) > 0 else default


class Gate:
    limit = 3

    @staticmethod
    async def admitted(names, limit=limit):
        found = []
        async for name in listed(names):
            if len(found) < limit:
                found.append(name)
            else:
                await asyncio.sleep(0)
        return found


async def listed(names):
    for name in names:
        await asyncio.sleep(0)
        yield name


def kind(value):
    match value:
        case [x, *rest] if (count := len(rest)) > 1:
            return x, count
        case {"n": int(n)} | [int(n)]:
            return n + 1
        case _:
            return None
'''
TESTS = '''"""M\u00fcller's."""
import asyncio
from waits import Gate, first, kind


def test_admitted():
    assert asyncio.run(Gate.admitted(["a", "b", "c", "d"])) == ["a", "b", "c"]


def test_admitted_few():
    assert asyncio.run(Gate.admitted(["a"], limit=2)) == ["a"]


def test_admitted_none():
    assert asyncio.run(Gate.admitted(["a"], limit=0)) == []


def test_first():
    assert (first([4, 5]), first([], 7)) == (4, 7)


def test_first_alone():
    assert first([4]) == 4


def test_kind():
    assert kind([1, 2, 3]) == (1, 2)


def test_kind_number():
    assert (kind({"n": 4}), kind([8])) == (5, 9)


def test_kind_other():
    assert kind([1, 2]) is None
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "waits.py").write_bytes(CODE.replace("\n", "\r\n").encode())
    (root / "tests/test_waits.py").write_bytes(b"# -*- coding: latin-1 -*-\n" + TESTS.encode("latin-1"))
    (root / ".gitattributes").write_text("* text=auto\n*.py ident working-tree-encoding=UTF-16\n")
    (root / "stateful.py").write_bytes(b"# coding: utf-7\nx = '+AGE-'\n")
    (root / os.fsdecode(b"tests/data\xff.txt")).write_text("")
    return root


@pytest.mark.timeout(900)
def test_such_a_project_becomes_tasks(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.jsonl"
    words = ["tasks", "make", str(project), f"out={out}", "setup=none", "network=no", "times=1", "limit=9"]
    assert main([*words, "mix=boundary:1,slice:1,constant:1,default:1"]) == 0
    tasks, problems = load_tasks(out)
    assert not problems
    told = {task.provenance["function"].partition(":")[2]: task for task in tasks}
    assert set(told) == {"first", "Gate.admitted", "kind"}
    assert "\n    await " in told["Gate.admitted"].issue and "admitted(['a'" in told["Gate.admitted"].issue
    assert all("\r\n" in (task.solution or "") for task in tasks)


@pytest.mark.timeout(300)
def test_a_module_with_doctests_that_the_suite_runs_is_code_all_the_same(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "waits.py").write_text(CODE.replace('"""Waits."""', '"""Waits.\n\n>>> first([3])\n3\n"""'))
    (project / "pytest.ini").write_text("[pytest]\naddopts = --doctest-modules\ntestpaths = waits.py tests\n")
    words = ["tasks", "make", str(project), f"out={tmp_path / 'made.jsonl'}", "setup=none", "network=no", "times=1"]
    assert main([*words, "limit=1", "mix=boundary:1"]) == 0
    assert "left out: 1 doctests" in capsys.readouterr().err
    [task] = load_tasks(tmp_path / "made.jsonl")[0]
    assert "waits.py" in (task.solution or "") and not any("waits.py::waits" in id for id in task.test.pass_to_pass)
    (project / "tests/test_waits.py").write_text("")
    assert main([*words[:-4], f"out={tmp_path / 'none.jsonl'}", *words[-3:]]) != 0
    assert "nothing but doctests" in capsys.readouterr().err


def test_the_snapshot_is_the_project_byte_for_byte(project: Path, tmp_path: Path) -> None:
    commit = snapshot.take(project, tmp_path / "kept.git")
    kept = {path: data for path, _, data in read_commit(str(tmp_path / "kept.git"), commit, tmp_path / "state")}
    there = {os.fsencode(file.relative_to(project)): file.read_bytes() for file in project.rglob("*") if file.is_file()}
    assert kept == there


def test_every_mutant_of_newer_syntax_is_python() -> None:
    found = functions("waits.py", CODE.encode())
    assert [function.name for function in found] == ["first", "Gate.admitted", "listed", "kind"]
    for function in found:
        mutants = list(function.mutants(random.Random(0), WEIGHTS))
        assert len(mutants) > 5 or function.name == "listed"
        for mutant in mutants:
            ast.parse(function.source.with_edits([mutant.edit]))


@pytest.mark.parametrize("encoding, text", [("utf-7", "x = '+AGE-'\n"), ("iso-2022-jp", "x = '\x1b(J\x1b(B'\n")])
def test_an_encoding_that_would_not_give_back_its_bytes(encoding: str, text: str) -> None:
    data = f"# coding: {encoding}\n{text}".encode()
    ast.parse(data)
    with pytest.raises(UnreadableError, match="would not give back"):
        functions("m.py", data)
