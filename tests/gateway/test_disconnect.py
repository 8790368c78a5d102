"""Clients that go away: what was sampled is not sampled again, and nothing is trained that nobody got."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from gateway_kit import STOP, Bench

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
SLOW = {"step": 1, "delay": 0.02}
TEXT = f"one two three four five{STOP}"


async def post_and_vanish(base_url: str, body: dict, events: int, api: str = "chat/completions") -> None:
    """A raw client that drops its connection once it has seen that many events."""
    host, port = base_url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    raw = json.dumps(body).encode()
    path = "/" + base_url.split("/", 3)[3] + f"/{api}"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
    writer.write(head + raw)
    await writer.drain()
    seen = b""
    while seen.count(b"data:") < events:
        data = await reader.read(4096)
        assert data, "the server closed first"
        seen += data
    writer.transport.abort()


async def text_of(base_url: str, body: dict, headers: dict | None = None) -> str:
    async with httpx.AsyncClient(verify=False) as http:
        reply = await http.post(f"{base_url}/chat/completions", json={**body, "stream": False}, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("events", [0, 1, 6])
async def test_a_dropped_stream_goes_on_and_the_retry_gets_that_very_sample(bench: Bench, events: int) -> None:
    await bench.start(TEXT, **SLOW)
    handle = bench.gateway.open("a")
    await post_and_vanish(handle.base_url, BODY, events)
    await asyncio.sleep(0.05)
    assert await text_of(handle.base_url, BODY) == "one two three four five"
    assert len(bench.engine.requests) == 1
    record = await bench.gateway.close("a")
    assert [(s.delivery, s.finish) for s in record.samples] == [("delivered", "stop")]


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("completions", {"prompt": "hi", "max_tokens": 99}),
        ("responses", {"input": "hi"}),
        ("messages", {"messages": BODY["messages"], "max_tokens": 99}),
    ],
)
@pytest.mark.parametrize("events", [0, 5])
async def test_a_dropped_stream_is_replayed_in_every_dialect(bench: Bench, api: str, body: dict, events: int) -> None:
    """Whole and in its grammar: the retry sees the stream from its beginning, while it goes on."""
    await bench.start(TEXT, **SLOW)
    handle = bench.gateway.open("a")
    await post_and_vanish(handle.base_url, {**body, "stream": True}, events, api)
    await asyncio.sleep(0.05)
    async with httpx.AsyncClient(verify=False) as http:
        replies = [await http.post(f"{handle.base_url}/{api}", json={**body, "stream": True})]
        headers = {"x-stainless-retry-count": "1"}
        replies.append(await http.post(f"{handle.base_url}/{api}", json={**body, "stream": False}, headers=headers))
    said = "".join(
        part
        for line in replies[0].text.splitlines()
        if line.startswith("data: {")
        for part in [text_in(json.loads(line[6:]))]
    )
    assert said == "one two three four five" and said in replies[1].text
    assert len(bench.engine.requests) == 1
    assert [s.delivery for s in (await bench.gateway.close("a")).samples] == ["delivered"]


def text_in(event: dict) -> str:
    if "choices" in event:
        return "".join(choice["text"] for choice in event["choices"])
    delta = event.get("delta", "")
    return delta if isinstance(delta, str) else delta.get("text", "")


async def test_nobody_comes_back_within_the_grace_period(bench: Bench) -> None:
    await bench.start("word " * 300, f"ok{STOP}", grace_s=0.1, **SLOW)
    handle = bench.gateway.open("a")
    await post_and_vanish(handle.base_url, BODY, 2)
    await asyncio.sleep(0.4)
    assert await text_of(handle.base_url, BODY) == "ok"  # a cancelled sample is never an answer
    first, second = (await bench.gateway.close("a")).samples
    assert (first.finish, first.delivery) == ("cancelled", "dropped") and 0 < len(first.ids) < 100
    assert (second.branch, second.delivery) == ("retried", "delivered")
    assert first.params["seed"] != second.params["seed"]


async def test_an_identical_request_after_delivery_is_a_resample(bench: Bench) -> None:
    await bench.start(f"first{STOP}", f"second{STOP}", f"third{STOP}")
    handle = bench.gateway.open("a")
    assert await text_of(handle.base_url, BODY) == "first"
    assert await text_of(handle.base_url, BODY) == "second"
    went_on = [
        *BODY["messages"],
        {"role": "assistant", "content": " first\n"},
        {"role": "user", "content": "and?"},
    ]
    assert await text_of(handle.base_url, {**BODY, "messages": went_on}) == "third"
    samples = (await bench.gateway.close("a")).samples
    assert [s.branch for s in samples] == ["first", "resampled", ""]
    assert [s.delivery for s in samples] == ["delivered", "superseded", "delivered"]
    assert samples[2].parent == samples[0].id
    assert samples[0].prompt_ids == samples[1].prompt_ids


async def test_a_declared_retry_gets_the_stored_sample_even_after_delivery(bench: Bench) -> None:
    await bench.start(f"first{STOP}")
    handle = bench.gateway.open("a")
    for retry in ("0", "1", "2"):  # the answer was written, and lost on its way
        assert await text_of(handle.base_url, BODY, {"x-stainless-retry-count": retry}) == "first"
    assert len((await bench.gateway.close("a")).samples) == 1


async def test_an_sdk_retry_after_a_dropped_connection(bench: Bench) -> None:
    """The official client through a proxy which drops the first connection once the request is through."""
    await bench.start(TEXT, **SLOW)
    handle = bench.gateway.open("a")
    host, port = handle.base_url.split("/")[2].split(":")
    connections = 0

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        tasks = [asyncio.create_task(pipe(reader, up_writer)), asyncio.create_task(pipe(up_reader, writer))]
        if connections == 1:
            await asyncio.sleep(0.05)
            for transport in (writer.transport, up_writer.transport):
                transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1") as proxy:
        address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        client = bench.client(handle, retries=2).with_options(base_url=address + "/" + handle.base_url.split("/", 3)[3])
        reply = await client.chat.completions.create(model="m", messages=BODY["messages"])
        assert reply.choices[0].message.content == "one two three four five"
        assert connections == 2 and len(bench.engine.requests) == 1
        proxy.close()


async def test_closing_a_session_ends_its_generation(bench: Bench) -> None:
    await bench.start("word " * 1000, **SLOW)
    handle = bench.gateway.open("a")
    await post_and_vanish(handle.base_url, BODY, 2)
    record = await asyncio.wait_for(bench.gateway.close("a"), 1)
    assert [(s.finish, s.delivery) for s in record.samples] == [("cancelled", "dropped")]


async def test_whoever_closes_a_session_may_be_cancelled(bench: Bench) -> None:
    """The cancellation is not taken for the end of a generation."""
    await bench.start(TEXT, **SLOW)
    session = bench.gateway.open("a")._session  # type: ignore[attr-defined]
    may_end = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await may_end.wait()

    session._tasks.add(asyncio.create_task(slow_to_end()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(session.close())
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    may_end.set()
