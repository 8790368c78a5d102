"""A masked body is nowhere in the box: not in what packaging left, not in history, not in what is installed."""

from __future__ import annotations

import asyncio
import json
import py_compile
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from crrl import sandbox
from crrl.cli.main import main
from crrl.making import elsewhere_search, snapshot
from crrl.making.spec_elsewhere import SIMILAR, Place, near_duplicates
from crrl.sandbox import default_state_dir
from crrl.sandbox.api import Spec
from crrl.task import Task
from crrl.tasks.files import load_tasks

BODY = """    nearest_of_all = min(value, high)
    if nearest_of_all < low:
        nearest_of_all = low
    return nearest_of_all
"""
CODE = '''"""Numbers."""


def clamp(value, low, high):
    """The value, moved into the range from `low` to `high`, both ends included.

    >>> clamp(12, 1, 9)
    9
    """
'''
TESTS = """from numbers_of import clamp


def test_clamp():
    assert clamp(12, 1, 9) == 9 and clamp(-2, 1, 9) == 1


def test_itself():
    assert 1 + 1 == 2
"""
LOOK = """
import os, subprocess, zipfile, zlib
found = []
for root in ("/workspace", "/environment", "/tmp", "/home", "/root", "/var", "/usr/local", "/opt", "/harness"):
    for here, _, names in os.walk(root):
        for name in names:
            path = os.path.join(here, name)
            try:
                data = open(path, "rb").read(1 << 24)
            except OSError:
                continue
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    data += b"".join(archive.read(inside) for inside in archive.namelist())
            if b"nearest_of_" b"all" in data:
                found.append(path)
git = ["git", "-C", "/workspace", "-c", "safe.directory=*"]
for words in (["log", "--all", "-p"], ["cat-file", "--batch-all-objects", "--batch"], ["stash", "list"], ["reflog"]):
    if b"nearest_of_" b"all" in subprocess.run([*git, *words], capture_output=True).stdout:
        found.append(" ".join(words))
print(found)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "numbers-1.0"
    (root / "tests").mkdir(parents=True)
    (root / "numbers_of.py").write_text(CODE + BODY)
    (root / "tests/test_numbers.py").write_text(TESTS)
    (root / "tests/conftest.py").write_text("")
    return root


def built(root: Path) -> None:
    """All that packaging, running and versioning leave."""
    for place in ("build/lib", "build/lib.linux-x86_64-3.11", "build/bdist.linux", "old-1.0.egg"):
        (root / place).mkdir(parents=True)
        (root / place / "numbers_of.py").write_text(CODE + BODY)
    py_compile.compile(str(root / "numbers_of.py"), doraise=True)
    py_compile.compile(str(root / "numbers_of.py"), cfile=str(root / "numbers_of.pyc"), doraise=True)
    (root / "numbers.egg-info").mkdir()
    (root / "numbers.egg-info/SOURCES.txt").write_text("numbers_of.py\n")
    (root / "dist").mkdir()
    with zipfile.ZipFile(root / "dist/numbers-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(root / "numbers_of.py", "numbers_of.py")
    with tarfile.open(root / "dist/numbers-1.0.tar.gz", "w:gz") as archive:
        archive.add(root / "numbers_of.py", "numbers-1.0/numbers_of.py")


def committed(root: Path) -> None:
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-qm", "all"], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)


def tree_of(root: Path, store: Path) -> list[str]:
    commit = snapshot.take(root, store)
    return snapshot.git(["-C", str(store), "ls-tree", "-r", "--name-only", commit]).decode().split()


def spec(project: Path, out: Path, *words: str) -> int:
    plain = () if any(word.startswith("setup=") for word in words) else ("setup=none",)
    return main(["tasks", "spec", str(project), f"out={out}", "network=no", "times=1", *plain, *words])


def seen_in_its_box(task: Task) -> str:
    async def look() -> str:
        boxes = sandbox.make(state_dir=default_state_dir())
        try:
            box = await boxes.start(Spec(await boxes.prepare(task.source), []))
            await box.write("look.py", LOOK.encode())
            result = await box.exec(["/usr/bin/python3", "look.py"])
            await box.close()
            return result.output.strip()
        finally:
            await boxes.close()

    return asyncio.run(look())


@pytest.mark.timeout(600)
def test_what_packaging_and_history_leave_does_not_show_it(project: Path, tmp_path: Path) -> None:
    """Tracked or not, it never gets into the tree that the tasks are made of."""
    built(project)
    walked = tree_of(project, tmp_path / "walked.git")
    committed(project)
    assert walked == tree_of(project, tmp_path / "tracked.git")
    assert walked == ["numbers.egg-info/SOURCES.txt", "numbers_of.py", "tests/conftest.py", "tests/test_numbers.py"]
    assert spec(project, tmp_path / "made.jsonl") == 0
    (task,) = load_tasks(tmp_path / "made.jsonl")[0]
    assert "nearest_of_all" in (task.solution or "") and seen_in_its_box(task) == "[]"


PLACES = {
    "copy.py": lambda code: "# another\n" + code,
    "notes/clamp.md": lambda code: "Once:\n\n" + "".join(f"> {line}\n" for line in code.splitlines()),
    "numbers_of.py.orig": lambda code: code.replace("    ", "\t"),
    "fix.patch": lambda code: "".join(f"-{line}\n" for line in code.splitlines()),
}


THREE = {"archived": "highest", "vendored": "lowest", "compiled": "middle"}  # function -> a name in its body
ONE = """def {name}(values):
    \"\"\"Sort the values by their {word} part, without those that have none, and give the first of them back.\"\"\"
    {word}_of_all = sorted(value.{word} for value in values)
    {word}_kept = [value for value in {word}_of_all if value is not None]
    return {word}_kept[0] + len("{word}")


"""
USED = """from types import SimpleNamespace as N

from numbers_of import archived, compiled, vendored


def test_all():
    assert (archived([N(highest=1)]), vendored([N(lowest=1)]), compiled([N(middle=1)])) == (8, 7, 7)
"""


@pytest.mark.timeout(600)
def test_what_shows_it_all_the_same_is_named(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In an archive of the checkout; and in the environment, with its source and without."""
    code = {name: ONE.format(name=name, word=word) for name, word in THREE.items()}
    (project / "numbers_of.py").write_text("".join(code.values()))
    (project / "tests/test_numbers.py").write_text(USED)
    with zipfile.ZipFile(project / "data.zip", "w") as archive:
        archive.writestr("inside/old.py", code["archived"])
    for name in ("vendored", "compiled"):
        (project / f"{name}.txt").write_bytes(zlib.compress(code[name].encode()))  # nobody finds it in there
    unpack = "import py_compile, zlib; read = lambda name: zlib.decompress(open(name + '.txt', 'rb').read()); "
    unpack += "open('/environment/vendored.py', 'wb').write(read('vendored')); "
    unpack += "open('/tmp/c.py', 'wb').write(read('compiled')); "
    unpack += "py_compile.compile('/tmp/c.py', cfile='/environment/compiled.pyc')"
    assert spec(project, tmp_path / "made.jsonl", f'setup=python3 -c "{unpack}"') == 1
    assert "3 stands elsewhere" in capsys.readouterr().err
    left = [json.loads(line) for line in (tmp_path / "made.left_out.jsonl").read_text().splitlines()]
    assert {one["function"].partition(":")[2]: one["why"] for one in left} == {
        "archived": "/workspace/data.zip!inside/old.py",
        "vendored": "/environment/vendored.py",
        "compiled": "/environment/compiled.pyc",
    }


@pytest.mark.parametrize("place", PLACES)
def test_a_body_is_known_whatever_stands_before_its_lines(place: str) -> None:
    lines = PLACES[place](CODE + BODY).splitlines()
    wanted = elsewhere_search.wanted({"name": "clamp", "lines": BODY.splitlines()})
    assert elsewhere_search.shows(lines, [wanted]) == [0]
    assert elsewhere_search.shows([line for line in lines if "min(" not in line], [wanted]) == []
    apart = [part for line in lines for part in (line, *["filler"] * 20)]
    assert elsewhere_search.shows(apart, [wanted]) == []


def test_a_short_body_is_no_find_without_its_name() -> None:
    wanted = elsewhere_search.wanted({"name": "joined", "lines": ['return ",".join(words)']})
    assert elsewhere_search.shows(["def joined(words):", '    return ",".join(words)'], [wanted]) == [0]
    assert elsewhere_search.shows(["def other(words):", '    return ",".join(words)'], [wanted]) == []


TWIN = ["found = 0", "for row in rows:", "if len(row) > limit:", "found += sum(row)", "return found"]
RENAMED = ["total = 0", "for line in lines:", "if len(line) > most:", "total += sum(line)", "return total"]
OTHER = ["found = []", "for row in rows:", "found.append(row.strip().lower())", "return sorted(found)"]


def test_near_duplicates_are_those_that_renaming_makes_equal() -> None:
    bodies = {Place("m.py", "a", 1, 5): TWIN, Place("n.py", "b", 1, 5): RENAMED, Place("n.py", "c", 9, 12): OTHER}
    found = near_duplicates(bodies)
    assert {place.name: (other.name, score) for place, (other, score) in found.items()} == {
        "a": ("b", 1.0),
        "b": ("a", 1.0),
    }
    changed = [*TWIN[:3], "found += max(row)", TWIN[4]]
    near = near_duplicates({Place("m.py", "a", 1, 5): TWIN, Place("m.py", "b", 9, 14): changed})
    assert all(SIMILAR <= score < 1 for _, score in near.values())
    nested = {Place("m.py", "a", 1, 9): TWIN, Place("m.py", "a.inner", 2, 8): RENAMED}
    assert near_duplicates(nested) == {}, "one is part of the other"
