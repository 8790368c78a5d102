"""Invariant 5: what `prepare` makes of each kind of source; its cache; what it refuses."""

# ruff: noqa: ASYNC240 (blocking calls are fine in tests)
from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from crrl.errors import CrrlError, UsageError
from crrl.sandbox import availability, make, workspace
from crrl.sandbox.api import Spec
from crrl.sandbox.shared import SharedFiles
from crrl.task import Source


def git(where: Path, *args: str) -> str:
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
    env |= {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    argv = ["git", "-c", "safe.directory=*", *args]
    return subprocess.run(argv, cwd=where, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Three commits: the middle one is the base; the last is the fix that nobody may see."""
    root = tmp_path / "repo"
    (root / "pkg").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    (root / "pkg/m.py").write_text("old\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    (root / "pkg/m.py").write_text("buggy\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("pkg/m.py")
    (root / ".gitattributes").write_text("secret.txt export-ignore\n*.py text eol=crlf\n")
    (root / "secret.txt").write_text("kept\n")
    (root / "latin").write_bytes(b"\xe9\x00\xff")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    git(root, "tag", "base")
    (root / "pkg/m.py").write_text("THE-FIX\n")
    git(root, "commit", "-qam", "fix")
    return root


def check_tree(lower: Path) -> None:
    assert (lower / "pkg/m.py").read_bytes() == b"buggy\n" and (lower / "secret.txt").exists()
    assert os.access(lower / "run.sh", os.X_OK) and os.readlink(lower / "link") == "pkg/m.py"
    assert (lower / "latin").read_bytes() == b"\xe9\x00\xff"
    assert git(lower, "status", "--porcelain") == "" and git(lower, "rev-list", "--all", "--count") == "1"
    assert git(lower, "fsck", "--strict", "--full") == "" and git(lower, "reflog") == ""


@pytest.mark.parametrize("url", [False, True])
async def test_a_commit_of_a_repository(sandbox, repo, url):
    source = Source(repo=f"file://{repo}" if url else str(repo), base_commit=git(repo, "rev-parse", "base"))
    made = await sandbox.prepare(source)
    check_tree(made.lower)
    assert git(made.git_dir, "rev-parse", "main") == made.base == git(made.lower, "rev-parse", "HEAD")
    assert git(made.lower, "rev-parse", "HEAD^{tree}") == git(repo, "rev-parse", "base^{tree}")
    box = await sandbox.start(Spec(root=made))
    found = await box.exec(
        [
            "bash",
            "-c",
            "git cat-file --batch-all-objects --batch | grep -c THE-FIX; grep -r THE-FIX . | wc -l",
        ]
    )
    assert found.output == "0\n0\n"
    await box.write("pkg/m.py", b"mine\n")
    assert "-buggy\n+mine\n" in await box.patch()
    await box.close()


async def test_a_directory(sandbox, repo):
    git(repo, "checkout", "-q", "base")
    (repo / "pkg/m.py").write_bytes(b"buggy\n")  # git checked it out with the line ends of .gitattributes
    made = await sandbox.prepare(Source(dir=str(repo)))
    check_tree(made.lower)
    assert await sandbox.prepare(Source(dir=str(repo))) == made
    (repo / "pkg/m.py").write_text("other\n")
    assert await sandbox.prepare(Source(dir=str(repo))) != made


async def test_equal_content_is_made_once_also_at_once(sandbox, state_dir):
    source = Source(files={"b/c.py": "2\n", "a.py": f"{time.time()}\n"})
    same = Source(files=dict(reversed(list((source.files or {}).items()))))
    made = await asyncio.gather(*(sandbox.prepare(s) for s in (source, same) * 8))
    assert len({m.lower for m in made}) == 1
    with ThreadPoolExecutor(4) as pool:
        fresh = Source(files={"a.py": f"{time.time()}\n"})
        paths = {w.lower for w in pool.map(lambda _: workspace.prepare(fresh, state_dir, 65534), range(8))}
    assert len(paths) == 1 and not list((state_dir / "workspaces").glob("*/new-*"))
    assert git(made[0].lower, "fsck", "--strict") == "" and git(made[0].lower, "status", "--porcelain") == ""


async def test_trees_of_a_repository_share_what_they_have_in_common(sandbox, state_dir, repo):
    """A second commit takes the disk of what it changes; no box changes what they share."""
    sources = [Source(repo=str(repo), base_commit=git(repo, "rev-parse", name)) for name in ("base", "main")]
    first, second = [(await sandbox.prepare(source)).lower for source in sources]
    assert os.path.samefile(first / "run.sh", second / "run.sh") and os.path.samefile(first / "latin", second / "latin")
    assert (first / "pkg/m.py").read_text() == "buggy\n" and (second / "pkg/m.py").read_text() == "THE-FIX\n"
    check_tree(first)
    box = await sandbox.start(Spec(await sandbox.prepare(sources[0])))
    await box.exec(["sh", "-c", "echo x >> run.sh; chmod 777 run.sh; chmod 600 latin"])
    await box.close()
    check_tree(first)
    shutil.rmtree(state_dir / "workspaces" / "shared")  # as a cache may be
    new = "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+n\n"
    third = (await sandbox.prepare(replace(sources[0], patches=[new]))).lower
    assert (third / "new").read_text() == "n\n" and (third / "run.sh").read_text() == "#!/bin/sh\n"


def test_a_file_that_cannot_be_linked_is_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr(os, "link", refuse)
    SharedFiles(tmp_path / "shared").put(b"x", 0o755, str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"x" and os.access(tmp_path / "a", os.X_OK)


async def test_what_an_episode_leaves_the_next_does_not_see(sandbox, workspace):
    for _ in range(2):
        box = await sandbox.start(Spec(root=workspace))
        assert (await box.exec(["bash", "-c", "ls -A /workspace /tmp /home/agent | sort | tr '\\n' ' '"])).output.count(
            "mark"
        ) == 0
        await box.exec(["bash", "-c", "touch mark /tmp/mark ~/mark; rm stats.py; git gc -q; rm -rf .git/objects"])
        await box.close()
    assert git(workspace.lower, "fsck") == ""


@pytest.mark.parametrize(
    "source",
    [
        Source(),
        Source(files={"a": ""}, dir="/x"),
        Source(repo="/x"),
        Source(files={"a/.GIT/config": ""}),
        Source(files={"a": "", "a/b": ""}),
        Source(dir="/nowhere/at/all"),
        Source(repo="/nowhere/at/all", base_commit="0" * 40),
        Source(repo="--upload-pack=touch /tmp/pwned", base_commit="x"),
        Source(repo="ext::sh -c touch% /tmp/pwned", base_commit="0" * 40),
    ],
)
async def test_bad_sources_are_clear_errors(sandbox, state_dir, source):
    with pytest.raises(CrrlError) as caught:
        await sandbox.prepare(source)
    assert caught.value.remedy and not os.path.exists("/tmp/pwned")
    assert not list(state_dir.glob("clone-*")) and not list((state_dir / "workspaces").glob("*/new-*"))


def test_preparing_given_files_starts_no_process(state_dir, monkeypatch):
    def refuse(argv, **_):
        raise AssertionError(f"{argv} was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    files = {"m.py": "x\n", "tests/test_m.py": "y\n", "README.md": "z\n", "tests/conftest.py": ""}
    made = workspace.prepare(Source(files=files), state_dir, 65534)
    assert (made.lower / "m.py").read_text() == "x\n"


def test_this_host_is_found_usable_and_problems_are_named(state_dir, monkeypatch, tmp_path):
    assert availability.check(state_dir) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CrrlError, match="bubblewrap is not installed") as caught:
        make("bubblewrap", state_dir=state_dir)
    assert "apt-get install bubblewrap" in caught.value.remedy


def test_a_closed_state_folder_is_named(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root drops its uid")
    tmp_path.chmod(0o700)
    with pytest.raises(CrrlError, match="cannot enter") as caught:
        make("bubblewrap", state_dir=tmp_path / "state")
    assert "chmod o+x" in caught.value.remedy


def test_unknown_names_are_refused(state_dir):
    with pytest.raises(UsageError, match="Did you mean 'bubblewrap'"):
        make("bublewrap", state_dir=state_dir)
