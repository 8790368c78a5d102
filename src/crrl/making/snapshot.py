"""A repository as it stands, kept once beside the task file that is made of it.

The snapshot is a bare git repository with one commit: the files that git tracks, or those of an unpacked folder. Tasks
name it relative to their file, so both can be moved together. Equal trees give equal commits.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import workspace

LEFT_OUT = {
    ".git",
    ".hg",
    ".venv",
    "venv",
    ".tox",
    ".nox",
    "node_modules",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
}
LEFT_OUT |= {".ruff_cache", ".hypothesis", ".eggs"}
BUILT = re.compile(
    r"(?:^|/)(?:build/(?:lib|bdist|temp)[^/]*/|[^/]+\.egg/|__pycache__/)|\.py[co]$"
    r"|(?:^|/)dist/[^/]+\.(?:whl|egg|tar\.gz|tar\.bz2|zip)$"
)
"""What packaging and running a Python project leave in it, tracked or not: copies of its code as it was."""
AS_IT_IS = "* -text -eol -ident -filter -working-tree-encoding\n"
"""Overrules the repository's own .gitattributes: files are kept byte for byte."""
WHO = {
    f"GIT_{role}_{what}": text
    for role in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "crrl"), ("EMAIL", "crrl@localhost"), ("DATE", "2000-01-01T00:00:00Z"))
}


def take(repository: Path, store: Path, suffixes: tuple[str, ...] = (".py",)) -> str:
    """Keep the repository's tree in `store`; its commit. Raises CrrlError."""
    if not repository.is_dir():
        raise CrrlError(f"{repository} is no folder.", "Write the path of a git checkout or of an unpacked sdist.")
    files = tracked(repository) if (repository / ".git").exists() else sorted(_walk(repository))
    if ".py" in suffixes:
        files = [name for name in files if not BUILT.search(name)]
    if not any(name.endswith(suffixes) for name in files):
        raise CrrlError(f"{repository} has no {' or '.join(suffixes)} files.", "Is it the right folder, and language=?")
    if not store.exists():
        git(["init", "-q", "--bare", str(store)])
    (store / "info").mkdir(exist_ok=True)
    (store / "info/attributes").write_text(AS_IT_IS)
    at = [f"--git-dir={store}", f"--work-tree={repository.resolve()}", "-c", "core.autocrlf=false"]
    names = "\0".join(files).encode("utf-8", "surrogateescape")
    git([*at, "read-tree", "--empty"])
    git([*at, "add", "-f", "--pathspec-from-file=-", "--pathspec-file-nul"], names, GIT_LITERAL_PATHSPECS="1")
    tree = git([*at, "write-tree"]).decode().strip()
    commit = git([*at, "commit-tree", "-m", "snapshot", tree]).decode().strip()
    git([*at, "update-ref", "refs/heads/main", commit])
    return commit


def tracked(repository: Path) -> list[str]:
    """What git tracks, or would: without what it ignores."""
    listed = git(["-c", "safe.directory=*", "-C", str(repository), "ls-files", "-z", "-c", "-o", "--exclude-standard"])
    names = [name for name in listed.decode("utf-8", "surrogateescape").split("\0") if name]
    return [
        name for name in dict.fromkeys(names) if os.path.lexists(repository / name) and not (repository / name).is_dir()
    ]


def _walk(root: Path) -> list[str]:
    found = []
    for here, folders, names in os.walk(root):
        folders[:] = [folder for folder in folders if folder not in LEFT_OUT]
        found += [os.path.relpath(os.path.join(here, name), root) for name in names if not name.endswith(".pyc")]
    return found


def git(arguments: list[str], stdin: bytes = b"", **env: str) -> bytes:
    """`workspace.git` with an author. Raises CrrlError with what git said."""
    return workspace.git(arguments, stdin, remedy="Is it a whole git repository?", **WHO, **env)
