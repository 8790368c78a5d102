"""SWE-Gym and SWE-Gym-Lite (Pan et al. 2024, arXiv:2412.21139): training issues of eleven Python repositories.

Rows are SWE-bench's without image, script and parser; the lists of tests are lists.
"""

from __future__ import annotations

from functools import partial

from crrl.task import Task
from crrl.tasks.corpora.corpus import Corpus, of_rows
from crrl.tasks.corpora.rows import Row, text
from crrl.tasks.corpora.swe_rows import image_name, imageless, task_of


def convert(row: Row, split: str, corpus: str) -> Task:
    return task_of(row, corpus, split, image=image_name("xingyaoww", text(row, "instance_id"), "_s_"))


def _corpus(name: str, hub: str) -> Corpus:
    return of_rows(name, hub, ("train",), partial(convert, corpus=name), imageless=partial(imageless, corpus=name))


FULL = _corpus("swe-gym", "SWE-Gym/SWE-Gym")
LITE = _corpus("swe-gym-lite", "SWE-Gym/SWE-Gym-Lite")
