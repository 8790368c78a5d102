"""Corpora of real bugs: a module each, and one line in `CORPORA`.

To add one: a module with a `corpus.Corpus`. A corpus that is a table of rows is
`corpus.of_rows(name, hub, splits, convert)`, where `convert(row, split)` gives the `Task` or raises ValueError naming
the field (`imageless=`: another one, whose tasks are set up here in place of images); one with a layout of its own has
a `read(path)` that yields its tasks, and a `Problem` in place of each that is malformed. The line is here, or in a
distribution of your own (docs/plugins.md).
"""

from __future__ import annotations

import re
from pathlib import Path

from crrl import registry
from crrl.tasks.corpora.corpus import Corpus, Loaded, load

HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
CORPORA = {
    "swe-gym": "crrl.tasks.corpora.swe_gym:FULL",
    "swe-gym-lite": "crrl.tasks.corpora.swe_gym:LITE",
    "swe-bench": "crrl.tasks.corpora.swe_bench:FULL",
    "swe-bench-lite": "crrl.tasks.corpora.swe_bench:LITE",
    "swe-bench-verified": "crrl.tasks.corpora.swe_bench:VERIFIED",
    "swe-bench-multilingual": "crrl.tasks.corpora.swe_bench:MULTILINGUAL",
    "swe-bench-live": "crrl.tasks.corpora.swe_bench_live:CORPUS",
    "swe-bench-pro": "crrl.tasks.corpora.swe_bench_pro:CORPUS",
    "swe-rebench": "crrl.tasks.corpora.swe_rebench:CORPUS",
    "swe-smith": "crrl.tasks.corpora.swe_smith:CORPUS",
    "r2e-gym": "crrl.tasks.corpora.r2e_gym:CORPUS",
    "multi-swe-bench": "crrl.tasks.corpora.multi_swe_bench:CORPUS",
    "defects4j": "crrl.tasks.corpora.defects4j:CORPUS",
    "gitbug-java": "crrl.tasks.corpora.gitbug_java:CORPUS",
    "bugsinpy": "crrl.tasks.corpora.bugsinpy:CORPUS",
    "quixbugs": "crrl.tasks.corpora.quixbugs:CORPUS",
    "polyglot": "crrl.tasks.corpora.polyglot:CORPUS",
    "sven": "crrl.tasks.corpora.sven:CORPUS",
    "secvuleval": "crrl.tasks.corpora.secvuleval:CORPUS",
    "primevul": "crrl.tasks.corpora.primevul:CORPUS",
    "functions": "crrl.tasks.corpora.functions:CORPUS",
}


def find(name: str) -> Corpus:
    """One of these, or any data set on the hub (`ORG/NAME`, `ORG/NAME@REVISION`).

    Raises UsageError where there is no such corpus, CrrlError where one that is plugged in is none, or the hub cannot
    be read."""
    if HUB.fullmatch(name) and not Path(name).exists():
        from crrl.tasks.corpora import hub

        return hub.find(name)
    part = registry.find("crrl.corpora", name)
    corpus = part.load()
    if not isinstance(corpus, Corpus) or corpus.name != name:
        raise part.broken(f"is no Corpus of that name, but {corpus!r:.200}.")
    return corpus


__all__ = ["CORPORA", "Corpus", "Loaded", "find", "load"]
