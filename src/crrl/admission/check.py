"""`crrl tasks check|record`: which tasks of a corpus are sound on this machine.

With `out=` it writes each finished task to a file next to it (`.check.work`): rerunning the command resumes where it
stopped. It tries unavailable tasks again.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from crrl import sandbox
from crrl.admission.admission import TIMES, Admission, admit
from crrl.admission.work_file import WorkFile
from crrl.console.display import Display
from crrl.errors import CrrlError, LostError
from crrl.rewards import swebench_grading
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Task
from crrl.tasks.command import Wanted, line_of, read
from crrl.tasks.files import write_tasks
from crrl.tasks.generator.records import record
from crrl.tasks.setup import interpreters, project
from crrl.tasks.setup.own_tools import checked_out

CONCURRENCY, INTERRUPTED = 4, 130
Settle = Callable[[Task], AsyncIterator[Task | CrrlError]]


def check(
    wanted: Wanted, *, times: int = TIMES, out: Path | None = None, state_dir: Path, json: bool, keep: bool = False
) -> int:
    """Exit code 0: all tasks are admitted; 1: some are not, or a record is malformed; 130: interrupted."""
    tasks, sound = read(wanted)
    with Display(live=None if sys.stdout.isatty() and not json else False) as display:
        try:
            admissions = asyncio.run(_check(tasks, times, out, state_dir, json, display, settle=not wanted.images))
        except KeyboardInterrupt:
            if out is not None:
                display.note(f"Interrupted. {_work_of(out)} keeps what is finished; go on with the same command.")
            return INTERRUPTED
    statuses = Counter(admission.status for admission in admissions)
    if keep:
        if wanted.name != "generated" or set(statuses) != {"admitted"}:
            raise CrrlError(
                "`record` stores verdicts only if all generated tasks are admitted.", "See the lines above."
            )
        record(wanted.seed, tasks, times)
    if out is not None:
        admitted = {admission.id: admission.task for admission in admissions if admission.task is not None}
        write_tasks(out, [judged for task in tasks if (judged := admitted.get(task.id)) is not None])
    if not json:
        print(", ".join(f"{number} {status}" for status, number in statuses.most_common()))
        print(_decoys(admissions))
    return 0 if sound and set(statuses) == {"admitted"} else 1


async def _check(
    tasks: list[Task], times: int, out: Path | None, state_dir: Path, json: bool, display: Display, settle: bool
) -> list[Admission]:
    """Admit each with the real judge; one line as each is done. `settle`: tasks that lack a set-up get one first."""
    boxes = sandbox.make(state_dir=state_dir)
    judge = TaskJudge(state_dir, boxes)
    settling = partial(project.settled, prepare=boxes.prepare, environments=judge.environments)
    key = {"times": times, "judge": judge.version, "settle": settle}
    work = WorkFile(_work_of(out), key) if out is not None else None
    done = []
    display.phase("checking tasks", len(tasks))
    try:
        for running in _admissions(tasks, judge, times, settling if settle else None, work):
            admission = await running
            done.append(admission)
            _tell(admission, json)
            display.advance(**{admission.status: sum(other.status == admission.status for other in done)})
    finally:
        await judge.close()
        await boxes.close()
        if work is not None:
            work.close()
    return done


def _decoys(admissions: list[Admission]) -> str:
    """`Decoys: 1302 of 1556 tests (83.7%). None in 3 tasks: ...`."""
    admitted = [admission for admission in admissions if admission.task is not None]
    tests = [len({*a.task.test.fail_to_pass, *a.task.test.pass_to_pass}) for a in admitted if a.task is not None]
    with_decoys = round(sum(number * (a.decoys or 0.0) for number, a in zip(tests, admitted, strict=True)))
    if not sum(tests):
        return "Decoys: no task was admitted."
    lines = [f"Decoys: {with_decoys} of {sum(tests)} tests ({with_decoys / sum(tests):.1%})."]
    for what, why in (("None", "no_decoys"), ("No marker of completion", "no_marker")):
        reasons = Counter(reason for admission in admitted if (reason := getattr(admission, why)))
        lines += [f"{what} in {number} tasks: {reason}." for reason, number in reasons.most_common()]
    return " ".join(lines)


def _work_of(out: Path) -> Path:
    return out.with_suffix(".check.work")


def _admissions(
    tasks: Iterable[Task], judge: TaskJudge, times: int, settle: Settle | None, work: WorkFile | None
) -> Iterator[asyncio.Future[Admission]]:
    """Admissions as they are done, some at a time."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(task: Task) -> Admission:
        name = f"{task.id} {hashlib.sha256(msgspec.json.encode(task)).hexdigest()[:16]}"
        if work is not None and name in work.done:
            return msgspec.convert(work.done[name], Admission)
        async with slots:
            try:
                task = await asyncio.to_thread(checked_out, task, judge.state_dir)
                if settle is None:
                    admission = _under_another_python(task, await admit(task, judge, times), judge.state_dir)
                else:
                    swebench_grading.require()  # before a long set-up
                    admission = await _first_admitted(task, settle, judge, times)
            except (CrrlError, LostError) as error:
                return _unavailable(task, error)
        if work is not None and admission.status != "unavailable":
            work.keep(name, msgspec.to_builtins(admission))
        return admission

    return iter(asyncio.as_completed([asyncio.ensure_future(one(task)) for task in tasks]))  # begun in this order


async def _first_admitted(task: Task, settle: Settle, judge: TaskJudge, times: int) -> Admission:
    """The first set-up under which the task is admitted; where there is none, what the first that could be judged came
    to."""
    ends: list[Admission] = []
    async for tried in settle(task):
        if isinstance(tried, CrrlError):
            end = _unavailable(task, tried)
        else:
            end = _under_another_python(tried, await admit(tried, judge, times), judge.state_dir)
        if end.status == "admitted":
            return end
        ends.append(end)
    judged = [end for end in ends if end.status != "unavailable"]
    run = [end for end in ends if end.empty]
    return (judged or run or ends)[0]


def _under_another_python(task: Task, end: Admission, state_dir: Path) -> Admission:
    """What is broken under another Python than that of its time, which is not here, is unavailable: nobody knows."""
    python = interpreters.missing(task.test.needs, task.provenance.get("packages", ""), state_dir)
    if end.status != "broken" or not python:
        return end
    used = interpreters.wanted(task.test.needs, state_dir).name
    reason = f"needs {python}, of its time ({interpreters.how_to_install(python, state_dir)}); under {used}"
    return replace(end, status="unavailable", reasons=[f"{reason}: {'; '.join(end.reasons)}"])


def _unavailable(task: Task, error: Exception) -> Admission:
    return Admission(task.id, "unavailable", reasons=[" ".join(str(error).split())])


def _tell(admission: Admission, json: bool) -> None:
    if json:
        print(line_of(admission.shown()), flush=True)
    elif admission.status != "admitted":
        print(f"{admission.id}  {admission.status}  {'; '.join(admission.reasons)}", flush=True)
    elif admission.excluded:
        print(f"{admission.id}  admitted without {len(admission.excluded)} tests", flush=True)
    if not json and admission.no_decoys:
        print(f"{admission.id}  admitted, decoys: none: {admission.no_decoys}", flush=True)
