"""`crrl tasks make` on real packages, unpacked from PyPI sdists that carry their tests: tasks, or a reason.

Heavy, and needs the network: `make test-corpora`. MINUTES is a wall-clock target for two free cores; a machine that
others use at the same time is told from the CPU-seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.tasks.files import load_tasks

WANTED, MINUTES, CORES = 30, 10, 2
PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]


def unpacked(package: str, folder: Path) -> Path:
    words = ["--no-binary", package.partition("==")[0], "--dest", str(folder), package]
    got = subprocess.run([*PIP, *words], capture_output=True, text=True, check=False)
    if got.returncode != 0:
        pytest.skip(f"no sdist of {package} here: {got.stderr[-300:]}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.mark.corpora
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("package", ["toolz", "boltons"])
def test_thirty_tasks(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = unpacked(package, tmp_path), tmp_path / "made.jsonl"
    assert main(["tasks", "make", str(root), f"out={out}", f"limit={WANTED}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    tasks, problems = load_tasks(out)
    assert len(tasks) >= WANTED and not problems
    assert told["cpu_seconds"] < MINUTES * 60 * CORES, told
    with capsys.disabled():
        print(f"\n{package}: {told}")


MAKES = {  # package -> its make, and what it is told
    "inflection": "setup.py, one module, pytest",
    "six": "setup.py, one module, unittest through pytest",
    "attrs": "pyproject, src layout, plugins, dependency groups",
    "click": "pyproject (flit), src layout",
    "charset-normalizer": "optional extension, src layout, options of pytest-cov in addopts",
    "certifi": "data in a package, a handful of tests",
    "typing_extensions": "pyproject (flit), one module, unittest",
    "idna": "unittest, a test dependency that nothing declares: setup='pip install -e . pytest hypothesis'",
}


@pytest.mark.corpora
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("package", MAKES)
def test_packages_of_different_make(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = unpacked(package, tmp_path), tmp_path / "made.jsonl"
    told = [word for word in MAKES[package].partition("setup=")[1:] if word]
    setup = ["".join(told).replace("'", "")] if told else []
    assert main(["tasks", "make", str(root), f"out={out}", "limit=3", "times=1", *setup]) == 0
    tasks, problems = load_tasks(out)
    assert tasks and not problems
    for task in tasks:
        assert "Seen in `" in task.issue and task.provenance["fails_by"]


@pytest.mark.corpora
@pytest.mark.timeout(3600)
def test_a_c_extension_is_refused_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "make", str(unpacked("ujson", tmp_path)), f"out={tmp_path}/x.jsonl", "limit=1"]) == 1
    assert "builds extension modules, which are not built here" in capsys.readouterr().err
