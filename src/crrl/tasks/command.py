"""`crrl tasks list|show|fetch|split`: the tasks of a corpus, and those to train on. `check` is in
`admission/check.py`."""

from __future__ import annotations

import json as jsonlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from crrl.errors import CrrlError, UsageError
from crrl.task import Task
from crrl.tasks import corpora, leakage
from crrl.tasks.classification import units
from crrl.tasks.diffs import changes
from crrl.tasks.files import load_tasks, write_tasks
from crrl.tasks.generator.generate import SPLITS, generate

SCHEMA = 1


@dataclass(frozen=True)
class Wanted:
    """Which tasks: `name` is `generated`, a task file, or a corpus. `count`, `seed`, `ask` and `functions` are of the
    first, the rest of the last; `mirrors`: a folder of local clones, OWNER/NAME; `images` False: set up here, where a
    task has an image.
    """

    name: str
    count: int = 10
    seed: int = 0
    ask: str = "repair"
    functions: int = 1
    path: Path | None = None
    split: str = ""
    ids: Sequence[str] = ()
    mirrors: Path | None = None
    images: bool = True


def list_tasks(wanted: Wanted, *, json: bool) -> int:
    tasks, sound = read(wanted)
    for task in tasks:
        print(line_of(msgspec.to_builtins(task)) if json else "  ".join(_summary(task)))
    return 0 if sound else 1


def show(wanted: Wanted, *, json: bool) -> int:
    """One task, or a few: everything but the repair, of which it shows only the size."""
    tasks, sound = read(wanted)
    for task in tasks:
        print(line_of(msgspec.to_builtins(task)) if json else "\n".join(_described(task)))
    return 0 if sound else 1


def fetch(wanted: Wanted, *, engine: str, max_gb: int | None, state_dir: Path, json: bool) -> int:
    """Pull the images of the tasks, and print one line for each. Raises CrrlError with a remedy."""
    from rich.console import Console
    from rich.progress import Progress

    from crrl import sandbox

    tasks, sound = read(wanted)
    names = [task.source.image for task in tasks if task.source.image is not None]
    if not names:
        raise CrrlError(f"None of these tasks of {wanted.name} has an image.", "There is nothing to fetch.")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(names[0], total=None)

        def show(name: str, here: int, all: int) -> None:
            progress.update(bar, description=name, completed=here, total=all)

        limit = max_gb and max_gb << 30
        for got in sandbox.fetch_images(names, engine=engine, state_dir=state_dir, max_bytes=limit, progress=show):
            evicted = f"  (made room: {', '.join(got.evicted)})" if got.evicted else ""
            row = {"image": got.name, "how": got.how, "evicted": list(got.evicted)}
            print(line_of(row) if json else f"{got.name}  {got.how}{evicted}", flush=True)
    return 0 if sound else 1


def split(wanted: Wanted, against: Sequence[Wanted], *, held_out: int, out: Path | None, json: bool) -> int:
    """Split a corpus into training and held-out tasks, without evaluation tasks under another name."""
    tasks, sound = read(wanted)
    evaluation = [task for other in against for task in read(other)[0]]
    together = units(tasks)
    drawn = random.Random(f"split/{wanted.seed}").sample(together, len(together))
    kept: set[str] = set()
    for unit in drawn:
        if len(kept) < held_out:
            kept |= {task.id for task in unit}
    held = [task for task in tasks if task.id in kept]
    rest = [task for task in tasks if task.id not in kept]
    twins = {twin.task: twin for twin in leakage.twins(rest, [*evaluation, *held])}
    training = [task for task in rest if task.id not in twins]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_tasks(out / "train.jsonl", training)
        write_tasks(out / "held_out.jsonl", held)
    for task in tasks:
        twin = twins.get(task.id)
        part = "held_out" if task.id in kept else "removed" if twin else "train"
        row = {"id": task.id, "part": part, "created_at": task.created_at, **(asdict(twin) if twin else {})}
        if json:
            print(line_of({key: value for key, value in row.items() if key != "task"}))
        elif twin:
            print(f"{task.id}  removed: {twin.how} of {twin.twin}" + f" ({twin.similarity})" * (twin.how == "patch"))
    if not json:
        gap = leakage.gap_days(training, [*evaluation, *held])
        dates = (
            "" if gap is None else f"; the newest training task is {abs(gap)} days {'before' if gap >= 0 else 'after'} "
        )
        dates += "the oldest evaluation task" if dates else ""
        print(f"{len(training)} train, {len(held)} held out, {len(twins)} removed{dates}")
    return 0 if sound else 1


# Reading --------------------------------------------------------------------------------------------------------------


def read(wanted: Wanted) -> tuple[list[Task], bool]:
    """The tasks, and whether nothing was malformed; problems are printed as they are found."""
    if wanted.name == "generated":
        make = partial(generate, seed=wanted.seed, ask=wanted.ask, functions=wanted.functions)
        return [make(split, index=index) for split in SPLITS for index in range(wanted.count)], True
    if wanted.name.endswith(".jsonl"):
        tasks, problems = load_tasks(Path(wanted.name), measured=False)
        tasks = [task for task in tasks if not wanted.ids or task.id in wanted.ids]
    else:
        corpus = corpora.find(wanted.name)
        if not wanted.images:
            if corpus.imageless is None:
                raise UsageError(
                    f"{corpus.name} has no use for images=no.", "It is for SWE-bench (Python) and SWE-Gym."
                )
            corpus = corpus.imageless
        loaded = corpora.load(corpus, wanted.path, split=wanted.split, ids=wanted.ids)
        tasks, problems = [at_mirror(task, wanted.mirrors) for task in loaded.tasks], loaded.problems
    for problem in problems:
        print(problem, file=sys.stderr)
    return tasks, not problems


def at_mirror(task: Task, mirrors: Path | None) -> Task:
    """The task with its repository from a local clone, if there is one: for machines without network."""
    if mirrors is None or task.source.repo is None:
        return task
    owner_and_name = "/".join(task.source.repo.removesuffix(".git").split("/")[-2:])
    for place in (mirrors / owner_and_name, mirrors / f"{owner_and_name}.git"):
        if place.is_dir():
            return replace(task, source=replace(task.source, repo=str(place.resolve())))
    return task


# Printing -------------------------------------------------------------------------------------------------------------


def line_of(value: dict[str, Any]) -> str:
    return jsonlib.dumps({"schema": SCHEMA, **value})


def _summary(task: Task) -> list[str]:
    return [task.id, task.split, task.family, *([task.created_at[:10]] if task.created_at else [])]


def _described(task: Task) -> Iterator[str]:
    yield "  ".join([*_summary(task), task.language])
    source = task.source
    where = source.repo or source.dir or f"{len(source.files or {})} files"
    yield f"source    {where} {source.base_commit or ''}{f', {len(source.patches)} patches' if source.patches else ''}"
    if source.image:
        yield f"image     {source.image} ({source.workdir})"
    plan = task.test
    lists = f"{len(plan.fail_to_pass)} FAIL_TO_PASS, {len(plan.pass_to_pass)} PASS_TO_PASS"
    yield f"tests     {lists}{', the rest measured at admission' if plan.baseline else ''}; parser {plan.parser}"
    if plan.needs:
        yield f"needs     {', '.join(plan.needs)}"
    for name, lines in changes(task.solution or ""):
        yield f"repair    {name}: {len(lines)} lines changed"
    yield from (f"{key:9} {value}" for key, value in task.provenance.items())
    yield f"\n{task.issue}"
