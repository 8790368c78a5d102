"""More of what real histories hold, commit by commit: a repair that only renames, one that comes by a merge or with a
submodule, with another conftest.py, under attributes and settings of git's; configuration of pytest in every file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from history_kit import BUGGY, FIXED, ONE, TWO, Files, commit, git

from crrl.cli.main import main
from crrl.making.commits import History
from crrl.tasks.files import load_tasks


def mine(root: Path, *words: str) -> tuple[int, Path]:
    out = root.parent / "mined.jsonl"
    return main(["tasks", "mine", str(root), f"out={out}", "times=1", "network=no", "setup=none", *words]), out


def flips(out: Path) -> list[str]:
    (task,), _ = load_tasks(out)
    return [test.rpartition("::")[2] for test in task.test.fail_to_pass]


@pytest.mark.timeout(600)
def test_a_repair_that_a_merge_brings_is_found_once(tmp_path: Path) -> None:
    root = tmp_path / "project"
    commit(root, "start", {"m.py": BUGGY, "tests/test_m.py": ONE, "n.py": "x = 1\n"})
    git(root, "switch", "-q", "-c", "repair")
    fix = commit(root, "f of two is wrong", {"m.py": FIXED, "tests/test_m.py": TWO})
    git(root, "switch", "-q", "main")
    commit(root, "meanwhile", {"n.py": "x = 2\n"})
    git(root, "merge", "-q", "--no-ff", "-m", "fix: merge the repair", "repair")
    code, out = mine(root)
    assert code == 0 and flips(out) == ["test_two"]
    (task,), _ = load_tasks(out)
    assert task.provenance["commit"] == fix


@pytest.mark.timeout(600)
def test_a_commit_that_only_renames_is_no_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "project"
    commit(root, "start", {"m.py": FIXED, "tests/test_m.py": ONE})
    renamed = commit(
        root,
        "fix the name of m",
        {
            "m.py": None,
            "core.py": FIXED,
            "tests/test_m.py": None,
            "tests/test_core.py": ONE.replace("from m", "from core"),
        },
    )
    assert mine(root)[0] == 1
    assert f"{renamed[:12]}  nothing runs before the repair" in capsys.readouterr().err


@pytest.mark.timeout(600)
def test_a_repair_beside_a_submodule_and_another_conftest(tmp_path: Path) -> None:
    """What is not the repair's stays out of it; a conftest.py at the root is put back like the tests."""
    other, root = tmp_path / "other", tmp_path / "project"
    commit(other, "start", {"data.txt": "1"})
    commit(root, "start", {"m.py": BUGGY, "tests/test_m.py": ONE})
    git(root, "submodule", "add", "-q", str(other), "vendor")
    git(root, "commit", "-q", "-m", "vendor")
    commit(other, "more", {"data.txt": "2"})
    git(root / "vendor", "pull", "-q")
    fixture = "import pytest\n\n\n@pytest.fixture\ndef two():\n    return 2\n"
    test = TWO.replace("test_two()", "test_two(two)").replace("f(2)", "f(two)")
    commit(root, "f of two is wrong", {"m.py": FIXED, "tests/test_m.py": test, "conftest.py": fixture})
    code, out = mine(root)
    assert code == 0 and flips(out) == ["test_two"]
    (task,), _ = load_tasks(out)
    assert list(task.test.restore_from) == ["conftest.py", "tests/test_m.py"]
    assert "vendor" not in (task.solution or "") and "conftest" not in (task.solution or "")


@pytest.mark.timeout(600)
def test_settings_and_attributes_of_git_change_nothing(tmp_path: Path) -> None:
    root = tmp_path / "project"
    crlf = [text.replace("\n", "\r\n") for text in (BUGGY, FIXED)]
    attributes = "*.py -diff diff=rev\nm.py text=auto eol=crlf\n"
    commit(root, "start", {".gitattributes": attributes, "m.py": crlf[0], "tests/test_m.py": ONE})
    message = "f of two is wrong, says M\u00fcller".encode("latin-1")
    commit(root, message, {"m.py": crlf[1], "tests/test_m.py": TWO}, "-c", "i18n.commitEncoding=latin-1")
    for setting in [
        *("diff.rev.textconv=rev", "diff.noprefix=true", "diff.mnemonicPrefix=true", "diff.relative=true"),
        *("diff.external=false", "diff.orderFile=nowhere", "color.ui=always", "log.showSignature=true"),
    ]:
        git(root, "config", *setting.split("="))
    code, out = mine(root)
    assert code == 0 and flips(out) == ["test_two"]
    (task,), _ = load_tasks(out)
    assert "M\u00fcller" in task.issue and "+    return x + 1" in (task.solution or "")


@pytest.mark.timeout(600)
def test_names_that_are_no_text_and_odd_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "project"
    commit(root, "start", {"m.py": BUGGY, "tests/test_m.py": ONE})
    odd = commit(root, "fix: no name", {"m.py": FIXED, os.fsdecode(b"tests/test_\xff.py"): TWO})
    commit(root, "back", {"m.py": BUGGY})
    spaced = commit(root, "f of two is wrong", {"m.py": FIXED, 'tests/a "b" \u00fc/test_m 2.py': TWO})
    code, out = mine(root)
    assert code == 0 and flips(out) == ["test_two"]
    (task,), _ = load_tasks(out)
    assert task.provenance["commit"] == spaced
    assert f"{odd[:12]}  not text: the name of a file" in capsys.readouterr().err


CONFIGURED: Files = {
    "pytest.ini": "[pytest]\naddopts = --cov=m -n auto\n",
    ".pytest.ini": "[pytest]\naddopts = --cov=m\n",
    "setup.cfg": "[tool:pytest]\naddopts = --ds=project.settings\n",
    "tox.ini": "[pytest]\naddopts = -p nowhere --timeout=3\n",
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = ["--cov=m", "--strict-config"]\nasyncio_mode = "auto"\n',
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", CONFIGURED)
def test_options_of_plugins_that_are_not_here(file: str, tmp_path: Path) -> None:
    root = tmp_path / "project"
    commit(root, "start", {"m.py": BUGGY, "tests/test_m.py": ONE, file: CONFIGURED[file]})
    commit(root, "f of two is wrong", {"m.py": FIXED, "tests/test_m.py": TWO})
    code, out = mine(root)
    assert code == 0 and flips(out) == ["test_two"]


@pytest.mark.timeout(600)
def test_a_plugin_that_a_conftest_asks_for_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "project"
    asked = 'pytest_plugins = ["pytest_nowhere"]\n'
    commit(root, "start", {"m.py": BUGGY, "tests/test_m.py": ONE, "conftest.py": asked})
    commit(root, "f of two is wrong", {"m.py": FIXED, "tests/test_m.py": TWO})
    assert mine(root)[0] == 1
    said = capsys.readouterr().err
    assert "unavailable: needs the Python module pytest_nowhere" in said and "setup=CMD" in said


def test_what_is_no_history_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "project"
    commit(root, "start", {"part/m.py": BUGGY})
    assert mine(root / "part")[0] == 1
    assert f"Write the repository's own: {root}" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    assert mine(tmp_path / "empty")[0] == 1
    assert "no commit" in capsys.readouterr().err
    git(tmp_path, "clone", "-q", "--bare", str(root), "bare.git")
    assert History(tmp_path / "bare.git").head == git(root, "rev-parse", "HEAD")
