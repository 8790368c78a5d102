"""While a request is held or long sampled, clients hear something, and read the same answer as without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from gateway_kit import STOP, TOOLS, Bench, call_text

from crrl.engines import EngineError
from crrl.engines.api import Chunk, Request
from crrl.engines.scripted import ScriptedEngine

USER = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": USER, "tools": TOOLS},
    "completions": {"prompt": "hi", "max_tokens": 99},
    "responses": {"input": "hi"},
    "messages": {"messages": USER, "max_tokens": 99},
}
SILENCE_S, HELD_S = 0.02, 0.3
TEXT = f"one two three{STOP}"


async def raw(url: str, body: dict[str, Any], heard: list[bytes]) -> httpx.Response:
    """`heard`: the pieces as they come."""
    async with (
        httpx.AsyncClient(verify=False, timeout=20) as http,
        http.stream("POST", url, json={"model": "m", **body}) as reply,
    ):
        async for part in reply.aiter_raw():
            heard.append(part)
    return reply


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", BODIES)
async def test_a_held_request_is_never_silent(bench: Bench, api: str, stream: bool) -> None:
    """A push holds it before its first token. Once it is sampled, what is left is the answer as it would have been."""
    await bench.start(*[TEXT] * 2, silence_s=SILENCE_S)
    heard: list[bytes] = []
    url = f"{bench.gateway.open('a').base_url}/{api}"
    with bench.engine.resting():
        held = asyncio.ensure_future(raw(url, {**BODIES[api], "stream": stream}, heard))
        await asyncio.sleep(HELD_S)
        before = b"".join(heard)
    reply = await held
    quiet: list[bytes] = []
    await raw(f"{bench.gateway.open('b').base_url}/{api}", {**BODIES[api], "stream": stream}, quiet)
    sign = b"event: ping\ndata: " if api == "messages" else b": keep-alive\n\n"
    sign = sign if stream else b" "
    assert reply.status_code == 200 and before.count(sign) >= 3
    assert told(b"".join(heard)) == told(b"".join(quiet)) != []


def told(answer: bytes) -> list[Any]:
    """Of either kind of answer: what it says, without what differs from one to the next, pings and comments."""
    text = answer.decode()
    if not text.lstrip().startswith("{"):
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    else:
        lines = [text]
    events = [json.loads(line) for line in lines]
    return [_bare(e) for e in events if e.get("type") != "ping"]


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        own = ("id", "item_id", "created", "created_at", "call_id", "signature")
        return {k: _bare(v) for k, v in value.items() if k not in own}
    return [_bare(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("stream", [True, False])
async def test_a_long_call_is_never_silent(bench: Bench, stream: bool) -> None:
    """A tool call goes out when it is complete: until then tokens are sampled, and none can be shown."""
    await bench.start(call_text("ls " * 30), silence_s=SILENCE_S, step=1, delay=0.005)
    heard: list[bytes] = []
    url = f"{bench.gateway.open('a').base_url}/chat/completions"
    await raw(url, {**BODIES["chat/completions"], "stream": stream}, heard)
    assert b"".join(heard).count(b": keep-alive\n\n" if stream else b" ") >= 3
    assert len(heard) >= 3 and b"ls ls" in heard[-1] + heard[-2]


async def test_official_clients_read_through_it(bench: Bench) -> None:
    await bench.start(*[TEXT] * 7, silence_s=SILENCE_S)
    handle = bench.gateway.open("a")
    chat, claude = bench.client(handle), bench.anthropic(handle)
    plain: dict[str, Any] = {"model": "m", "messages": USER}

    async def streamed() -> str:
        parts = await chat.chat.completions.create(**plain, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in parts if c.choices])

    async def responded() -> str:
        async with chat.responses.stream(model="m", input="hi") as events:
            return (await events.get_final_response()).output_text

    async def messaged() -> str:
        async with claude.messages.stream(max_tokens=99, **plain) as events:
            return await events.get_final_text()

    async def whole() -> list[str]:
        return [
            (await chat.chat.completions.create(**plain, temperature=0.1)).choices[0].message.content or "",
            (await chat.completions.create(model="m", prompt="hi", max_tokens=99)).choices[0].text,
            (await chat.responses.create(model="m", input="hi")).output_text,
            (await claude.messages.create(max_tokens=99, **plain)).content[0].text,
        ]

    for ask in (streamed, responded, messaged, whole):
        with bench.engine.resting():
            asked = asyncio.ensure_future(ask())
            await asyncio.sleep(0.1)
        assert await asked in ("one two three", ["one two three"] * 4)


async def test_a_quick_answer_has_an_honest_length_and_no_padding(bench: Bench) -> None:
    await bench.start(TEXT)
    heard: list[bytes] = []
    reply = await raw(f"{bench.gateway.open('a').base_url}/chat/completions", BODIES["chat/completions"], heard)
    assert reply.headers["content-length"] == str(len(b"".join(heard))) and heard[0].startswith(b"{")


class Failing(ScriptedEngine):
    """Fails once it is no longer held."""

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        await self._open.wait()
        raise EngineError("out of memory")
        yield


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_fails_after_silence_breaks_the_answer_off(bench: Bench, stream: bool) -> None:
    """A 200 has been sent. Nothing that could be taken for an answer follows, and whoever asks again gets the 503."""
    engine = Failing([])
    await bench.start_with(engine, silence_s=SILENCE_S)
    handle = bench.gateway.open("a")
    with engine.resting():
        asked = asyncio.ensure_future(_all(bench.client(handle), stream))
        await asyncio.sleep(0.1)
    with pytest.raises(openai.APIError):
        await asked
    with pytest.raises(openai.InternalServerError, match="out of memory") as refused:
        await _all(bench.client(handle), stream)
    assert refused.value.status_code == 503


async def _all(client: openai.AsyncOpenAI, stream: bool) -> Any:
    answer = await client.chat.completions.create(model="m", messages=USER, stream=stream)  # type: ignore[call-overload]
    return [part async for part in answer] if stream else answer


async def test_a_client_that_gave_up_in_silence_and_comes_again_gets_the_sample(bench: Bench) -> None:
    """It gave up before the first token, and the answer was complete before it came back; it declares no retry."""
    await bench.start(TEXT)
    url = f"{bench.gateway.open('a').base_url}/chat/completions"
    with bench.engine.resting():
        async with httpx.AsyncClient(verify=False, timeout=0.1) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.post(url, json={"model": "m", **BODIES["chat/completions"]})
    (turn,) = bench.gateway._sessions["a"].session.tree.turns
    await turn.task
    heard: list[bytes] = []
    await raw(url, BODIES["chat/completions"], heard)
    assert b"one two three" in b"".join(heard) and len(bench.engine.requests) == 1
    (sample,) = (await bench.gateway.close("a")).samples
    assert sample.delivery == "delivered"
