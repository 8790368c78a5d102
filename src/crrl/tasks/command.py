"""`crrl tasks check|list|record`: are the tasks sound, and what is in them."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec

from crrl.errors import CrrlError, UsageError
from crrl.tasks.admission import Admission, admit, record
from crrl.tasks.files import load_tasks
from crrl.tasks.generated import SPLITS, generate
from crrl.tasks.task import Task

SCHEMA = 1
CONCURRENCY = 4


def run(action: str, corpus: str, *, count: int, seed: int, json: bool) -> int:
    """Exit code 0: everything is sound; 1: a task is not admitted, or a line of the file is broken."""
    tasks, broken = read(corpus, count, seed)
    for problem in broken:
        print(problem, file=sys.stderr)
    if action == "list":
        for task in tasks:
            shown = {"schema": SCHEMA, **msgspec.to_builtins(task)}
            print(jsonlib.dumps(shown) if json else f"{task.id}  {task.split}  {task.family}")
        return 1 if broken else 0
    statuses = asyncio.run(check(tasks, json))
    if action == "record":
        if corpus != "generated" or set(statuses) != {"admitted"}:
            raise CrrlError("Only generated tasks that were all admitted are recorded.", "See the lines above.")
        record(seed, tasks)
    if not json:
        print(", ".join(f"{number} {status}" for status, number in statuses.most_common()))
    return 1 if broken or set(statuses) != {"admitted"} else 0


def read(corpus: str, count: int, seed: int) -> tuple[list[Task], list[str]]:
    """The tasks of a corpus, and what is wrong with it, line by line."""
    if corpus == "generated":
        return [generate(split, seed, index) for split in SPLITS for index in range(count)], []
    if not corpus.endswith(".jsonl"):
        raise UsageError(f"{corpus} is no corpus.", "Write `generated`, or the path of a task file (.jsonl).")
    tasks, problems = load_tasks(Path(corpus))
    return tasks, [str(problem) for problem in problems]


async def check(tasks: list[Task], json: bool) -> Counter[str]:
    """Admit each with the real judge; one line as each is done."""
    from crrl import sandbox
    from crrl.rewards.judge import PytestJudge

    state_dir = sandbox.default_state_dir()
    boxes = sandbox.make(state_dir=state_dir)
    judge = PytestJudge(state_dir, prepare=boxes.prepare)
    statuses: Counter[str] = Counter()
    try:
        for done in checks(tasks, judge):
            admission = await done
            statuses[admission.status] += 1
            if json:
                print(jsonlib.dumps({"schema": SCHEMA, **asdict(admission)}), flush=True)
            elif admission.status != "admitted":
                print(f"{admission.id}  {admission.status}  {'; '.join(admission.reasons)}", flush=True)
    finally:
        await judge.close()
        await boxes.close()
    return statuses


def checks(tasks: list[Task], judge: object) -> Iterator[asyncio.Future[Admission]]:
    """Admissions as they are done, some at a time."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(task: Task) -> Admission:
        async with slots:
            return await admit(task, judge)  # type: ignore[arg-type]

    return iter(asyncio.as_completed([one(task) for task in tasks]))
