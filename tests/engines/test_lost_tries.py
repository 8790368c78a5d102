"""A lost try leaves nothing in the engine: the next one's tokens and log-probs are those of a run that lost nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from engine_kit import collect, prompt, until

from crrl.engines import Request
from crrl.engines.local import LocalEngine

PROMPT = prompt(1, 90)


async def episode(engine: LocalEngine, name: str, turns: int) -> list[tuple[list[int], list[float]]]:
    """Turns that continue each other, as an agent's do."""
    ids, said = list(PROMPT), []
    for turn in range(turns):
        request = Request(f"{name}.{turn}", ids, 12, seed=turn, scope=name)
        answer = await collect(engine, request)
        said.append((answer.ids, answer.logprobs))
        ids = [*ids, *answer.ids, *prompt(10 + turn, 33)]
    return said


async def test_a_lost_try_leaves_no_trace_in_the_next_one(make) -> None:
    told = []
    for lost_turns in (0, 1, 2, 3):
        engine = make(context=512)
        await episode(engine, "a", 2)
        before = engine.reused_tokens
        if lost_turns:
            await episode(engine, "b", lost_turns)
            engine.forget("b")
            before = engine.reused_tokens
        told.append((await episode(engine, "b", 3), engine.reused_tokens - before))
    assert all(said == told[0] for said in told[1:])
    assert told[0][1] > 100  # what another attempt left, and each turn of the one before, is still used


async def test_a_generation_that_is_cancelled_leaves_nothing(make) -> None:
    engine = make(context=512)
    running = asyncio.create_task(collect(engine, Request("b.0", PROMPT, 400, scope="b")))
    await until(lambda: engine.steps >= 5)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await episode(engine, "b", 2) == await episode(make(context=512), "b", 2)
