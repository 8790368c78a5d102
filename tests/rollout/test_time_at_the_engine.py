"""Invariant 2: wherever an engine stalls, the episode's wall budget is not charged while it does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from rollout_kit import attempt

from crrl.engines.api import Chunk, Request
from crrl.engines.scripted import ScriptedEngine
from crrl.gateway.clock import HELD_GAP_S, EngineClock
from crrl.rollout import episode as episode_module
from crrl.rollout.episode import Parts, run_episode

STALL_S = 2.0
WALL_S = 1.5


class Stalling:
    """`engine`, which stands still once, in its first answer, at some place. What the session has been charged by then
    is the time of its agent alone."""

    def __init__(self, engine: ScriptedEngine, place: str) -> None:
        self._engine, self._place = engine, place
        self.stalled = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    async def _stall(self, place: str) -> None:
        if place == self._place and not self.stalled:
            self.stalled += 1
            await asyncio.sleep(STALL_S)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        await self._stall("queued")
        given = 0
        async for chunk in self._engine.generate(request):
            for i, token in enumerate(chunk.ids):
                last = i == len(chunk.ids) - 1 and chunk.finish is not None
                await self._stall("before the first token" if not given else "between tokens" if not last else "")
                if last:
                    await self._stall("at the last token")
                if last and self._place == "before the end":  # all tokens are out, and the end is not
                    yield Chunk([token], [-1.0], [0])
                    await self._stall("before the end")
                    yield Chunk([], [], [], chunk.finish)
                    return
                given += 1
                yield Chunk([token], [-1.0], [0], chunk.finish if last else None)
                if given == 1:
                    await self._stall("after the first token")


PLACES = ["queued", "before the first token", "after the first token", "between tokens", "at the last token"]


@pytest.mark.parametrize("place", [*PLACES, "before the end"])
async def test_a_stall_is_not_charged(
    place: str, parts: Parts, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode_module, "WALL_GRACE_S", 0.2)
    await run_episode(attempt(1), parts)  # what is made once is not this episode's
    parts.gateway.engine = stalling = Stalling(engine, place)  # type: ignore[assignment]
    episode = await run_episode(attempt(0), dataclasses.replace(parts, wall_s=WALL_S))
    assert stalling.stalled == 1
    assert (episode.outcome, episode.exit_reason) == ("scored", "finished")
    assert episode.timings["engine_wait"] >= STALL_S
    parted = {"queued": "engine_queued", "before the first token": "engine_queued"}.get(place, "engine_held")
    assert episode.timings[parted] >= STALL_S - 0.01


async def test_a_push_between_two_tokens_is_not_charged(
    parts: Parts, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine rests with a row that has its first token already."""
    monkeypatch.setattr(episode_module, "WALL_GRACE_S", 0.2)
    engine._step, engine._delay = 1, 0.005
    running = asyncio.create_task(run_episode(attempt(), dataclasses.replace(parts, wall_s=WALL_S)))
    while not engine.requests:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.03)
    with ExitStack() as held:
        held.enter_context(engine.resting())
        await asyncio.sleep(STALL_S)
        await engine.push(None, 4)
    episode = await running
    assert (episode.outcome, episode.exit_reason) == ("scored", "finished")
    assert {version for sample in episode.samples for version in sample.versions} == {0, 4}


def test_the_clock_by_hand() -> None:
    """Read at every moment, not only once a token has come; parallel requests are one time."""
    now = [0.0]
    clock = EngineClock(lambda: now[0])

    def at(time: float) -> float:
        """Charged so far, of a session that began at 0."""
        now[0] = time
        return time - clock.read()

    assert at(1.0) == 1.0
    with clock.asked() as first:
        assert at(3.0) == 1.0  # queued
        first.given()
        assert at(3.0 + HELD_GAP_S / 2) == 1.0  # sampling
        first.given()
        with clock.asked() as second:
            assert at(60.0) == 1.0  # both stand still
            second.given()
            first.given()
        assert at(61.0) == 1.0
    assert at(63.0) == 3.0
    assert clock.queued_s == pytest.approx(2.0 + 60.0 - 3.25)
    assert clock.held_s == pytest.approx((60.0 - 3.25) + (61.0 - 60.0))
    with pytest.raises(KeyError), clock.asked():
        at(70.0)
        raise KeyError  # an engine that fails
    assert at(71.0) == 4.0
