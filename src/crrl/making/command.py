"""Runs `crrl tasks make|mine|spec`: sandbox and judge, progress, and what it came to."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
import resource
import time
from dataclasses import replace
from pathlib import Path

from crrl import sandbox
from crrl.console.display import Display
from crrl.errors import CrrlError, LostError
from crrl.making import make, mine, sdist, spec, spec_untested
from crrl.making.outcomes import Outcomes
from crrl.rewards.api import TestResults
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Task

SCHEMA, INTERRUPTED = 1, 130


def run(wanted: make.Wanted | mine.Wanted, *, network: bool, state_dir: Path, json: bool) -> int:
    """Exit code 0: there are tasks; 130: stopped, and what was finished is kept. Raises CrrlError where none can be
    made."""
    started, before, judged, out = time.monotonic(), _cpu_s(), list[float](), wanted.out

    async def do(display: Display) -> tuple[int, Outcomes]:
        boxes = sandbox.make(state_dir=state_dir)
        judge = _Counting(state_dir, boxes, network=network, concurrency=max(2, len(os.sched_getaffinity(0))))
        try:
            if isinstance(wanted, make.Wanted):
                made = await make.make(wanted, boxes, judge, display, spec_untested.kind_of(wanted))
                judged.append(made.traced_s)
                return len(made.tasks), made.outcomes
            mined = await mine.mine(wanted, boxes, judge, display)
            return len(mined.tasks), mined.outcomes
        finally:
            judged.append(judge.spent_s)
            await judge.close()
            await boxes.close()

    with Display(live=False if json else None) as display:
        try:
            with sdist.unpacked(wanted.repository) as folder:
                wanted = replace(wanted, repository=folder)
                number, outcomes = asyncio.run(do(display))
        except KeyboardInterrupt:
            display.note(
                f"Interrupted. {out.with_suffix('.work')} keeps what is finished; go on with the same command."
            )
            return INTERRUPTED
        except LostError as error:
            raise CrrlError(f"A judged run was lost ({error}).", "Type the same command again: it goes on.") from None
    seconds, cpu = time.monotonic() - started, _cpu_s() - before + sum(judged)
    if json:
        whole = {"schema": SCHEMA, "out": str(out), "tasks": number, "candidates": dict(outcomes.counts)}
        whole["reasons"] = {reason: dict(whys.most_common(10)) for reason, whys in outcomes.whys.items()}
        print(jsonlib.dumps(whole | {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}))
    else:
        print(f"{out}: {number} admitted tasks, in {seconds:.0f} s ({cpu:.0f} CPU-seconds).")
        recipe = "implement" if isinstance(wanted, spec.Wanted) else "quickstart"
        weights = spec_untested.WEIGHTS if spec_untested.is_untested(wanted) else ""
        print(f"Train on them: crrl train {recipe} corpus.name={out} corpus.held_out={max(1, number // 5)}{weights}")
    return 0


class _Counting(TaskJudge):
    """Counts the CPU-seconds of judged runs: they are no children of this process."""

    spent_s = 0.0

    async def _judge(self, task: Task, patch: str) -> TestResults:
        results = await super()._judge(task, patch)
        self.spent_s += results.cpu_s
        return results


def _cpu_s() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in usage)
