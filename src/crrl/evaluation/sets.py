"""The tasks of an evaluation: of a preset, a corpus, a data set on the hub, or a task file.

Only measured tasks are evaluated: where a corpus does not list its tests, `crrl tasks check` measures them first, and
says which bugs can be judged on this machine at all.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from crrl.errors import CrrlError, UsageError, nearest
from crrl.evaluation import presets
from crrl.task import Task
from crrl.tasks import corpora
from crrl.tasks.asked import asked_of
from crrl.tasks.classification import units
from crrl.tasks.files import load_tasks, write_tasks
from crrl.tasks.generator.generate import generate

GENERATED = 100
"""Tasks of a generated benchmark, unless `limit` says otherwise."""
TASK_SETS = "tasks"
"""A journal's name for what its evaluations ask: split -> `fingerprints` of its tasks."""
PAIRS = "pairs"
"""And for those of them that are one unit: task -> pair."""
PROMPTS = "prompts"
"""And for how the agent asks: phase -> the digest of its prompts."""


@dataclass(frozen=True)
class TaskSet:
    """`origin`: where the tasks were read: the file or corpus, the hub's revision. `notes`: what was left out."""

    name: str
    tasks: list[Task]
    origin: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def is_set(word: str) -> bool:
    """A preset, corpus, hub id or task file, and no model."""
    if word in presets.names() or word.endswith(".jsonl"):
        return True
    return word in corpora.CORPORA or (corpora.HUB.fullmatch(word) is not None and not Path(word).exists())


def load(word: str, *, path: Path | None = None, ids: Sequence[str] = (), limit: int = 0, seed: int = 0) -> TaskSet:
    """`limit`: so many of the tasks, drawn with the seed, one more where that would part a pair; 0: all.

    Raises UsageError or CrrlError, naming the command that measures tasks that are not measured.
    """
    preset = presets.find(word)
    if preset and preset.split:
        return _generated(preset, path, ids, limit, seed)
    corpus = preset.corpus if preset else word
    file = path if path is not None and _holds_tasks(path) else Path(word) if word.endswith(".jsonl") else None
    if preset and file is None and (path is None or not corpus):
        _can_be_read(preset, path)
    notes: list[str] = []
    if file is not None:
        tasks, problems = load_tasks(file)
        notes += [str(problem) for problem in problems]
        origin = {"file": str(file)}
    else:
        loaded = corpora.load(corpora.find(corpus), path)
        tasks, origin = loaded.tasks, {"corpus": corpus} | ({"path": str(path)} if path else {})
        notes += [str(problem) for problem in loaded.problems]
    if preset:
        tasks, left_out = _its_own(preset, tasks, file or path)
        notes += left_out
    origin |= {"hub": tasks[0].provenance["hub"]} if tasks[0].provenance.get("hub") else {}
    if file is None and any(task.test.baseline for task in tasks):
        where = f" path={path}" if path else ""
        raise CrrlError(
            f"{corpus} does not list its tests: they are measured first.",
            f"crrl tasks check {corpus}{where} out={word}.jsonl, then: crrl eval {word} MODEL path={word}.jsonl",
        )
    name = preset.name if preset else Path(word).stem if word.endswith(".jsonl") else word.replace("/", "--")
    return TaskSet(name, _chosen(word, tasks, ids, limit, seed), origin, notes)


def _can_be_read(preset: presets.Preset, path: Path | None) -> None:
    """Raises CrrlError: its tasks are not here, and nowhere to be fetched from."""
    if not preset.corpus:
        missing = f"{path} is no task file (.jsonl)." if path else f"{preset.name} needs path=FILE.jsonl."
        raise CrrlError(missing, presets.brought(preset))
    if corpora.find(preset.corpus).fetch is None:
        raise CrrlError(f"{preset.name} needs path=: its tasks are not on the hub.", presets.brought(preset))


def _its_own(preset: presets.Preset, tasks: list[Task], where: Path | None) -> tuple[list[Task], list[str]]:
    """The tasks that the benchmark is about, and what was left out of a file that has others, too. Raises CrrlError: it
    has none."""
    own = [
        task
        for task in tasks
        if preset.corpus in ("", task.corpus)
        and preset.language in ("", task.language)
        and (preset.corpus or asked_of(task) == preset.asks)
    ]
    if not own:
        raise CrrlError(f"{where} has no task of {preset.name} ({preset.title}).", presets.brought(preset))
    others = len(tasks) - len(own)
    # Of a corpus with several languages, the others are no part of the benchmark: nothing worth a note.
    foreign = others and any(preset.corpus not in ("", task.corpus) for task in tasks)
    return own, [f"{others} tasks of {where} are not of {preset.name}, and left out"] if foreign else []


def _generated(preset: presets.Preset, path: Path | None, ids: Sequence[str], limit: int, seed: int) -> TaskSet:
    """The first `limit` of a split, or `GENERATED` of them."""
    if path is not None:
        raise UsageError(f"path={path} would be ignored: {preset.name} is drawn from the seed.", "Leave path out.")
    tasks = [generate(preset.split, seed, index) for index in range(limit or GENERATED)]
    return TaskSet(preset.name, _chosen(preset.name, tasks, ids, 0, seed), {"corpus": "generated", "seed": str(seed)})


def write(file: Path, tasks: TaskSet) -> None:
    write_tasks(file, tasks.tasks)


def _chosen(word: str, tasks: list[Task], ids: Sequence[str], limit: int, seed: int) -> list[Task]:
    known = {task.id for task in tasks}
    if unknown := [id for id in ids if id not in known]:
        raise UsageError(f"{word} has no task {unknown[0]}.", nearest(unknown[0], known) if len(known) < 3000 else "")
    chosen = [task for task in tasks if not ids or task.id in ids]
    if not limit or limit >= len(chosen):
        return chosen
    together = units(chosen)
    drawn: set[str] = set()
    for unit in random.Random(f"limit/{seed}").sample(together, min(limit, len(together))):
        if len(drawn) < limit:
            drawn |= {task.id for task in unit}
    return [task for task in chosen if task.id in drawn]


def _holds_tasks(path: Path) -> bool:
    """Whether its first line is one of our tasks; a corpus's own records may be .jsonl, too."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    try:
        with path.open() as file:
            first = json.loads(next((line for line in file if line.strip()), "null"))
    except ValueError:
        return False
    return isinstance(first, dict) and "source" in first and "test" in first


def fingerprints(tasks: Sequence[Task]) -> dict[str, str]:
    """Task -> a digest of what is asked and how it is judged, wherever its repository lies."""
    return {task.id: hashlib.blake2b(msgspec.json.encode(_asked(task)), digest_size=8).hexdigest() for task in tasks}


def _asked(task: Task) -> dict[str, Any]:
    source = replace(task.source, repo=None, dir=None)
    asked = msgspec.to_builtins(replace(task, source=source, test=replace(task.test, decoys=None), provenance={}))
    if task.test.label is None:  # a field that came later says nothing there: digests of older runs stay what they were
        del asked["test"]["label"]
    found: dict[str, Any] = asked
    return found
