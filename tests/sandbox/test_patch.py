"""Invariant 3: the patch is what the workspace holds, whatever the agent did to git."""

# ruff: noqa: ASYNC240 (blocking calls are fine in tests)
from __future__ import annotations

import os
import time

import pytest

from crrl.sandbox.api import Limits, Spec
from crrl.sandbox.bubblewrap import BubblewrapBox
from crrl.task import Source

HOSTILE = """
printf '#!/bin/sh\\ntouch /workspace/RAN /tmp/RAN; env > /workspace/RAN' > evil; chmod +x evil
git config core.fsmonitor /workspace/evil
git config core.hooksPath /workspace; cp evil post-index-change; cp evil pre-commit; cp evil .git/hooks-x
git config filter.x.clean /workspace/evil; git config filter.x.smudge /workspace/evil
git config diff.x.command /workspace/evil; git config diff.x.textconv /workspace/evil
git config diff.external /workspace/evil
git config core.worktree /etc; git config core.attributesFile /workspace/.gitattributes
git config core.excludesFile /workspace/.gitignore; git config core.autocrlf true
git config core.pager /workspace/evil
printf '* filter=x diff=x text eol=crlf -diff ident working-tree-encoding=UTF-16\\n' > .gitattributes
cp .gitattributes .git/info-attributes; mkdir -p .git/info; cp .gitattributes .git/info/attributes
printf '*\\n' > .gitignore; cp .gitignore .git/info/exclude
printf 'def f():\\n    return "$Id$"\\n' > stats.py
"""


async def sh(box: BubblewrapBox, command: str, timeout_s: float = 20):
    return await box.exec(["bash", "-c", command], timeout_s=timeout_s)


async def test_no_change_is_an_empty_patch(box):
    await sh(box, "git status; chmod 644 stats.py; touch README.md; mkdir empty; python3 -c 'import stats'")
    assert await box.patch() == ""


async def test_edit_add_delete_rename_mode_symlink_and_type_changes(box, apply):
    await sh(
        box,
        "echo more >> README.md; chmod +x stats.py; mkdir -p a/b; echo new > a/b/c.txt; rm -r "
        "tests; echo file > tests;"
        "ln -s /etc/passwd link; printf 'no newline' > n; printf '' > empty; mv README.md moved.md",
    )
    tree = apply(await box.patch())
    assert (tree / "moved.md").read_text() == "hello\nmore\n" and not (tree / "README.md").exists()
    assert os.access(tree / "stats.py", os.X_OK) and (tree / "a/b/c.txt").read_text() == "new\n"
    assert (tree / "tests").read_text() == "file\n" and os.readlink(tree / "link") == "/etc/passwd"
    assert (tree / "n").read_text() == "no newline" and (tree / "empty").read_bytes() == b""


async def test_file_to_directory_and_remade_directory(box, apply):
    await sh(
        box,
        "rm stats.py; mkdir stats.py; echo x > stats.py/in; rm -r tests; mkdir tests; echo y > tests/other",
    )
    tree = apply(await box.patch())
    assert (tree / "stats.py/in").read_text() == "x\n"
    assert sorted(os.listdir(tree / "tests")) == ["other"]


async def test_binary_other_encodings_and_strange_names(box, apply):
    await sh(box, "head -c 5000 /dev/urandom > bin; sha256sum < bin > sum; printf 'caf\\xe9\\n' > latin1.txt")
    await sh(
        box,
        "echo x > 'sp ace'; echo y > $'tab\\there'; echo z > 'naïve'; printf 'a\\r\\nb\\r\\n' > "
        "crlf; echo q > 'q\"uote'",
    )
    tree = apply(await box.patch())
    assert (tree / "latin1.txt").read_bytes() == b"caf\xe9\n" and (tree / "crlf").read_bytes() == b"a\r\nb\r\n"
    assert (tree / "bin").stat().st_size == 5000
    assert {"sp ace", "tab\there", "naïve", 'q"uote'} <= set(os.listdir(tree))


async def test_plain_names_and_text_stay_readable(box):
    await sh(box, "echo x > naïve.py")
    patch = await box.patch()
    assert patch.startswith("diff --git a/naïve.py b/naïve.py\nnew file mode 100644\n") and "+x\n" in patch


async def test_hostile_git_settings_run_nothing_and_hide_nothing(box, apply):
    result = await sh(box, HOSTILE)
    assert result.code == 0, result.output
    patch = await box.patch()
    tree = apply(patch)
    assert (tree / "stats.py").read_bytes() == b'def f():\n    return "$Id$"\n'  # no eol, ident or encoding change
    assert "b/RAN" not in patch and (tree / ".gitignore").read_text() == "*\n" and (tree / "evil").exists()
    assert not os.path.exists("/tmp/RAN") and not os.path.exists("/workspace")


@pytest.mark.parametrize(
    "damage",
    [
        "rm -rf .git",
        "rm -rf .git; echo 'gitdir: /etc' > .git",
        "rm -rf .git; ln -s /etc .git",
        "rm -f .git/index .git/HEAD; echo junk > .git/config",
        "git add -A; git commit -qm hidden; git update-index --assume-unchanged stats.py",
        "git update-index --skip-worktree stats.py; git checkout -qb other; git commit -q --allow-empty -m x",
        "echo '/*' > .git/info-sparse; git config core.sparseCheckout true; git replace HEAD HEAD 2>/dev/null; true",
        "rm -rf .git; git init -q; git add -A; git -c user.name=a -c user.email=b commit -qm all",
    ],
)
async def test_damaged_or_rewritten_history_changes_nothing(box, damage):
    await sh(box, f"echo '# changed' >> stats.py; {damage}")
    patch = await box.patch()
    assert patch.count("diff --git") == 1 and "+# changed" in patch and "gitdir" not in patch


async def test_nested_repositories_are_plain_files_without_their_git(box):
    await sh(
        box,
        "mkdir sub; cd sub; git init -q; echo inner > f; git add f; git commit -qm x; mkdir .GIT; echo e > .GIT/h",
    )
    patch = await box.patch()
    assert "+inner" in patch and patch.count("diff --git") == 1 and "Subproject" not in patch


async def test_caches_are_left_out_unless_tracked(sandbox, box):
    await sh(
        box,
        "mkdir -p a/__pycache__ .pytest_cache; touch a/__pycache__/x; echo x > m.pyc; echo x > .pytest_cache/y",
    )
    assert await box.patch() == ""
    workspace = await sandbox.prepare(Source(files={"data/__pycache__/t": "a\n"}))
    other = await sandbox.start(Spec(root=workspace))
    await sh(other, "echo b > data/__pycache__/t")
    assert "+b" in await other.patch()
    await other.close()


async def test_special_files_are_left_out(box):
    await sh(
        box,
        "mkfifo p; python3 -c 'import socket; socket.socket(1).bind(\"s\")'; rm stats.py; mkfifo stats.py",
    )
    patch = await box.patch()
    assert "deleted file mode" in patch and patch.count("diff --git") == 1


async def test_large_files_are_left_out_in_bounded_time(sandbox, workspace):
    box = await sandbox.start(Spec(root=workspace, limits=Limits(disk_bytes=200 << 20)))
    await sh(
        box,
        "head -c 100M /dev/urandom > huge; echo small > z; for i in 1 2 3 4 5 6; do head -c 7M /dev/zero > m$i; done",
    )
    start = time.monotonic()
    patch = await box.patch()
    assert "+small" in patch and "/huge" not in patch and "/m1" in patch and "/m6" not in patch
    assert time.monotonic() - start < 15 and len(patch) < 1 << 20
    await box.close()


async def test_a_writer_in_the_background_does_not_see_the_patch_taken(box):
    await sh(box, "(while true; do date +%N > stats.py; done) & sleep 0.1; echo last > README.md")
    assert "+last" in await box.patch()
    assert (await box.exec(["true"])).reason == "lost"


async def test_the_patch_is_taken_when_disk_and_tmp_are_full(box):
    await sh(box, "echo '# fix' >> stats.py; head -c 60M /dev/zero > fill; head -c 60M /dev/zero > /tmp/fill")
    patch = await box.patch()
    assert "+# fix" in patch
