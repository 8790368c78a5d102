"""SVEN (He & Vechev 2023, arXiv:2302.05319): security fixes of functions in Python and C, nine CWEs, each row a pair.

Label correctness 94% by another group's audit (CleanVul, arXiv:2411.17274): no honest score is much above that. From a
clone (`data_train_val/`) or its files. The lines that a fix changes are told by the two versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crrl.task import Task
from crrl.tasks.classification import pair_tasks
from crrl.tasks.corpora.corpus import Corpus
from crrl.tasks.corpora.functions import cwes, language_of, told
from crrl.tasks.corpora.rows import Row, files_of, records, text
from crrl.tasks.files import Problem

SPLITS = ("train", "val")


def read(path: Path) -> Iterator[Task | Problem]:
    for file in files_of(path):
        split = "val" if file.parent.name == "val" else "train"
        for line, row in records(file):
            if isinstance(row, Problem):
                yield row
                continue
            try:
                yield from _pair(row, f"{split}-{file.stem}-{row.get('row', line)}", split)
            except ValueError as error:
                yield Problem(file, line, str(error))


def _pair(row: Row, id: str, split: str) -> list[Task]:
    if not (cwe := cwes(row.get("vul_type"))):
        raise ValueError("vul_type: missing: the record has no label")
    return pair_tasks(
        f"sven-{id}",
        "sven",
        split,
        text(row, "func_src_before"),
        text(row, "func_src_after"),
        language_of(row, "c"),
        cwe,
        family=cwe[0],
        provenance=told(row, "commit_link", "file_name", "func_name"),
    )


CORPUS = Corpus("sven", SPLITS, read, "https://github.com/eth-sri/sven")
