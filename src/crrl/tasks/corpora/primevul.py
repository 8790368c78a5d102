"""PrimeVul (Ding et al. 2024, arXiv:2403.18624): C and C++ functions with audited labels, alone and in pairs.

Two layouts: the authors' JSON Lines (`target`, `func_hash`) and the hub's copy (`is_vulnerable`, `hash`). Only files of
pairs (`..._paired`) give pairs, matched by hash or commit and the function's name, never by order: neighbours are
partners only until somebody shuffles. Label correctness 86% by another group's audit (CleanVul, arXiv:2411.17274).
Trap: others report that a copy on the hub has its labels inverted. A file of single functions most of which are
vulnerable is refused; for pairs nothing can tell, so compare one with the authors' file.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from crrl.errors import CrrlError
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.functions import Function, Placed, code_of, cwes, label_of, language_of, read, told
from crrl.tasks.corpora.rows import Row

SPLITS = ("test", "train", "valid")
LEAST_ALIKE = 0.3  # two versions of one function share at least this
ENOUGH = 100  # functions, from which their shares tell something
_NAME = re.compile(r"([A-Za-z_~][\w:~]*)\s*\(")


def convert(row: Row, line: int) -> Function:
    code = code_of(row)
    return Function(
        id=str(line) if row.get("idx") is None else str(row["idx"]),
        code=code,
        vulnerable=label_of(row, "target", "is_vulnerable"),
        language=language_of(row, "c"),
        cwe=cwes(row.get("cwe")),
        family=str(row.get("project") or ""),
        provenance={
            **told(row, "project", "commit_id", "cve", "file_name"),
            "hash": str(row.get("func_hash") or row.get("hash") or ""),
        },
    )


def match(placed: list[Placed], file: Path) -> list[Placed]:
    """Raises CrrlError: the labels are inverted."""
    if "paired" not in re.split(r"[._-]", file.name.lower()):
        vulnerable = sum(function.vulnerable for _, function in placed)
        if len(placed) >= ENOUGH and vulnerable > len(placed) / 2:
            raise CrrlError(
                f"{file}: {vulnerable} of {len(placed)} functions are labelled vulnerable; of PrimeVul's, one in "
                "thirty is: its labels are inverted.",
                "Take the authors' own files: https://github.com/DLVulDet/PrimeVul",
            )
        return placed
    partner = dict(_matched(placed))
    return [(line, replace(function, pair=partner.get(line, f"line-{line}"))) for line, function in placed]


def _matched(placed: list[Placed]) -> Iterator[tuple[int, str]]:
    """(line, name of its pair)."""
    left = placed
    for key in (_hash, _commit):
        groups: dict[tuple[str, ...], list[Placed]] = defaultdict(list)
        for line, function in left:
            groups[key(function)].append((line, function))
        found = {
            line: f"line-{min(pair)}"
            for name, group in groups.items()
            if name
            for pair in _pairs(group)
            for line in pair
        }
        yield from found.items()
        left = [(line, function) for line, function in left if line not in found]


def _hash(function: Function) -> tuple[str, ...]:
    return (function.provenance["hash"],) if function.provenance["hash"] else ()


def _commit(function: Function) -> tuple[str, ...]:
    commit = function.provenance.get("commit_id", "")
    return (function.provenance.get("project", ""), commit) if commit else ()


def _pairs(group: Iterable[Placed]) -> Iterator[tuple[int, int]]:
    """The most alike first: functions of one name before others."""
    members = list(group)
    alike = sorted(
        (
            (_name(old.code) != _name(new.code), -_likeness(old.code, new.code), line, other)
            for line, old in members
            if old.vulnerable
            for other, new in members
            if not new.vulnerable
        )
    )
    used: set[int] = set()
    for _, likeness, line, other in alike:
        if -likeness >= LEAST_ALIKE and not used & {line, other}:
            used |= {line, other}
            yield line, other


def _name(code: str) -> str:
    found = _NAME.search(code)
    return found[1] if found else ""


def _likeness(old: str, new: str) -> float:
    return difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False).ratio()


CORPUS = Corpus(
    "primevul",
    SPLITS,
    partial(read, corpus="primevul", convert=convert, splits=SPLITS, match=match),
    "https://github.com/DLVulDet/PrimeVul",
    from_documentation=True,
)
