"""Ending an agent, whatever it makes of that."""

from __future__ import annotations

import asyncio

import pytest

from crrl.agents import api


async def test_an_agent_that_loses_cancellations_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "CANCEL_S", 0.01)
    lost = []

    async def deaf() -> None:
        while len(lost) < 3:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                lost.append(1)
        raise ValueError("at last")

    running = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await api.ended(running)
    assert running.done() and len(lost) == 3
    await api.ended(running)  # again: nothing to do
