"""The copies of a task's test files that runs get: real ones, and ones that are wrong where a seed says.

Which assertions are wrong depends on the seed alone, so that a copy that was calibrated with the known fix can be drawn
again; what stands there instead is drawn anew each time. About half of the tests are wrong in a copy and the others
real: a process that is to pass the second and fail the first must know which is which.
"""

from __future__ import annotations

import posixpath
import random
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from crrl.rewards.decoys import data as json_data
from crrl.rewards.decoys import grammars, python, trees
from crrl.rewards.decoys.sites import Site, rewritten

SIDES = 2
"""Seeds 2n and 2n + 1: what is wrong in one copy is real in the other."""
HELPERS = 1 << 40
"""Seeds from here on: assertions outside of tests are wrong, too."""
FILES, FILE_BYTES = 80, 1 << 20


class Copies:
    """Args:
    files: path -> text of the tests and what stands beside them.
    fail, keep: FAIL_TO_PASS and PASS_TO_PASS.
    """

    def __init__(self, files: Mapping[str, bytes], fail: Iterable[str], keep: Iterable[str]) -> None:
        self.fail, self.keep = "\n".join(fail), "\n".join(keep)
        found = {path: _find(path, data, random.Random(0)) for path, data in files.items()}
        self.files = {path: data for path, data in files.items() if found[path]}
        self.helpers = any(not self._unit(site) for sites in found.values() for site in sites)

    def real(self) -> dict[str, bytes]:
        return {path: _told_apart(path, data) for path, data in self.files.items()}

    def wrong(self, seed: int) -> dict[str, bytes]:
        values = random.Random(secrets.randbits(64))
        sites = {path: _find(path, data, values) for path, data in self.files.items()}
        made = {}
        chosen = self._chosen(sites, seed)
        for path, data in self.files.items():
            edits = [edit for at in chosen.get(path, ()) for edit in sites[path][at].edits]
            made[path] = _told_apart(path, rewritten(data, edits))
        return made

    def _chosen(self, sites: Mapping[str, list[Site]], seed: int) -> dict[str, list[int]]:
        """path -> the numbers of the sites that are wrong: one in each test that is."""
        rng = random.Random(seed // SIDES)
        tests: dict[tuple[str, str], list[int]] = {}
        for path in sorted(sites):
            for at, site in enumerate(sites[path]):
                tests.setdefault((path, self._unit(site)), []).append(at)
        best = {unit: [at for at in of if not sites[unit[0]][at].readable] for unit, of in tests.items()}
        deciding = [unit for unit in tests if unit[1] and unit[1] in self.fail]
        deciding = [unit for unit in deciding if best[unit]] or deciding
        others = [unit for unit in tests if unit[1] and unit not in deciding]
        wrong: dict[str, list[int]] = {}
        for group in (deciding, others):
            rng.shuffle(group)
            half = (len(group) + 1) // 2
            picked = group[:half] if seed % SIDES == 0 else group[half:] or group
            for unit in picked:
                wrong.setdefault(unit[0], []).append(rng.choice(best[unit] or tests[unit]))
        for (path, name), places in tests.items():
            if not name and (seed >= HELPERS or not deciding):
                wrong.setdefault(path, []).extend(places)
        return wrong

    def _unit(self, site: Site) -> str:
        """The test's name, "" for what is no test of the task's."""
        return site.unit if site.unit in self.fail or site.unit in self.keep else ""


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


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1]


LANGUAGES = frozenset({".py", ".json", ".jsonl", *grammars.GRAMMARS})


def _find(path: str, data: bytes, rng: random.Random) -> list[Site]:
    stem, suffix = posixpath.splitext(posixpath.basename(path))
    if suffix in (".json", ".jsonl"):
        return json_data.find(stem, data, rng)
    return python.find(data, rng) if suffix == ".py" else trees.find(suffix, data, rng)


def _told_apart(path: str, data: bytes) -> bytes:
    """With a last line that no other copy has. (JSON has no comments: spaces.)"""
    end = b"" if not data or data.endswith(b"\n") else b"\n"
    if _suffix(path) in (".json", ".jsonl"):
        return data.rstrip() + b" " * (1 + secrets.randbelow(64)) + b"\n"
    mark = b"#" if path.endswith(".py") else b"//"
    return data + end + mark + b" " + secrets.token_hex(12).encode() + b"\n"
