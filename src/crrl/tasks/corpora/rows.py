"""Records of a corpus, from the hub or from files: parquet, json, jsonl, or a folder of them.

A malformed record is named by file and line (parquet: row), and the rest load (invariant 11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crrl import python_syntax
from crrl.errors import CrrlError
from crrl.task import Task
from crrl.tasks.diffs import touched
from crrl.tasks.files import Problem

SUFFIXES = (".parquet", ".json", ".jsonl")
Row = dict[str, Any]
Convert = Callable[[Row, str], Task]
"""A row and the split it belongs to -> its task. Raises ValueError, naming the field."""


def read_files(path: Path, convert: Convert, splits: tuple[str, ...]) -> Iterator[Task | Problem]:
    """Tasks of every record below `path`. The split is in the file's name, else the first of `splits`."""
    for file in files_of(path):
        split = split_of(file.name, splits)
        for line, row in records(file):
            yield row if isinstance(row, Problem) else _converted(row, convert, split, file, line)


def files_of(path: Path) -> list[Path]:
    """`path`, or the files of records below it. Raises CrrlError: there is none."""
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not files:
        raise CrrlError(f"{path} has no {', '.join(SUFFIXES)} file.", "Write path=FILE, or a folder with such files.")
    return files


def split_of(name: str, splits: tuple[str, ...]) -> str:
    words = re.split(r"[._-]", name.lower())
    return next((s for s in splits if s in words), splits[0])


def read_hub(hub: str, convert: Convert, split: str, revision: str | None = None) -> Iterator[Task | Problem]:
    """Tasks of one split of a data set on the hub. Raises CrrlError where there is no network."""
    import datasets  # type: ignore[import-untyped]

    try:
        rows = datasets.load_dataset(hub, split=split, revision=revision)
    except Exception as error:  # whatever the library and the network raise, the remedy is the same
        reason = str(error).splitlines()[0][:300]
        remedy = "Where there is no network: path=FILE, a parquet, json or jsonl file of it."
        raise CrrlError(f"{hub} ({split}) cannot be loaded: {reason}", remedy) from error
    for number, row in enumerate(rows, 1):
        yield _converted(dict(row), convert, split, Path(hub), number)


def _converted(row: Row, convert: Convert, split: str, file: Path, line: int) -> Task | Problem:
    try:
        return convert(row, split)
    except (ValueError, RecursionError) as error:
        return Problem(file, line, f"{name_of(row)}{error}")


def name_of(row: Row) -> str:
    return f"{row['instance_id']}: " if isinstance(row.get("instance_id"), str) else ""


def records(file: Path) -> Iterator[tuple[int, Row | Problem]]:
    """(line, record) of a file. Raises CrrlError: it cannot be read."""
    try:
        if file.suffix == ".parquet":
            yield from _parquet(file)
        else:
            yield from _json(file)
    except OSError as error:
        raise CrrlError(f"{file}: {error.strerror or error}.", "Write path=FILE_OR_FOLDER.") from None


def _parquet(file: Path) -> Iterator[tuple[int, Row | Problem]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as error:
        yield number + 1, Problem(file, number + 1, f"not readable as parquet: {error}")


def _json(file: Path) -> Iterator[tuple[int, Row | Problem]]:
    """A document that is a list of records, or one record per line, whatever the file's name."""
    data = file.read_bytes()
    if file.suffix == ".json":
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None  # one record per line: see below
        if isinstance(document, list):
            for number, row in enumerate(document, 1):
                yield number, row if isinstance(row, dict) else Problem(file, number, "not a JSON object")
            return
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, Problem(file, number, f"not JSON: {error}")
            continue
        yield number, row if isinstance(row, dict) else Problem(file, number, "not a JSON object")


# Fields. Each raises ValueError with the field's name ----------------------------------------------------------------


def text(row: Row, key: str, default: str | None = None) -> str:
    """A text; `default` where it is absent or null."""
    value = row.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{key}: {'missing' if value is None else f'a text, not {type(value).__name__}'}")
    if not value.strip() and default is None:
        raise ValueError(f"{key}: empty")
    return value


def names(row: Row, key: str) -> list[str]:
    """A list of texts, however the corpus writes it: a list, its JSON, or its Python literal."""
    value = row.get(key)
    if isinstance(value, str):
        value = _literal(key, value)
    if value is None:
        raise ValueError(f"{key}: missing")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key}: a list of texts is needed")
    return list(dict.fromkeys(value))


def failing(row: Row, key: str) -> list[str]:
    """FAIL_TO_PASS, whatever the corpus calls it: a task needs at least one."""
    if not (tests := names(row, key)):
        raise ValueError(f"{key}: empty: nothing would say that the bug is repaired")
    return tests


def mapping(row: Row, key: str) -> dict[str, Any]:
    """An object, or its JSON."""
    value = row.get(key)
    if isinstance(value, str):
        value = _literal(key, value)
    if not isinstance(value, dict):
        raise ValueError(f"{key}: {'missing' if value is None else 'an object is needed'}")
    return value


def _literal(key: str, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        return python_syntax.literal(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{key}: neither JSON nor a Python literal: {value[:60]!r}") from None


def diff(row: Row, key: str, default: str | None = None) -> str:
    """A unified diff. An empty one only where a default allows it."""
    value = text(row, key, default)
    try:
        touched(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    return value
