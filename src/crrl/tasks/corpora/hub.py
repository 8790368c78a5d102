"""Any data set on the hub, `ORG/NAME` or `ORG/NAME@REVISION`: rows as SWE-bench has them, or our own tasks.

The revision that was read is recorded in each task (`provenance["hub"]`), whatever the name said.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import msgspec

from crrl.errors import CrrlError
from crrl.task import Task
from crrl.tasks.corpora.corpus import Corpus, of_rows
from crrl.tasks.corpora.rows import Row, text
from crrl.tasks.corpora.swe_rows import image_name, task_of
from crrl.tasks.files import check


def find(name: str) -> Corpus:
    """Asks the hub for the splits and the revision. Raises CrrlError, saying how to bring the file."""
    id, _, revision = name.partition("@")
    import datasets  # type: ignore[import-untyped]
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(id, revision=revision or None).sha or revision
        splits = tuple(datasets.get_dataset_split_names(id, revision=commit))
    except Exception as error:  # whatever the libraries and the network raise, the remedy is the same
        reason = " ".join(str(error).split())[:300]
        remedy = (
            f"Without network: on another machine, hf download {id} --repo-type dataset, and here path=FILE with the "
            "name of the corpus that it is like: crrl tasks list swe-bench path=FILE.parquet"
        )
        raise CrrlError(f"{name} cannot be read from the hub: {reason}", remedy) from error
    return of_rows(id, id, splits, partial(convert, hub=f"{id}@{commit}"), revision=commit)


def convert(row: Row, split: str, *, hub: str) -> Task:
    """Raises ValueError, naming the field."""
    corpus = hub.partition("@")[0]
    if isinstance(row.get("source"), dict) and isinstance(row.get("test"), dict):
        try:
            task = msgspec.convert({key: value for key, value in row.items() if value is not None}, Task)
            check(task, measured=False)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
    else:
        image = next((str(row[key]) for key in ("image", "image_name", "docker_image") if row.get(key)), "")
        image = image or image_name("swebench", text(row, "instance_id"), "_1776_")
        task = task_of(row, corpus, split, image=image)
    return replace(task, corpus=corpus, split=split, provenance=task.provenance | {"hub": hub})
