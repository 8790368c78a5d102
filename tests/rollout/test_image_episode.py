"""An episode on a task with an image: played and judged in containers of it.

`make test-containers`; without an engine each is skipped, with the reason.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from container_kit import IMAGE, drop_image, engine_or_skip, image_task, put_image
from rollout_kit import attempt

from crrl import sandbox
from crrl.agents.api import AgentExit, AgentLimits, Endpoint
from crrl.rewards.task_judge import TaskJudge
from crrl.rollout.api import Episode
from crrl.rollout.episode import Parts, run_episode
from crrl.rollout.scheduler import Scheduler
from crrl.sandbox.api import Box
from crrl.task import Source, Task

pytest.importorskip("swebench", reason="grading needs the extra [swebench]")


class Fixes:
    """An agent of the test: repairs the bug, and leaves something running."""

    inside, mounts = False, ()

    async def run(self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits, what_now: Any) -> AgentExit:
        seen = await box.exec(["bash", "-c", "git log --all --oneline | wc -l; sleep 100 & sed -i 's/-/+/' calc.py"])
        assert seen.output == "1\n"
        return AgentExit("finished")

    async def close(self) -> None: ...


@pytest.mark.containers
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["podman", "docker"])
async def test_one_is_scored_and_one_that_cannot_run_is_lost(name: str, parts: Parts, state_dir: Path) -> None:
    """The others of the run go on (a CrrlError is not the run's end)."""
    engine = engine_or_skip(name)
    put_image(engine)
    boxes = sandbox.make(state_dir=state_dir, images=name)
    judge = TaskJudge(state_dir, boxes)
    parts = dataclasses.replace(parts, sandbox=boxes, judge=judge, agent=Fixes(), wall_s=60.0)  # type: ignore[arg-type]
    done: list[Episode] = []
    scheduler = Scheduler(lambda a: run_episode(a, parts), 2, 3, done.append, lambda *_: None)
    missing = dataclasses.replace(image_task(), source=Source(image="no/such:one", workdir="/testbed"))
    scheduler.add(attempt(0, task=image_task()))
    scheduler.add(attempt(1, task=missing))
    while len(done) < 2:
        await asyncio.sleep(0.05)
        assert not scheduler.failed.done()
    await scheduler.close()
    await judge.close()
    await boxes.close()
    drop_image(engine, IMAGE)
    scored, lost = sorted(done, key=lambda episode: episode.id)
    assert scored.outcome == "scored" and scored.verdict is not None and scored.verdict.solved
    assert lost.outcome == "lost" and lost.tries == 1 and "needs the image no/such:one" in lost.lost_reason
