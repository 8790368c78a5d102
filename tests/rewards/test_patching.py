"""The in-process applier gives what `git apply` gives, and refuses what leaves the checkout."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from crrl.rewards import patching
from crrl.rewards.patching import File, PatchError


def git(folder: Path, *argv: str, input: str | None = None) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", *argv],
        cwd=folder, input=input, capture_output=True, text=True, check=True, errors="surrogateescape",
    )  # fmt: skip
    return done.stdout


def repository(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, newline="")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-qm", "base")
    return folder


def changed_by_git(folder: Path, patch: str) -> dict[str, File | None]:
    if patch:
        git(folder, "apply", "--index", "-", input=patch)
    names = git(folder, "diff", "--cached", "--name-only", "--no-renames", "-z").split("\0")
    return {name: patching.read_file(folder, name) for name in names if name}


def keep_nothing(path: str) -> bool:
    return False


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_git_apply_on_random_edits(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    lines = [
        "",
        "a",
        "b",
        "  c",
        "\td",
        "é",
        "-x",
        "+y",
        "@@ z",
        "diff --git",
        "\\ odd",
        "trailing  ",
        "--- q",
    ]

    def text() -> str:
        return "".join(rng.choice(lines) + "\n" for _ in range(rng.randrange(30))) + rng.choice(["", "", "", "end"])

    before = {f"d{n % 2}/f{n}.py": text() for n in range(5)}
    base = repository(tmp_path / "a", before)
    for path in rng.sample(sorted(before), 3):
        body = before[path].split("\n")
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(body))
            body[at : at + rng.randrange(2)] = [rng.choice(lines) for _ in range(rng.randrange(3))]
        (base / path).write_text("\n".join(body), newline="")
    if seed % 3 == 0:
        (base / "d0/f0.py").unlink()
    if seed % 4 == 0:
        (base / "new").mkdir()
        (base / "new/n.py").write_text(text(), newline="")
    if seed % 5 == 0:
        (base / "d1/f1.py").rename(base / "d1/moved.py")
    if seed % 6 == 0:
        (base / "blob").write_bytes(bytes(range(256)))
        (base / "sh").symlink_to("d0")
    git(base, "add", "-A", "-f")
    options = [["--binary", "--full-index"], ["--binary", "--full-index", "-M"], ["--binary", "-U1"]][seed % 3]
    patch = git(base, "diff", "--cached", *options)
    other = repository(tmp_path / "b", before)
    mine = patching.apply(patch, patching.reader(None, before), keep_nothing)
    assert mine == changed_by_git(other, patch)


def test_shifted_hunks_go_to_git(tmp_path: Path) -> None:
    before = {"f.py": "x\ny\nz\n1\n2\n3\n4\n5\n"}
    patch = "--- a/f.py\n+++ b/f.py\n@@ -2,3 +2,3 @@\n 1\n-2\n+two\n 3\n"
    mine = patching.apply(patch, patching.reader(None, before), keep_nothing)
    assert mine == changed_by_git(repository(tmp_path / "a", before), patch)


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/config", "a/.GIT/hooks/x", "a/../../x", "a//b"])
def test_paths_that_leave_the_checkout_are_refused(path: str) -> None:
    with pytest.raises(PatchError):
        patching.apply(f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n", patching.reader(None, {}), keep_nothing)


def test_reading_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("s")
    (tmp_path / "in/link").symlink_to("../secret")
    (tmp_path / "in/folder").symlink_to("..")
    assert patching.read_file(tmp_path / "in", "link") == File(link="../secret")
    assert patching.read_file(tmp_path / "in", "folder/secret") is None


@pytest.mark.parametrize(
    "patch", ["hello", "diff --git", "--- a/x\n+++ b/x\n@@ -1,2 +1 @@\n-a\n", "@@ -1 +1 @@\n-a\n+b\n"]
)
def test_broken_patches_are_patch_errors(patch: str) -> None:
    with pytest.raises(PatchError):
        patching.apply(patch, patching.reader(None, {"x": "a\n"}), keep_nothing)


def test_kept_files_stay(tmp_path: Path) -> None:
    patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n"
    read = patching.reader(None, {"x": "a\n", "y": "a\n"})
    assert patching.apply(patch, read, lambda path: path == "y") == {"x": File(b"b\n")}
