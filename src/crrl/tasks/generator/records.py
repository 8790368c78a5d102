"""The judge's verdicts on generated tasks, kept with the package, by content.

Generated tasks pass the same check as others (`admission/admission.py`) on their cases while they are made; for
the seeds in `recorded/` the judge itself has admitted them, and a test re-derives a sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from crrl.task import Task
from crrl.tasks.generator.generate import VERSION


def fingerprint(task: Task) -> str:
    """Of everything that decides what a judge says of it: 8 hex digits. Fields left at their default do not count, so
    that a new one changes no task that does without it."""
    body = msgspec.json.encode(_set([task.id, task.source, task.test, task.solution]), order="sorted")
    return hashlib.blake2b(body, digest_size=4).hexdigest()


def _set(value: Any) -> Any:
    if isinstance(value, list):
        return [_set(inner) for inner in value]
    if not is_dataclass(value):
        return value
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(value)}
    found = {name: getattr(value, name) for name in defaults}
    return {name: _set(inner) for name, inner in found.items() if inner != defaults[name]}


def recorded(seed: int) -> dict[str, list[str]]:
    """Split -> fingerprints of tasks 0, 1, 2... that the judge has admitted; empty for seeds without records."""
    path = _record_file(seed)
    if not path.is_file():
        return {}
    return {split: text.split() for split, text in json.loads(path.read_text())["admitted"].items()}


def record(seed: int, tasks: Iterable[Task], times: int) -> None:
    """Keep the fingerprints of tasks admitted in `times` runs, given in the order of each split."""
    admitted: dict[str, list[str]] = {}
    for task in tasks:
        admitted.setdefault(task.split, []).append(fingerprint(task))
    path = _record_file(seed)
    path.parent.mkdir(exist_ok=True)
    texts = {split: " ".join(fingerprints) for split, fingerprints in admitted.items()}
    path.write_text(json.dumps({"generator": VERSION, "times": times, "admitted": texts}, indent=1) + "\n")


def _record_file(seed: int) -> Path:
    return Path(str(files("crrl") / "tasks" / "generator" / "recorded" / f"generated-seed{seed}.json"))
