"""Diffs: what `between` makes git applies; what `reverse` makes undoes it; on real patches, and on the odd ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest

from crrl.tasks.corpora import defects4j, find, load
from crrl.tasks.diffs import between, changes, reverse, touched

TEXTS = [
    (None, "a\nb\n"),
    ("a\nb\n", None),
    ("a\nb\n", "a\nc\n"),
    ("a\nb", "a\nb\n"),
    ("a\nb\n", "a\nb"),
    ("a\nb", "a\nc"),
    ("", "a"),
    ("x\n" * 50 + "y\n", "z\n" + "x\n" * 50),
    ("form\x0cfeed\n", "form\x0cfed\n"),
    ("-- dash\n++ plus\n", "-- dash\n"),
    ("", "caf\u00e9 \u2028 line\n"),
]


def applied(folder: Path, patch: str, old: str | None) -> str | None:
    file = folder / "f.txt"
    if old is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(old.encode())
    done = subprocess.run(["git", "apply", "-"], cwd=folder, input=patch.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return file.read_bytes().decode() if file.exists() else None


@pytest.mark.parametrize(("old", "new"), TEXTS)
def test_git_applies_what_is_made_and_its_reverse(tmp_path: Path, old: str | None, new: str | None) -> None:
    patch = between("f.txt", old, new)
    assert touched(patch) == ["f.txt"]
    assert applied(tmp_path, patch, old) == new
    assert applied(tmp_path, reverse(patch), new) == old
    assert changes(reverse(reverse(patch))) == changes(patch)


def test_equal_texts_have_no_diff() -> None:
    assert between("f.txt", "a\n", "a\n") == "" == between("f.txt", None, None)


def test_real_patches_are_read_and_turned_as_git_does(test_data: Path) -> None:
    """Lines added and deleted, file by file, as `git apply --numstat` counts them, forwards and backwards."""
    table = pyarrow.parquet.read_table(test_data / "swe-bench/SWE-bench_Multilingual/test.parquet")
    patches = [p for column in ("patch", "test_patch") for p in table[column].to_pylist()]
    patches += [task.source.patches[0] for task in load(find("defects4j"), test_data / "defects4j/v2.0.1").tasks]
    checked = 0
    for patch in patches:
        if "\nrename from " in patch or "\ncopy from " in patch:
            continue
        counted = numstat(patch)
        assert sorted((deleted, added, name) for added, deleted, name in counted) == sorted(numstat(reverse(patch)))
        ours = [
            (sum(x[0] == "+" for x in lines), sum(x[0] == "-" for x in lines), path) for path, lines in changes(patch)
        ]
        assert sorted((str(a), str(d), p) for a, d, p in ours) == sorted(counted)
        checked += 1
    assert checked > 450
    assert len(list(defects4j.bugs(test_data / "defects4j/v2.0.1"))) == 864


def numstat(patch: str) -> list[tuple[str, str, str]]:
    command = ["git", "apply", "--numstat", "-z", "-"]
    done = subprocess.run(command, input=patch.encode(), capture_output=True, check=True)
    rows = [row.split("\t") for row in done.stdout.decode().split("\0") if row]
    return [(added, deleted, name) for added, deleted, name in rows]


def test_renames_modes_and_new_files_turn_round() -> None:
    patch = (
        "diff --git a/old.sh b/new.sh\nold mode 100644\nnew mode 100755\nsimilarity index 90%\nrename from old.sh\n"
        "rename to new.sh\nindex 1111111..2222222 100644\n--- a/old.sh\n+++ b/new.sh\n@@ -1 +1 @@\n-a\n+b\n"
    )
    turned = reverse(patch)
    assert "rename from new.sh\n" in turned and "rename to old.sh\n" in turned
    assert turned.startswith("diff --git a/new.sh b/old.sh\nnew mode 100644\nold mode 100755\n")
    assert "index 2222222..1111111 100644\n--- a/new.sh\n+++ b/old.sh\n@@ -1 +1 @@\n-b\n+a\n" in turned
    assert touched(patch) == ["old.sh", "new.sh"]


NAMES = ["a b.txt", 'quo"te', "tab\there", "caf\u00e9", "caf\udce9", "back\\slash", "b/a/b", "--- a", "line\nbreak"]
NAMES += ["x b/x"]


@pytest.mark.parametrize("quoted", ["true", "false"])
@pytest.mark.parametrize("kind", ["changed", "made", "deleted", "renamed", "executable"])
def test_names_of_any_kind_are_read_and_turned(tmp_path: Path, kind: str, quoted: str) -> None:
    """What git writes, read as git names it; the reverse undone by git."""
    git(tmp_path, "init", "-q")
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if kind != "made":
            (tmp_path / name).write_bytes(b"one\r\ntwo \x0c half\nthree")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "base")
    for path in (tmp_path / name for name in NAMES):
        if kind == "deleted":
            path.unlink()
        elif kind == "renamed":
            path.rename(path.with_name(path.name + " 2"))
        else:
            path.write_bytes(b"one\n\xe2\x80\xa8two\nthree\n")
            path.chmod(0o755 if kind == "executable" else 0o644)
    git(tmp_path, "add", "-A")
    patch = git(tmp_path, "-c", f"core.quotePath={quoted}", "diff", "--cached", "-M").decode("utf-8", "surrogateescape")
    assert set(touched(patch)) == set(NAMES) | ({f"{name} 2" for name in NAMES} if kind == "renamed" else set())
    git(tmp_path, "apply", "--index", "-", stdin=reverse(patch).encode("utf-8", "surrogateescape"))
    assert git(tmp_path, "status", "--porcelain") == b""


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["git", *arguments], cwd=folder, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


BROKEN = ["hello", "@@ -1 +1 @@\n-a\n+b\n", "--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-a\n+b\n"]
BROKEN += ["@@ -1 +1 @@\n-a\n+b\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_diff_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        touched(text)


def test_binary_patches_have_no_reverse() -> None:
    with pytest.raises(ValueError, match="binary"):
        reverse("diff --git a/x b/x\nGIT binary patch\nliteral 3\nKcmZQzU|;|M00aO5\n\n")
