"""Corpora of labelled functions: records in, functions to classify out, both versions of a pair together.

A corpus says what a record means (`Convert`); which function a record pairs with stands in it, in whatever order the
records come. What is wrong is named by file and line, and the rest load (invariant 11): a record without its label, a
pair without its partner, a function that is too large or no text.

The corpus `functions` reads any JSON Lines (or parquet) file with a function, its label and, where known, its CWE.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from crrl.label import Label
from crrl.task import Task
from crrl.tasks.classification import LANGUAGES, SUFFIXES, function_task, pair_tasks
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.rows import Row, files_of, records, split_of, text
from crrl.tasks.files import Problem

TRUE = ("1", "true", "yes", "vulnerable")
FALSE = ("0", "false", "no", "not vulnerable", "safe", "benign", "fixed")
CODE = ("func", "function", "code", "func_body", "source")
LABELS = ("label", "target", "is_vulnerable", "vulnerable", "vul")


@dataclass(frozen=True)
class Function:
    """A record.

    Args:
        id: its own, unique in its file. pair: the same for both versions of a function; "": it has no partner.
        lines: that the fix changes; None: they are told by its partner.
    """

    id: str
    code: str
    vulnerable: bool
    language: str
    cwe: list[str] = field(default_factory=list)
    pair: str = ""
    lines: list[int] | None = None
    family: str = ""
    created_at: str = ""
    provenance: dict[str, str] = field(default_factory=dict)


Convert = Callable[[Row, int], Function]
"""A record and its line. Raises ValueError, naming the field."""
Placed = tuple[int, Function]


def read(
    path: Path,
    corpus: str,
    convert: Convert,
    splits: tuple[str, ...],
    match: Callable[[list[Placed], Path], list[Placed]] = lambda placed, file: placed,
) -> Iterator[Task | Problem]:
    """The tasks of every record below `path`. `match`: names the pairs of a file whose records do not say them."""
    for file in files_of(path):
        placed: list[Placed] = []
        for line, row in records(file):
            if isinstance(row, Problem):
                yield row
                continue
            try:
                placed.append((line, convert(row, line)))
            except (ValueError, RecursionError) as error:
                yield Problem(file, line, str(error))
        yield from tasks_of(match(placed, file), corpus, split_of(file.name, splits), file)


def tasks_of(placed: Iterable[Placed], corpus: str, split: str, file: Path) -> Iterator[Task | Problem]:
    """In the order of the records; a pair where its first version stands."""
    pairs: dict[str, list[Placed]] = {}
    order: list[list[Placed]] = []
    for line, function in placed:
        members = pairs.setdefault(function.pair, []) if function.pair else []
        if not members:
            order.append(members)
        members.append((line, function))
    for members in order:
        first = members[0][1]
        if not first.pair:
            yield from _made(partial(_alone, first, corpus, split, file.stem), file, members)
        elif Counter(function.vulnerable for _, function in members) != {True: 1, False: 1}:
            yield from (Problem(file, line, _no_pair(members, function)) for line, function in members)
        else:
            before, after = sorted((function for _, function in members), key=lambda f: not f.vulnerable)
            yield from _made(partial(_both, before, after, corpus, split, file.stem), file, members)


def _made(make: Callable[[], list[Task]], file: Path, members: list[Placed]) -> Iterator[Task | Problem]:
    try:
        yield from make()
    except ValueError as error:
        yield Problem(file, members[0][0], str(error))


def _alone(function: Function, corpus: str, split: str, stem: str) -> list[Task]:
    label = Label(function.vulnerable, function.cwe, function.lines or [])
    return [
        function_task(
            *(f"{corpus}-{stem}-{function.id}", corpus, split, function.code, function.language, label),
            family=function.family,
            created_at=function.created_at,
            provenance=function.provenance,
        )
    ]


def _both(before: Function, after: Function, corpus: str, split: str, stem: str) -> list[Task]:
    more = {"family": before.family, "created_at": before.created_at, "provenance": before.provenance}
    cwe = before.cwe or after.cwe
    pair = f"{corpus}-{stem}-{before.pair}"
    return pair_tasks(pair, corpus, split, before.code, after.code, before.language, cwe, **more)


def _no_pair(members: list[Placed], function: Function) -> str:
    others = [line for line, other in members if other is not function]
    if not others:
        return f"pair {function.pair}: its partner, {'fixed' if function.vulnerable else 'vulnerable'}, is missing"
    return f"pair {function.pair}: one vulnerable and one fixed function are needed; see line {others[0]}, too"


# Fields. Each raises ValueError with the field's name ----------------------------------------------------------------


def label_of(row: Row, *names: str) -> bool:
    key = next((name for name in names or LABELS if row.get(name) is not None), None)
    if key is None:
        raise ValueError(f"{' or '.join(names or LABELS)}: missing: the record has no label")
    word = str(row[key]).strip().lower().removesuffix(".0")
    if word not in TRUE + FALSE:
        raise ValueError(f"{key}: {word[:60]!r} is no label: 1 or 0, true or false")
    return word in TRUE


def code_of(row: Row) -> str:
    key = next((name for name in CODE if row.get(name) is not None), "func")
    return text(row, key)


def cwes(value: Any) -> list[str]:
    """Whatever the corpus writes: `CWE-089`, a list, several in one text. What is no number (`NVD-CWE-noinfo`) is
    left out."""
    words = map(str, value) if isinstance(value, list | tuple) else [str(value or "")]
    found = [f"CWE-{number}" for word in words for number in re.findall(r"CWE-0*([1-9]\d*)", word, re.IGNORECASE)]
    return list(dict.fromkeys(found))


def language_of(row: Row, default: str) -> str:
    """Said, or told by the name of a file."""
    said = str(row.get("language") or "").lower().replace("c++", "cpp")
    if said in SUFFIXES:
        return said
    for key in ("file_name", "filename", "filepath", "path"):
        suffix = str(row.get(key) or "").rpartition(".")[2].lower()
        if suffix in LANGUAGES:
            return LANGUAGES[suffix]
    return default


def told(row: Row, *keys: str) -> dict[str, str]:
    """Provenance: what else the record says."""
    return {key: str(row[key]) for key in keys if row.get(key) not in (None, "", [], "None")}


def _lines(row: Row) -> list[int] | None:
    value = row.get("lines")
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(line) is int and line > 0 for line in value):
        raise ValueError("lines: numbers of lines of the function, from 1, are needed")
    return sorted(set(value))


def _any(row: Row, line: int) -> Function:
    code = code_of(row)
    pair = row.get("pair")
    return Function(
        id=str(row.get("id") or line),
        code=code,
        vulnerable=label_of(row),
        language=language_of(row, "text"),
        cwe=cwes(row.get("cwe")),
        pair="" if pair is None else str(pair),
        lines=_lines(row),
        family=str(row.get("project") or ""),
        created_at=str(row.get("created_at") or ""),
        provenance=told(row, "project", "commit_id", "cve"),
    )


SPLITS = ("train", "valid", "test")
CORPUS = Corpus(
    "functions",
    SPLITS,
    partial(read, corpus="functions", convert=_any, splits=SPLITS),
    "https://github.com/OWNER/NAME (records of your own)",
)
