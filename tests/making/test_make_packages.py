"""`crrl tasks make` on real packages, unpacked from PyPI sdists that carry their tests: tasks, or a reason.

Heavy, and needs the network: `make test-corpora`. MINUTES is a wall-clock target for two free cores; a machine that
others use at the same time is told from the CPU-seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.tasks.files import load_tasks

WANTED, MINUTES, CORES = 30, 10, 2
PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]


def downloaded(package: str, folder: Path) -> Path:
    words = ["--no-binary", package.partition("==")[0], "--dest", str(folder), package]
    got = subprocess.run([*PIP, *words], capture_output=True, text=True, check=False)
    if got.returncode != 0:
        pytest.skip(f"no sdist of {package} here: {got.stderr[-300:]}")
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.mark.corpora
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("package", ["toolz", "boltons"])
def test_thirty_tasks(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = downloaded(package, tmp_path), tmp_path / "made.jsonl"
    assert main(["tasks", "make", str(root), f"out={out}", f"limit={WANTED}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    tasks, problems = load_tasks(out)
    assert len(tasks) >= WANTED and not problems
    assert told["cpu_seconds"] < MINUTES * 60 * CORES, told
    with capsys.disabled():
        print(f"\n{package}: {told}")


MAKES = {  # package -> its make
    "inflection": "setup.py, one module, pytest",
    "xmltodict": "pyproject (setuptools), one module, unittest through pytest",
    "attrs": "pyproject (hatch), src layout, dependency groups, plugins that steer runs (xdist)",
    "click": "pyproject (flit), src layout",
    "charset-normalizer": "setup.py, an extension that is optional, src layout, options of pytest-cov in addopts",
    "certifi": "setup.py, data in a package, a handful of tests",
    "typing_extensions": "pyproject (flit), one module, unittest",
    "idna": "pyproject (flit), flat layout, thousands of generated test methods, test packages in an extra called all",
    "packaging": "pyproject (flit), src layout, a package that pytest needs, tens of thousands of parameters",
    "requests": "setup.py and pyproject, src layout, fixtures of plugins (httpbin, mock), tests that need the network",
}


@pytest.mark.corpora
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("package", MAKES)
def test_packages_of_different_make(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = downloaded(package, tmp_path), tmp_path / "made.jsonl"
    assert main(["tasks", "make", str(root), f"out={out}", "limit=3", "times=1"]) == 0
    tasks, problems = load_tasks(out)
    assert tasks and not problems
    for task in tasks:
        assert "Seen in `" in task.issue and task.provenance["fails_by"]


REFUSED = {
    "ujson": "builds extension modules, which are not built here",
    "pluggy": "The judge's own pytest runs on pluggy",
    "six": "cannot be told by a call and its values",  # classes that make classes, modules that look for modules
}


@pytest.mark.corpora
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("package", REFUSED)
def test_packages_that_are_refused(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "make", str(downloaded(package, tmp_path)), f"out={tmp_path}/x.jsonl", "limit=1"]) == 1
    assert REFUSED[package] in capsys.readouterr().err
