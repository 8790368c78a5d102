"""One agent cannot stop the others, whatever it sends: too much, too deep, too many, too slowly."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from gateway_kit import STOP, make_tokenizer

from crrl.engines.scripted import ScriptedEngine
from crrl.gateway import Gateway, load_renderer
from crrl.gateway.api import Ask, Budget
from crrl.gateway.canonical import Message
from crrl.gateway.intake import LEAST_BODY, MOST_BODY, REQUESTS, Limits, TooLong

RENDERER = load_renderer(make_tokenizer(), "qwen3")
CONTEXT = 1 << 15
HONEST = 30
USER = {"role": "user", "content": "Repair it."}
MIB = 1 << 20


def body(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [*messages], **more}).encode()


# What one agent sends, and the status it gets; None: the connection may be closed on it.
HOSTILE: dict[str, tuple[bytes, set[int]]] = {
    "40 MB in one message": (body({"role": "user", "content": "x" * (40 * MIB)}), {413}),
    "40 MB of tools": (body(USER, tools=[{"type": "function", "function": {"name": "y" * (40 * MIB)}}]), {413}),
    "a body that just fits, of words": (body({"role": "user", "content": "word " * (MIB * 7 // 5)}), {400, 413}),
    "a body that just fits, of one word": (body({"role": "user", "content": "x" * (7 * MIB)}), {400, 413}),
    "white space": (body({"role": "user", "content": " " * (7 * MIB)}), {400, 413}),
    "very many messages": (body(*[{"role": "user", "content": "x"}] * 150_000), {400, 413}),
    "very many calls": (
        body(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}] * 90_000}),
        {200, 400, 413},
    ),
    "nested JSON": (b'{"messages": ' + b"[" * MIB, {400}),
    "nested tools": (b'{"messages": [{"role": "user", "content": "x"}], "tools": [' + b'{"a":' * 200_000, {400, 413}),
    "no JSON": (b"\x00" * MIB, {400}),
    "compressed": (gzip.compress(body({"role": "user", "content": "x" * (40 * MIB)})), {400, 415}),
    "one huge number": (b'{"messages": [], "max_tokens": ' + b"9" * MIB + b"}", {400}),
}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    answer = RENDERER.tokenizer.encode(f"Done.{STOP}")
    gateway = Gateway(ScriptedEngine(lambda _: answer, context=CONTEXT), RENDERER)
    await gateway.start()
    yield gateway
    await gateway.stop()


async def honest(gateway: Gateway, http: httpx.AsyncClient, name: str, until: asyncio.Event) -> list[float]:
    """Latencies of an agent that works on until it is told to stop, three requests at least."""
    url = gateway.open(name, Budget(tokens=1 << 30, turns=1 << 30)).base_url
    took: list[float] = []
    while len(took) < 3 or not until.is_set():
        started = time.monotonic()
        answer = await http.post(f"{url}/chat/completions", json={"model": "m", "messages": [USER]})
        took.append(time.monotonic() - started)
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(0.05)
    return took


async def beside(gateway: Gateway, http: httpx.AsyncClient, hostile: Any) -> float:
    """The longest time for which the gateway's loop stood still beside `hostile`; 30 honest agents are served."""
    done = asyncio.Event()
    longest, last = 0.0, time.monotonic()

    async def pulse() -> None:
        nonlocal longest, last
        while not done.is_set():
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    agents = [asyncio.create_task(honest(gateway, http, f"h{i}", done)) for i in range(HONEST)]
    beating = asyncio.create_task(pulse())
    try:
        await hostile
    finally:
        done.set()
        await asyncio.gather(*agents, beating)
    return longest


@pytest.mark.parametrize("kind", HOSTILE)
async def test_honest_agents_are_served_beside_one_that_sends(gateway: Gateway, kind: str) -> None:
    sent, statuses = HOSTILE[kind]
    url = gateway.open("hostile", Budget(tokens=1 << 30, turns=1 << 30)).base_url
    headers = {"content-type": "application/json"} | ({"content-encoding": "gzip"} if kind == "compressed" else {})
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:

        async def hostile() -> None:
            for _ in range(3):
                try:
                    answer = await http.post(f"{url}/chat/completions", content=sent, headers=headers)
                except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                    continue  # refused before all was sent
                assert answer.status_code in statuses, (answer.status_code, answer.text[:200])

        stall = await beside(gateway, http, hostile())
        alive = await http.post(f"{url}/chat/completions", json={"model": "m", "messages": [USER]})
        assert alive.status_code == 200  # its own session goes on
    assert stall < 5, f"the gateway stood still for {stall:.1f} s"  # 222 s before; a busy machine alone makes some


async def test_one_agent_has_so_many_requests_at_once(gateway: Gateway) -> None:
    handle = gateway.open("hostile", Budget(tokens=1 << 30, turns=1 << 30))
    host, port = gateway.base_url.removeprefix("http://").split(":")
    path = handle.base_url.removeprefix(gateway.base_url) + "/chat/completions"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n".encode()
    slow = [await asyncio.open_connection(host, int(port)) for _ in range(REQUESTS)]
    try:
        for _, writer in slow:
            writer.write(head + b"{")  # and never the rest
            await writer.drain()
        async with httpx.AsyncClient(timeout=20) as http:
            for _ in range(100):
                answer = await http.post(f"{handle.base_url}/chat/completions", content=body(USER))
                if answer.status_code == 429:
                    break
                await asyncio.sleep(0.02)
            assert answer.status_code == 429 and "at once" in answer.text
            other = gateway.open("honest", Budget()).base_url
            assert (await http.post(f"{other}/chat/completions", content=body(USER))).status_code == 200
    finally:
        for _, writer in slow:
            writer.close()
    async with httpx.AsyncClient(timeout=20) as http:
        for _ in range(100):  # the server sees the closed connections
            answer = await http.post(f"{handle.base_url}/chat/completions", content=body(USER))
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
    assert answer.status_code == 200


def test_the_limits_follow_the_context() -> None:
    small, large = Limits(1024, RENDERER), Limits(1 << 20, RENDERER)
    assert small.body == LEAST_BODY and large.body == MOST_BODY
    whole = "word " * 1000
    tokens = len(RENDERER.tokenizer.encode(whole))
    Limits(tokens, RENDERER).check(Ask(messages=[Message("user", whole)]))
    for ask in (
        Ask(messages=[Message("user", whole)] * 100),
        Ask(messages=[Message("user", "x")] * (tokens + 1)),
        Ask(messages=[Message("user", "é" * 200_000)]),
        Ask(messages=[], prompt=whole * 100),
        Ask(messages=[], prompt=[1] * (tokens + 1)),
        Ask(messages=[Message("user", "x")], tools=[{"function": {"name": "f", "description": whole * 1000}}]),
    ):
        with pytest.raises(TooLong):
            Limits(tokens, RENDERER).check(ask)
