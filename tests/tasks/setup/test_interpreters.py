"""Which Python a task runs under, by its date or by what its corpus says."""

from __future__ import annotations

from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.sandbox.availability import PYTHON
from crrl.tasks.setup import interpreters, toolchains
from crrl.tasks.setup.interpreters import at_least, missing, suited, wanted


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 3.8, 3.9 and 3.12, of which boxes are shown a folder each."""
    for version in ("3.8", "3.9", "3.12"):
        binary = interpreters.folder(tmp_path) / f"cpython-{version}.1" / "bin" / f"python{version}"
        binary.parent.mkdir(parents=True)
        binary.touch()
    monkeypatch.setattr(interpreters, "BELOW_USR", ())
    return tmp_path


@pytest.mark.parametrize(
    ("when", "version"),
    [
        ("2017-02-13T18:20:56Z", "3.8"),  # older than all: the oldest
        ("2021-04-05", "3.8"),  # 3.9 had been out for less than half a year
        ("2021-04-06", "3.9"),
        ("2024-04-01T00:00:00Z", "3.9"),
        ("2026-01-01", "3.12"),
    ],
)
def test_suited_to_a_date(here: Path, when: str, version: str) -> None:
    assert suited(when, here)[0] == f"python{version}"


def test_the_next_is_newer_where_there_is_a_newer_one(here: Path) -> None:
    assert suited("2021-04-06", here) == ["python3.9", "python3.12", "python3.8"]
    assert suited("2026-01-01", here) == ["python3.12", "python3.9", "python3.8"]


def test_suited_to_what_a_corpus_says(here: Path) -> None:
    asked = [at_least(version) for version in ("3.6.9", "3.8.3", "3.9", "3.10.1")]
    assert [wanted([need], here).name for need in asked] == ["python3.8", "python3.8", "python3.9", "python3.12"]
    with pytest.raises(CrrlError, match=r"needs python>=3\.13") as failed:
        wanted([at_least("3.13.0")], here)
    assert failed.value.remedy.startswith("uv python install 3.13 ")


def test_boxes_are_shown_its_folder(here: Path) -> None:
    root = here / "toolchains/python/cpython-3.9.1"
    assert wanted(["junit", "python3.9"], here) == root / "bin/python3.9"
    assert interpreters.folders(["python3.9", "junit"], here) == [root]
    assert interpreters.folders(["python>=3.9"], here) == [root]
    assert [mount.target for mount in toolchains.mounts(["python3.9"], here)] == [str(root)]
    assert wanted(["junit"], here) == Path(PYTHON) and interpreters.folders([], here) == []


def test_a_missing_one_is_said_with_the_remedy(here: Path) -> None:
    with pytest.raises(CrrlError, match=r"needs python3\.7") as failed:
        toolchains.require(["python3.7"], here)
    assert failed.value.remedy == f"uv python install 3.7 --install-dir {here}/toolchains/python"


def test_the_python_of_a_task_s_time_that_is_not_here(here: Path) -> None:
    """`python>=3.10` ran under 3.12, and what is of 2019 under 3.8: if that failed, it may be no fault of the task."""
    assert missing(["python>=3.10"], "", here) == "python3.10" and missing(["python>=3.9"], "", here) == ""
    assert missing(["python3.8"], "2019-08-01", here) == "python3.7"
    assert missing(["python3.9"], "2021-05-03", here) == missing([], "", here) == ""
