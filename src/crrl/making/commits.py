"""A repository's history, as far as `mine` needs it: commits, what each changed, and as what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crrl.errors import CrrlError
from crrl.making.snapshot import git

TESTS = re.compile(
    r"(^|/)(tests?|testing|__tests__|spec)/|(^|/)conftest\.py$"
    r"|(^|/)(test_[^/]*|tests?\.\w+|[^/]*_test\.\w+|[^/]*Tests?\.java|[^/]*\.(test|spec)\.\w+)$"
)
SETTINGS = (
    *("safe.directory=*", "core.quotePath=false", "log.showSignature=false", "i18n.logOutputEncoding=UTF-8"),
    "diff.relative=false",
)
DIFF = (
    *("diff", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--text", "--full-index"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--diff-algorithm=default", "-O/dev/null", "--submodule=short"),
)
"""Both hold whatever the repository's own configuration and attributes say."""
REGULAR = ("100644", "100755")


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str
    date: str
    message: str


@dataclass(frozen=True)
class Changed:
    """A file that a commit changed; a renamed one is a deleted and a new one. `plain`: no symlink, no submodule."""

    path: str
    there: bool  # after the commit
    plain: bool

    @property
    def is_test(self) -> bool:
        return TESTS.search(self.path) is not None


class History:
    """Of a git repository. Raises CrrlError where it is none."""

    def __init__(self, repository: Path) -> None:
        self._at = [*(word for setting in SETTINGS for word in ("-c", setting)), "-C", str(repository)]
        if not repository.is_dir():
            raise CrrlError(f"{repository} is no folder.", "Write the path of a git clone.")
        prefix = git([*self._at, "rev-parse", "--show-prefix"]).decode("utf-8", "replace").strip()
        if prefix:
            root = git([*self._at, "rev-parse", "--show-toplevel"]).decode("utf-8", "replace").strip()
            raise CrrlError(f"{repository} is a folder in a repository.", f"Write the repository's own: {root}")
        named = git([*self._at, "rev-list", "-n1", "--all"])
        if not named.strip():
            raise CrrlError(f"{repository} has no commit.", "Is it the right folder?")
        self.head = git([*self._at, "rev-parse", "HEAD"]).decode().strip()
        self.shallow = git([*self._at, "rev-parse", "--is-shallow-repository"]).strip() == b"true"

    def files(self) -> list[str]:
        """Those at the top of its newest tree, and folders."""
        return git([*self._at, "ls-tree", "--name-only", "-z", "HEAD"]).decode("utf-8", "replace").split("\0")

    def commits(self, since: str) -> list[Commit]:
        """With one parent, newest first: of a merge the commits that it brought are here."""
        dated = [f"--since={since}T00:00:00Z"] if since else []
        log = git([*self._at, "log", "--min-parents=1", "--max-parents=1", "-z", "--format=%H%n%P%n%cI%n%B", *dated])
        found = []
        for entry in log.decode("utf-8", "replace").split("\0"):
            if entry.strip():
                id, parent, date, message = entry.split("\n", 3)
                found.append(Commit(id, parent, date, message.strip()))
        return found

    def merges(self, since: str) -> int:
        dated = [f"--since={since}T00:00:00Z"] if since else []
        return int(git([*self._at, "rev-list", "--count", "--min-parents=2", "HEAD", *dated]))

    def changed(self, commit: Commit) -> Iterator[Changed]:
        listed = git([*self._at, *DIFF, "--raw", "-z", commit.parent, commit.id]).decode("utf-8", "surrogateescape")
        words = listed.split("\0")
        for meta, path in zip(words[::2], words[1::2], strict=False):
            old, new, *_ = meta.removeprefix(":").split(" ")
            plain = all(mode in (*REGULAR, "000000") for mode in (old, new))
            yield Changed(path, new != "000000", plain)

    def diff(self, commit: Commit, paths: list[str]) -> str | None:
        """Of these files, with as many lines around each change as are UTF-8; None where the change is not."""
        for context in (3, 2, 1):
            between = [f"-U{context}", commit.parent, commit.id, "--", *paths]
            made = git([*self._at, *DIFF, *between], GIT_LITERAL_PATHSPECS="1")
            try:
                text = made.decode()
            except UnicodeDecodeError:
                continue
            return None if "\0" in text else text
        return None
