"""The gateway of `crrl serve`: conversations that nobody opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway_kit import STOP
from openai import AsyncOpenAI

from crrl.engines.scripted import ScriptedEngine
from crrl.gateway import Renderer, SamplingPolicy, SessionRecord
from crrl.gateway import open as open_module
from crrl.gateway.open import OpenGateway


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@asynccontextmanager
async def served(
    renderer: Renderer, **settings: Any
) -> AsyncIterator[tuple[AsyncOpenAI, OpenGateway, list[SessionRecord]]]:
    ended: list[SessionRecord] = []
    engine = ScriptedEngine(lambda _: renderer.tokenizer.encode(f"ok{STOP}"))
    gateway = OpenGateway(engine, renderer, SamplingPolicy(), model="m", keep=ended.append, **settings)
    client = AsyncOpenAI(base_url=await gateway.start() + "/v1", api_key="any", max_retries=0, timeout=20)
    try:
        yield client, gateway, ended
    finally:
        await gateway.stop()
        await client.close()


async def ask(client: AsyncOpenAI, *messages: dict[str, str]) -> str:
    answer = await client.chat.completions.create(model="m", messages=messages)  # type: ignore[call-overload]
    return str(answer.choices[0].message.content)


async def test_each_conversation_is_a_session_and_goes_on_from_its_own_tokens(renderer: Renderer) -> None:
    async with served(renderer) as (client, _, ended):
        said = await ask(client, user("a"))
        await asyncio.gather(
            ask(client, user("a"), {"role": "assistant", "content": said}, user("more")), ask(client, user("b"))
        )
        raw = await client.completions.create(model="m", prompt="raw")
        assert raw.choices[0].text == "ok"
        assert ended == []
    assert sorted(len(record.samples) for record in ended) == [1, 1, 2]
    first, second = next(record.samples for record in ended if len(record.samples) == 2)
    assert second.parent == first.id
    seen = first.prompt_ids + first.ids
    assert second.prompt_ids[: len(seen)] == seen


async def test_idle_conversations_end_and_may_be_taken_up_again(renderer: Renderer) -> None:
    async with served(renderer, idle_s=0.05) as (client, _, ended):
        said = await ask(client, user("a"))
        await asyncio.sleep(0.5)
        assert len(ended) == 1
        await ask(client, user("a"), {"role": "assistant", "content": said}, user("more"))
    assert [len(record.samples) for record in ended] == [1, 1]
    assert ended[1].samples[0].prompt_ids[: len(ended[0].samples[0].prompt_ids)] == ended[0].samples[0].prompt_ids


async def test_there_are_never_too_many(renderer: Renderer, monkeypatch: Any) -> None:
    monkeypatch.setattr(open_module, "MOST", 3)
    monkeypatch.setattr(open_module, "MOST_TURNS", 2)
    async with served(renderer) as (client, gateway, ended):
        for i in range(5):
            await ask(client, user(f"question {i}"))
        assert len(gateway._sessions) <= 3 + len(gateway._ending) and len(gateway._conversations) == 3
        for _ in range(5):
            await ask(client, user("probe"))
    assert max(len(record.samples) for record in ended) == 2
    assert sum(len(record.samples) for record in ended) == 10
