"""The copies of a task's test files that runs get: real ones, and ones of which some parts are wrong.

A part is a test, or a file of data, that can be made wrong without the others: which it is in a copy is drawn for that
copy. Which of its assertions is made wrong depends on the task's seed alone, so that what the known fix fails there can
be measured once; what stands there instead is drawn anew each time.
"""

from __future__ import annotations

import os
import posixpath
import random
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from crrl.rewards.decoys import data as json_data
from crrl.rewards.decoys import grammars, python, trees
from crrl.rewards.decoys.sites import Site, rewritten

HELPERS = ""
"""The part that all assertions outside of tests are."""
FILES, FILE_BYTES = 80, 1 << 20


class Copies:
    """Args:
    files: path -> text of the tests and what stands beside them.
    expected: ids of the task's tests.

    `parts`: what can be made wrong. `readable`: those of them whose right answers still stand in the tests.
    """

    def __init__(self, files: Mapping[str, bytes], expected: Iterable[str]) -> None:
        found = {path: _find(path, data, random.Random(0)) for path, data in files.items()}
        self.files = {path: data for path, data in files.items() if found[path]}
        sites = [site for of in found.values() for site in of]
        ids = list(expected)
        said = "\n".join(ids)
        self._units = {site.unit for site in sites if site.unit and site.unit in said}
        self.readable = self._units - {site.unit for site in sites if not site.readable}
        self._data = {site.unit for path, of in found.items() if _suffix(path) in DATA for site in of}
        self._owners = {id: self._owner(id) for id in ids}
        self.parts = {owner for owner in self._owners.values() if owner}
        if any(self._part(site) == HELPERS for site in sites):
            self.parts.add(HELPERS)

    def part_of(self, id: str) -> str | None:
        """What decides whether this test is wrong, besides helpers; None: nothing."""
        return self._owners.get(id)

    def real(self) -> dict[str, bytes]:
        return {path: _told_apart(path, data) for path, data in self.files.items()}

    def wrong(self, seed: int, parts: Collection[str]) -> dict[str, bytes]:
        values = random.Random(secrets.randbits(64))
        made = {}
        for path, data in self.files.items():
            edits = [edit for site in self.chosen(path, values, seed, parts) for edit in site.edits]
            made[path] = _told_apart(path, rewritten(data, edits))
        return made

    def chosen(self, path: str, values: random.Random, seed: int, parts: Collection[str]) -> list[Site]:
        """The sites of a file that are wrong: of each part one, in each of its tests of that name; all of helpers."""
        found: list[Site] = []
        tests: dict[tuple[str, int], list[Site]] = {}
        for site in _find(path, self.files[path], values):
            part = self._part(site)
            if part == HELPERS and part in parts:
                found.append(site)
            elif part and part in parts:
                tests.setdefault((part, site.at), []).append(site)
        for (part, at), sites in sorted(tests.items()):
            best = [site for site in sites if not site.readable] or sites
            place = f"{seed} {path} {part} {at}".encode("utf-8", "surrogateescape")  # a path may be no text
            found.append(random.Random(place).choice(best))
        return found

    def _owner(self, id: str) -> str | None:
        """The function or title that the id ends with, else the longest that it contains; data that it names, too. One
        whose right answer is not left to be read, where there is one."""
        name = id.partition("[")[0].rpartition("::")[2]
        said = [id.partition("::")[2], name, name.partition("/")[0], name.partition("(")[0]]  # Go's subtests; Java
        tests = self._units - self._data
        own = [word for word in said if word in tests][:1]
        own = own or [unit for unit in tests if unit in name] or [unit for unit in tests if unit in id]
        names = [*own, *(unit for unit in self._data if unit in self._units and unit in id)]
        return max(names, key=lambda unit: (unit not in self.readable, len(unit), unit), default=None)

    def _part(self, site: Site) -> str | None:
        """None: of a test that something better decides."""
        if site.unit in self._units:
            return site.unit if site.unit in self.parts else None
        return HELPERS


def tree_files(
    tests: Mapping[str, bytes], lower: Path | None, texts: Mapping[str, str], folders: Iterable[str]
) -> dict[str, bytes]:
    """`tests`, and the Python files beside them: of the folders of tests, and each conftest.py above them.

    Args:
        lower, texts: the checkout: a folder, or path -> text.
    """
    found = {path: data for path, data in tests.items() if _suffix(path) in LANGUAGES}
    above = {posixpath.join(part, "conftest.py") for path in tests for part in _parents(path)}

    def take(path: str, data: bytes) -> None:
        if path not in found and len(found) < FILES and len(data) <= FILE_BYTES:
            found[path] = data

    for path, text in texts.items():
        if path.endswith(".py") and (path in above or any(path.startswith(f"{folder}/") for folder in folders)):
            take(path, text.encode())
    if lower is not None:
        candidates = [lower / path for path in sorted(above)]
        for folder in sorted(folders):
            candidates += sorted((lower / folder).rglob("*.py"))
        for file in candidates:
            if file.is_file() and not file.is_symlink() and file.resolve().is_relative_to(lower.resolve()):
                take(file.relative_to(lower).as_posix(), file.read_bytes())
    return found


def protected_tests(covers: Callable[[str], bool], lower: Path, expected: Iterable[str]) -> set[str]:
    """The protected files of the checkout that expected tests stand in: an id names its class or file. A suite that is
    in the tree from the start (GitBug-Java, Defects4J) is not put back, and would have no copies."""
    said = "\n".join(expected)
    found = set()
    for folder, _, names in os.walk(lower):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), lower)
            stem, suffix = posixpath.splitext(name)
            if suffix in TESTS and stem in said and covers(path):
                found.add(path)
    return found


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1]


TESTS = frozenset({".py", *grammars.GRAMMARS})
DATA = frozenset({".json", ".jsonl"})
LANGUAGES = TESTS | DATA


def _find(path: str, data: bytes, rng: random.Random) -> list[Site]:
    stem, suffix = posixpath.splitext(posixpath.basename(path))
    if suffix in DATA:
        return json_data.find(stem, data, rng)
    return python.find(data, rng) if suffix == ".py" else trees.find(suffix, data, rng)


def _told_apart(path: str, data: bytes) -> bytes:
    """With a last line that no other copy has. (JSON has no comments: spaces.)"""
    end = b"" if not data or data.endswith(b"\n") else b"\n"
    if _suffix(path) in DATA:
        return data.rstrip() + b" " * (1 + secrets.randbelow(64)) + b"\n"
    mark = b"#" if path.endswith(".py") else b"//"
    return data + end + mark + b" " + secrets.token_hex(12).encode() + b"\n"
