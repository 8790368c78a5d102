"""Many attempts: order, limits, retries of what our side lost."""

from __future__ import annotations

import asyncio

import pytest
from rollout_kit import attempt

from crrl.errors import CrrlError, LostError
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.scheduler import Scheduler


def scored(a: Attempt) -> Episode:
    return Episode(a.id, a.group, a.task.id, a.attempt, a.seed, "scored")


class Seen:
    def __init__(self) -> None:
        self.episodes: list[Episode] = []
        self.lost: list[tuple[str, str]] = []

    def scheduler(self, run_one, concurrency: int = 4, tries: int = 3) -> Scheduler:
        return Scheduler(
            run_one,
            concurrency,
            tries,
            self.episodes.append,
            lambda a, error: self.lost.append((a.id, error.cause)),
        )

    async def until(self, count: int) -> None:
        while len(self.episodes) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_no_more_at_once_than_allowed_and_in_order() -> None:
    seen, running, most, started = Seen(), 0, 0, []

    async def run_one(a: Attempt) -> Episode:
        nonlocal running, most
        started.append(a.id)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return scored(a)

    scheduler = seen.scheduler(run_one)
    for i in range(12):
        scheduler.add(attempt(i))
    await seen.until(12)
    assert most == 4 and started == [f"a{i}" for i in range(12)]


async def test_a_lost_try_is_started_again_under_the_same_id() -> None:
    seen, tries = Seen(), []

    async def run_one(a: Attempt) -> Episode:
        tries.append(a)
        if len(tries) < 3:
            raise LostError("sandbox_died", "killed")
        return scored(a)

    seen.scheduler(run_one).add(attempt())
    await seen.until(1)
    assert [e.outcome for e in seen.episodes] == ["scored"] and seen.episodes[0].tries == 3
    assert seen.lost == [("a0", "sandbox_died")] * 2 and tries[0] == tries[1] == tries[2]


async def test_a_task_that_cannot_be_run_here_is_lost_at_once_and_the_others_go_on() -> None:
    seen = Seen()

    async def run_one(a: Attempt) -> Episode:
        if a.id == "a0":
            raise CrrlError("needs the image x", "Fetch it.")
        return scored(a)

    scheduler = seen.scheduler(run_one)
    for i in range(2):
        scheduler.add(attempt(i))
    await seen.until(2)
    (lost,) = [episode for episode in seen.episodes if episode.outcome == "lost"]
    assert lost.tries == 1 and lost.lost_reason == "unavailable: needs the image x Fetch it."
    assert seen.lost == [("a0", "unavailable")] and not scheduler.failed.done()


async def test_an_attempt_that_is_always_lost_is_lost_and_says_why() -> None:
    seen = Seen()

    async def run_one(a: Attempt) -> Episode:
        raise LostError("disk_full", "no space")

    seen.scheduler(run_one, tries=2).add(attempt())
    await seen.until(1)
    (episode,) = seen.episodes
    assert (episode.outcome, episode.lost_reason, episode.tries) == ("lost", "disk_full: no space", 2)
    assert episode.verdict is None and len(seen.lost) == 2


async def test_a_bug_of_ours_is_not_a_lost_episode() -> None:
    seen = Seen()

    async def run_one(a: Attempt) -> Episode:
        raise ZeroDivisionError

    scheduler = seen.scheduler(run_one)
    scheduler.add(attempt())
    with pytest.raises(ZeroDivisionError):
        await scheduler.failed
    assert seen.episodes == []


async def test_close_leaves_nothing_running() -> None:
    seen, ended = Seen(), []

    async def run_one(a: Attempt) -> Episode:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(a.id)
        return scored(a)

    scheduler = seen.scheduler(run_one)
    for i in range(6):
        scheduler.add(attempt(i))
    await asyncio.sleep(0.05)
    await scheduler.close()
    assert sorted(ended) == ["a0", "a1", "a2", "a3"]


async def test_an_attempt_that_makes_a_lost_try_of_its_end_is_not_started_again() -> None:
    """Else a worker whose trainer was killed would go on for as many tries as there are."""
    seen, started = Seen(), 0

    async def run_one(a: Attempt) -> Episode:
        nonlocal started
        started += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LostError("engine_failed", "it is gone, too") from None
        return scored(a)

    scheduler = seen.scheduler(run_one, tries=1000)
    scheduler.add(attempt(0))
    await asyncio.sleep(0)
    await asyncio.wait_for(scheduler.close(), 10)
    assert started == 1 and not seen.lost and not seen.episodes
