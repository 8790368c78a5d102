"""Corpora of real bugs: one module each, and one line below.

To add one: a module with `CORPORA`, a list of `corpus.Corpus`. A corpus that is a table of rows is
`corpus.of_rows(name, hub, splits, convert)`, where `convert(row, split)` gives the `Task` or raises ValueError naming
the field (`imageless=`: another one, whose tasks are set up here in place of images); one with a layout of its own has
a `read(path)` that yields its tasks, and a `Problem` in the place of each that is malformed.
"""

from __future__ import annotations

from crrl.errors import UsageError, nearest
from crrl.tasks.corpora import (
    bugsinpy,
    defects4j,
    gitbug_java,
    multi_swe_bench,
    polyglot,
    quixbugs,
    r2e_gym,
    swe_bench,
    swe_bench_live,
    swe_bench_pro,
    swe_gym,
    swe_rebench,
    swe_smith,
)
from crrl.tasks.corpora.corpus import Corpus, Loaded, load

MODULES = (
    swe_gym,
    swe_bench,
    swe_bench_live,
    swe_bench_pro,
    swe_rebench,
    swe_smith,
    r2e_gym,
    multi_swe_bench,
    defects4j,
    gitbug_java,
    bugsinpy,
    quixbugs,
    polyglot,
)
CORPORA: dict[str, Corpus] = {corpus.name: corpus for module in MODULES for corpus in module.CORPORA}


def find(name: str) -> Corpus:
    """Raises UsageError where there is no such corpus."""
    if name not in CORPORA:
        raise UsageError(f"{name} is no corpus.", nearest(name, CORPORA))
    return CORPORA[name]


__all__ = ["CORPORA", "Corpus", "Loaded", "find", "load"]
