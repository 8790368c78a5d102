"""SecVulEval (Ahmed et al. 2025, arXiv:2505.19828): C and C++ functions with the statements that a fix changes.

`line_statements` are [line of the file, its text]; where the function begins in its file is told by finding them in it.
Where both versions of a function are there (one commit, file and name), they are a pair.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.functions import Function, Placed, cwes, label_of, language_of, read, told
from crrl.tasks.corpora.rows import Row, text

SPLITS = ("test",)


def convert(row: Row, line: int) -> Function:
    code = text(row, "func_body")
    return Function(
        id=str(line),
        code=code,
        vulnerable=label_of(row, "is_vulnerable"),
        language=language_of(row, "c"),
        cwe=cwes(row.get("cwe") or row.get("cwe_list")),
        lines=_lines(row.get("line_statements") or row.get("changed_statements"), code),
        family=str(row.get("project") or ""),
        provenance=told(row, "project", "commit_id", "filepath", "func_name", "cve"),
    )


def _lines(value: Any, code: str) -> list[int]:
    """Of the function, from 1. Raises ValueError: they are not [line, text]."""
    statements = value if isinstance(value, list) else []
    for statement in statements:
        if not (isinstance(statement, list) and len(statement) == 2 and type(statement[0]) is int):
            raise ValueError("line_statements: [line, text] each are needed")
    places: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(code.split("\n"), 1):
        if line.strip():
            places[line.strip()].append(number)
    votes = Counter(n - place for n, said in statements for place in places.get(str(said).strip(), ()))
    if not votes:
        return []
    offset, _ = votes.most_common(1)[0]
    count = code.removesuffix("\n").count("\n") + 1
    return sorted({n - offset for n, _ in statements if 1 <= n - offset <= count})


def match(placed: list[Placed], file: Path) -> list[Placed]:
    """Pairs: the one vulnerable and the one fixed version of a function of a commit."""
    by_name: dict[tuple[str, ...], list[Function]] = defaultdict(list)
    for _, function in placed:
        by_name[_name(function)].append(function)
    both = {
        function.id: min(f.id for f in found)
        for found in by_name.values()
        if Counter(f.vulnerable for f in found) == {True: 1, False: 1} and found[0].code != found[1].code
        for function in found
    }
    return [(line, replace(f, pair=both[f.id]) if f.id in both else f) for line, f in placed]


def _name(function: Function) -> tuple[str, ...]:
    keys = [function.provenance.get(key, "") for key in ("commit_id", "filepath", "func_name")]
    return tuple(keys) if all(keys) else (function.id,)


CORPUS = Corpus(
    "secvuleval",
    SPLITS,
    partial(read, corpus="secvuleval", convert=convert, splits=SPLITS, match=match),
    "https://github.com/basimbd/SecVulEval",
)
