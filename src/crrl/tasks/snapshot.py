"""A repository as it stands, kept once beside the task file that is made of it; and what sets it up.

The snapshot is a bare git repository with one commit: the files that git tracks, or those of an unpacked folder. Tasks
name it relative to their file, so both can be moved together. Equal trees give equal commits.
"""

from __future__ import annotations

import configparser
import os
import tomllib
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import workspace
from crrl.tasks.environments import pip
from crrl.tasks.task import Command

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
WHO = {
    f"GIT_{role}_{what}": text
    for role in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "crrl"), ("EMAIL", "crrl@localhost"), ("DATE", "2000-01-01T00:00:00Z"))
}
EXTRAS = ("test", "tests", "testing")
FILES = (
    *("requirements.txt", "requirements-test.txt", "requirements_test.txt", "test-requirements.txt"),
    *("test_requirements.txt", "requirements/test.txt", "requirements/tests.txt"),
)


def take(repository: Path, store: Path) -> str:
    """Keep the repository's tree in `store`; its commit. Raises CrrlError."""
    if not repository.is_dir():
        raise CrrlError(f"{repository} is no folder.", "Write the path of a git checkout or of an unpacked sdist.")
    files = tracked(repository) if (repository / ".git").exists() else sorted(_walk(repository))
    if not any(name.endswith(".py") for name in files):
        raise CrrlError(f"{repository} has no Python files.", "For other languages: crrl tasks mine.")
    if not store.exists():
        git(["init", "-q", "--bare", str(store)])
    at = [f"--git-dir={store}", f"--work-tree={repository.resolve()}", "-c", "core.autocrlf=false"]
    names = "\0".join(files).encode()
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


def default_setup(tree: Path) -> list[Command]:
    """What installs a Python project with the packages its tests need: the project editable, its test extras, its
    requirement files; and pytest, for the agent. None where it needs nothing."""
    wanted = [word for name in FILES if (tree / name).is_file() for word in ("-r", name)]
    project = _toml(tree / "pyproject.toml")
    if "project" in project or "build-system" in project or (tree / "setup.py").is_file():
        extras = [
            name
            for name in EXTRAS
            if name in {**project.get("project", {}).get("optional-dependencies", {}), **_cfg(tree)}
        ]
        wanted += ["-e", f".[{','.join(extras)}]" if extras else "."]
    groups = project.get("dependency-groups", {})
    wanted += [word for name in EXTRAS for word in groups.get(name, []) if isinstance(word, str)]
    return pip("pytest", *wanted) if wanted else []


def _toml(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CrrlError(f"{path.name}: {error}", "Correct it.") from None


def _cfg(tree: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(tree / "setup.cfg")
    except configparser.Error:
        return {}
    return dict(parser["options.extras_require"]) if parser.has_section("options.extras_require") else {}
