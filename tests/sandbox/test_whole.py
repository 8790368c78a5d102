"""A folder of a cache is there whole or not at all, whoever makes it and however its maker ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crrl.sandbox.whole import whole

FILLS = """
import os, sys
from pathlib import Path
from crrl.sandbox.whole import whole
with whole(Path(sys.argv[1]), sys.argv[2]) as folder:
    (folder / "one").write_text("1")
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), 9)
    print("ready", flush=True)
    sys.stdin.read()
    (folder / "two").write_text("2")
"""


def filling(made: Path, how: str = "") -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", FILLS, str(made), "new-", how]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_maker_that_is_killed_leaves_a_leftover_and_no_folder(tmp_path: Path) -> None:
    made = tmp_path / "kind" / "key"
    assert filling(made, "killed").wait(60) == -9
    assert [path.name.startswith("new-") for path in made.parent.iterdir()] == [True]


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole(tmp_path / "key") as folder:
        (folder / "one").touch()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_of_two_makers_one_is_first_and_both_see_it_whole(tmp_path: Path) -> None:
    made = tmp_path / "key"
    makers = [filling(made) for _ in range(2)]
    for maker in makers:
        assert maker.stdout is not None and maker.stdout.readline() == "ready\n"
    assert not made.exists()
    for maker in makers:
        maker.communicate("", timeout=60)
        assert maker.returncode == 0
        assert {path.name: path.read_text() for path in made.iterdir()} == {"one": "1", "two": "2"}
    assert list(tmp_path.iterdir()) == [made] and made.stat().st_mode & 0o777 == 0o755


def test_a_place_that_is_taken_by_something_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    with pytest.raises(NotADirectoryError), whole(tmp_path / "key") as folder:
        (folder / "one").touch()
    assert (tmp_path / "key").is_file() and len(list(tmp_path.iterdir())) == 1
