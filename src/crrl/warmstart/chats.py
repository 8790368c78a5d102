"""`crrl tasks demonstrate`: known fixes as chats, for a model that does not write search/replace blocks yet.

Each line of the file is what the answering agent would ask about a task, and the known fix as the answer; `crrl sft
FILE.jsonl` trains on it. Generated tasks are those of the warm start's families in `train`: no evaluation task, and no
family that is left to RL, is among them.

Invariant 11: a task that cannot be shown is named, and why; the others are written.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crrl import sandbox, unified_diff
from crrl.agents.answer import LARGEST_FILE, Questions, load_questions
from crrl.agents.search_replace import Inexpressible
from crrl.agents.search_replace.generate import generate
from crrl.agents.search_replace.in_box import Shown
from crrl.errors import CrrlError, LostError
from crrl.sandbox.api import Box, Sandbox, Spec
from crrl.task import Task
from crrl.tasks.command import Wanted, line_of, read
from crrl.tasks.generator.generate import among_others, bug_of, id_of

FIX = ".crrl-fix.patch"


@dataclass(frozen=True)
class Change:
    """`before`: None: the fix makes the file."""

    path: str
    before: str | None
    after: str


class NotShown(Exception):
    """This task makes no demonstration; says why."""


def demonstrate(wanted: Wanted, *, prompts: str, out: Path, state_dir: Path, json: bool) -> int:
    """Writes `out`, whole or not at all. Exit code 0: all tasks are in it; 1: some are not, or none is.
    Raises UsageError, CrrlError."""
    questions = load_questions(prompts)
    if wanted.name == "generated":
        rows = _generated(wanted, questions)
        faults: list[str] = []
        sound = True
    else:
        tasks, sound = read(wanted)
        rows, faults = asyncio.run(_of_tasks(tasks, questions, state_dir))
    for fault in faults:
        print(fault, file=sys.stderr)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text("".join(jsonlib.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(out)
    if json:
        print(line_of({"written": len(rows), "left_out": len(faults), "out": str(out)}))
    else:
        print(f"{len(rows)} chats in {out}" + (f", {len(faults)} tasks left out" if faults else ""))
        print(f"Next: crrl sft {out} model.path=FOLDER out=FOLDER")
    return 0 if rows and sound and not faults else 1


def chat(
    id: str, issue: str, changes: Sequence[Change], questions: Questions, solution: str | None = None
) -> dict[str, Any]:
    """One line of the file. Raises NotShown."""
    try:
        blocks = [
            generate(c.path, c.before, c.after, questions.context, questions.pieces(c.path, c.before or "", solution))
            for c in changes
        ]
    except Inexpressible as error:
        raise NotShown(str(error)) from None
    shown = [(change.path, change.before) for change in changes if change.before is not None]
    messages = questions.messages(issue, shown, solution)
    answer = "\n".join(block for block in blocks if block).rstrip("\n")
    if not answer:
        raise NotShown("the known fix changes nothing")
    return {"task": id, "messages": [*messages, {"role": "assistant", "content": answer}]}


def _generated(wanted: Wanted, questions: Questions) -> list[dict[str, Any]]:
    rows = []
    for index in range(wanted.count):
        bug = bug_of("train", wanted.seed, index, rl_share=0.0)
        bug = among_others(bug, "train", wanted.seed, index, wanted.functions, rl_share=0.0)
        changes = [Change(bug.path, bug.buggy, bug.fixed)]
        rows.append(chat(id_of("train", wanted.seed, index, functions=wanted.functions), bug.issue, changes, questions))
    return rows


async def _of_tasks(
    tasks: Sequence[Task], questions: Questions, state_dir: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    rows, faults = [], []
    boxes = sandbox.make(state_dir=state_dir)
    try:
        for task in tasks:
            try:
                changes = [change async for change in changes_of(task, boxes)]
                rows.append(chat(task.id, task.issue, changes, questions, task.solution))
            except (NotShown, CrrlError, LostError) as error:
                faults.append(f"{task.id}: {error}")
    finally:
        await boxes.close()
    return rows, faults


async def changes_of(task: Task, boxes: Sandbox) -> AsyncIterator[Change]:
    """What the known fix does to each file, in the task's own repository. Raises NotShown, CrrlError, LostError."""
    if task.solution is None:
        raise NotShown("it has no known fix")
    if task.test.label is not None:
        raise NotShown("its answer is a label, not a patch")
    parts = unified_diff.parse(task.solution)
    paths = dict.fromkeys(name for part in parts for name in (part.old, part.new) if name is not None)
    box = await boxes.start(Spec(root=await boxes.prepare(task.source)))
    try:
        before = {path: await _read(box, path) for path in paths}
        await box.write(FIX, task.solution.encode("utf-8", "surrogateescape"))
        done = await box.exec(["git", "apply", "--whitespace=nowarn", FIX], timeout_s=60.0, output_limit=4000)
        if done.reason == "lost":
            raise LostError("sandbox_died", done.output[-500:])
        if done.code != 0:
            raise NotShown(f"its known fix does not apply: {done.output.strip()[:200]}")
        for path in paths:
            after = await _read(box, path)
            if after is None:
                raise NotShown(f"its known fix removes {path}, which blocks cannot say")
            yield Change(path, before[path], after)
    finally:
        await box.close()


async def _read(box: Box, path: str) -> str | None:
    """As the answering agent shows it; None: there is no such file. Raises NotShown."""
    try:
        data = await box.read(path, limit=LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotShown(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST_FILE or b"\0" in data:
        raise NotShown(f"{path} is too large, or no text, to be shown")
    return Shown.of(data).text
