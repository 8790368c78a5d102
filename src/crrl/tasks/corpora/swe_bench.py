"""SWE-bench, Lite, Verified and Multilingual (Jimenez et al. 2023, arXiv:2310.06770): issues of real repositories.

Traps: FAIL_TO_PASS is JSON text but in Multilingual, where it is a list; 676 test ids of Verified are cut short, which
the official grading knows; Verified shares 93 ids with Lite (`crrl tasks split` finds them).
"""

from __future__ import annotations

from functools import partial

from crrl.task import Task
from crrl.tasks.corpora.corpus import Corpus, of_rows
from crrl.tasks.corpora.rows import Row, text
from crrl.tasks.corpora.swe_rows import image_name, imageless, task_of


def convert(row: Row, split: str, corpus: str) -> Task:
    return task_of(row, corpus, split, image=image_name("swebench", text(row, "instance_id"), "_1776_"))


def _corpus(name: str, hub: str, splits: tuple[str, ...], *, images_only: bool = False) -> Corpus:
    without = None if images_only else partial(imageless, corpus=name)
    return of_rows(name, hub, splits, partial(convert, corpus=name), imageless=without)


FULL = _corpus("swe-bench", "SWE-bench/SWE-bench", ("test", "dev", "train"))
LITE = _corpus("swe-bench-lite", "SWE-bench/SWE-bench_Lite", ("test", "dev"))
VERIFIED = _corpus("swe-bench-verified", "SWE-bench/SWE-bench_Verified", ("test",))
MULTILINGUAL = _corpus("swe-bench-multilingual", "SWE-bench/SWE-bench_Multilingual", ("test",), images_only=True)
