"""Runs many attempts at once, and retries those that our side lost.

A retry keeps the attempt's id and its slot, so short episodes do not crowd it out: a group is complete when its slowest
member is (invariant 8).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from crrl.errors import CrrlError, LostError, RunError
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.episode import lost_episode

RETRY_S = 0.2  # pause before the second try; doubles for each further one

RunOne = Callable[[Attempt], Awaitable[Episode]]
OnEpisode = Callable[[Episode], None]
OnLostTry = Callable[[Attempt, LostError], None]


class Scheduler:
    """Args:
    run_one: runs one try (`episode.run_episode`). concurrency: attempts at once. tries: per attempt, at least 1.
    on_episode: called once per attempt, when it is finished or finally lost. on_lost_try: called for each lost try.
    """

    def __init__(
        self, run_one: RunOne, concurrency: int, tries: int, on_episode: OnEpisode, on_lost_try: OnLostTry
    ) -> None:
        self._run_one, self._tries = run_one, tries
        self._on_episode, self._on_lost_try = on_episode, on_lost_try
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises the error of an attempt that failed without being lost: a bug of ours, or of a plug-in."""

    def add(self, attempt: Attempt) -> None:
        """Start it as soon as a slot is free. Attempts start in the order in which they were added."""
        task = asyncio.create_task(self._run(attempt))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, attempt: Attempt) -> None:
        async with self._slots:
            for tries in range(1, self._tries + 1):
                try:
                    episode = await self._run_one(attempt)
                except RunError:
                    raise  # every other attempt would fail in the same way
                except CrrlError as error:  # the task cannot run on this machine: another try would not help
                    lost = LostError("unavailable", " ".join(str(error).split()))
                    self._on_lost_try(attempt, lost)
                    episode = lost_episode(attempt, lost, tries)
                    break
                except LostError as error:
                    if _cancelled():
                        return  # it failed because of that, and there is nobody to tell
                    self._on_lost_try(attempt, error)
                    episode = lost_episode(attempt, error, tries)
                    if tries < self._tries:
                        await asyncio.sleep(RETRY_S * 2 ** (tries - 1))
                else:
                    break
            self._on_episode(dataclasses.replace(episode, tries=tries))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)


def _cancelled() -> bool:
    """Whether this task is to end: what it waited for may have made another error of its cancellation."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
