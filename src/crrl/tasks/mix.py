"""`crrl tasks mix`: one file to train on, of tasks from several places."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crrl.errors import CrrlError, UsageError
from crrl.task import Task
from crrl.tasks.files import load_tasks, write_tasks
from crrl.tasks.generator.generate import generate

GENERATED = "generated"


@dataclass(frozen=True)
class Part:
    """`count` tasks of `name`, a task file or `generated`; None: all of the file."""

    name: str
    count: int | None

    @classmethod
    def of(cls, word: str) -> Part:
        """Of `NAME:COUNT` or `NAME`. Raises UsageError."""
        found = re.fullmatch(r"(.+?)(?::(\d+))?", word)
        name, count = (found[1], found[2]) if found else (word, None)
        if name != GENERATED and not name.endswith(".jsonl"):
            raise UsageError(
                f"{word} is neither a task file nor generated tasks.",
                "Write FILE.jsonl, FILE.jsonl:40 or generated:60. Of another corpus: "
                "crrl tasks check CORPUS out=FILE.jsonl",
            )
        if name == GENERATED and count is None:
            raise UsageError("How many generated tasks?", "Write generated:60.")
        if count is not None and int(count) < 1:
            raise UsageError(f"{word}: none of them would be in the mixture.", "Write a number above 0.")
        return cls(name, None if count is None else int(count))


def mix(parts: Sequence[Part], *, seed: int, functions: int, out: Path) -> tuple[dict[str, int], bool]:
    """Write the mixture; part -> how many tasks it gave, and whether no line was malformed (printed on stderr).
    Repositories beside a task file are written with their whole paths.

    Raises:
        CrrlError: a file cannot be read or has fewer tasks than asked for, or two tasks have one id.
    """
    tasks: list[Task] = []
    counts: dict[str, int] = {}
    sound = True
    for part in parts:
        drawn, problems = _drawn(part, seed, functions)
        for problem in problems:
            print(problem, file=sys.stderr)
        sound = sound and not problems
        tasks += drawn
        counts[part.name] = counts.get(part.name, 0) + len(drawn)
    twice = [id for id, number in Counter(task.id for task in tasks).items() if number > 1]
    if twice:
        raise CrrlError(f"Two tasks have the id {twice[0]}.", "Name each file once.")
    write_tasks(out, tasks)
    return counts, sound


def _drawn(part: Part, seed: int, functions: int) -> tuple[list[Task], list[str]]:
    if part.name == GENERATED:
        return [generate("train", seed, i, functions=functions) for i in range(part.count or 0)], []
    tasks, problems = load_tasks(Path(part.name))
    if part.count is not None:
        if part.count > len(tasks):
            raise CrrlError(f"{part.name} has {len(tasks)} usable tasks.", f"Write {part.name}:{len(tasks)} or fewer.")
        tasks = random.Random(f"mix/{seed}/{part.name}").sample(tasks, part.count)
    return tasks, [str(problem) for problem in problems]
