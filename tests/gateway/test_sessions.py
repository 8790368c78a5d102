"""Whose request it is, what a session may use, and what a weight update does to it."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from gateway_kit import STOP, Bench, call_text

from crrl.engines.scripted import ScriptedEngine
from crrl.errors import CrrlError
from crrl.gateway import Budget

USER = {"role": "user", "content": "hi"}
CHAT: dict = {"model": "m", "messages": [USER]}
PATHS: dict[str, dict] = {
    "chat/completions": CHAT,
    "completions": {"model": "m", "prompt": "word " * 30},
    "responses": {"model": "m", "input": "word " * 30},
    "messages": {"model": "m", "max_tokens": 40, "messages": [{"role": "user", "content": "word " * 30}]},
}


async def test_an_api_key_names_the_session_on_the_bare_address(bench: Bench) -> None:
    await bench.start(f"to a{STOP}", f"to b{STOP}")
    a, b = bench.gateway.open("a"), bench.gateway.open("b")
    client = bench.client(a).with_options(base_url=bench.gateway.base_url + "/v1")
    assert (await client.chat.completions.create(**CHAT)).choices[0].message.content == "to a"
    other = bench.anthropic(b).with_options(base_url=bench.gateway.base_url)
    assert (await other.messages.create(max_tokens=50, **CHAT)).content[0].text == "to b"
    assert [len((await bench.gateway.close(name)).samples) for name in "ab"] == [1, 1]
    with pytest.raises(openai.AuthenticationError) as refused:
        await client.chat.completions.create(**CHAT)
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError) as denied:
        await other.messages.create(max_tokens=50, **CHAT)
    assert denied.value.body["error"]["type"] == "authentication_error"


async def test_the_url_outranks_the_key(bench: Bench) -> None:
    await bench.start(f"ok{STOP}")
    a, b = bench.gateway.open("a"), bench.gateway.open("b")
    await bench.client(a).with_options(api_key=b.api_key).chat.completions.create(**CHAT)
    assert [len((await bench.gateway.close(name)).samples) for name in "ab"] == [1, 0]


async def test_a_unix_socket_is_one_session_whatever_the_request_says(bench: Bench, tmp_path: Path) -> None:
    await bench.start(*[f"ok{STOP}"] * 8)
    bench.gateway.open("a")
    b = bench.gateway.open("b")
    path = tmp_path / "gateway.sock"
    await bench.gateway.listen("a", path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    headers = {"authorization": f"Bearer {b.api_key}", "x-forwarded-host": b.base_url}
    async with httpx.AsyncClient(transport=transport, base_url="http://box:8000", headers=headers) as http:
        for name, body in PATHS.items():
            assert (await http.post(f"/v1/{name}", json=body)).status_code == 200
        assert (await http.get("/v1/models")).json()["data"][0]["id"] == "policy"
        token = b.base_url.split("/s/")[1]
        assert (await http.post(f"/s/{token}/chat/completions", json=CHAT)).status_code == 404
        async with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as reply:
            assert "[DONE]" in [line.removeprefix("data: ") async for line in reply.aiter_lines()]
        assert len((await bench.gateway.close("a")).samples) == 5
        assert not path.exists()
        kept_open = await http.post("/v1/chat/completions", json=CHAT)
        assert kept_open.status_code == 404  # the connection outlived the session, and is nobody's now
    assert (await bench.gateway.close("b")).samples == []


async def test_many_sockets_at_once(bench: Bench, tmp_path: Path) -> None:
    await bench.start_with(ScriptedEngine(lambda ids: bench.ids(f"ok{STOP}")))
    threads = threading.active_count()
    for i in range(40):
        bench.gateway.open(f"s{i}")
        await bench.gateway.listen(f"s{i}", tmp_path / f"{i}.sock")

    async def ask(i: int) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / f"{i}.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://box") as http:
            for _ in range(i % 3):
                await http.post("/v1/chat/completions", json=CHAT)

    await asyncio.gather(*(ask(i) for i in range(40)))
    assert threading.active_count() == threads
    assert [len((await bench.gateway.close(f"s{i}")).samples) for i in range(40)] == [i % 3 for i in range(40)]
    assert os.listdir(tmp_path) == []


async def test_a_socket_that_cannot_be_made_is_an_error_with_a_remedy(bench: Bench, tmp_path: Path) -> None:
    await bench.start()
    bench.gateway.open("a")
    for path in (tmp_path / "nowhere" / "x.sock", tmp_path / ("x" * 120)):
        with pytest.raises(CrrlError, match="folder that exists"):
            await bench.gateway.listen("a", path)
    assert (await bench.gateway.close("a")).samples == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["turns", "tokens", "seconds", "context"])
async def test_a_budget_is_refused_in_the_dialects_own_error(bench: Bench, path: str, name: str) -> None:
    await bench.start(*["word " * 50 + STOP] * 2)
    budgets = {"turns": Budget(turns=1), "tokens": Budget(tokens=5), "seconds": Budget(seconds=0.05)}
    handle = bench.gateway.open("a", budgets.get(name, Budget(context=20)))
    async with httpx.AsyncClient(verify=False) as http:
        if name in ("turns", "tokens"):
            first = await http.post(f"{handle.base_url}/{path}", json=PATHS[path])
            assert first.status_code == 200
        if name == "seconds":
            await asyncio.sleep(0.06)
        asked = len(bench.engine.requests)
        long = {"messages": [{"role": "user", "content": "word " * 30}]} if path == "chat/completions" else {}
        reply = await http.post(f"{handle.base_url}/{path}", json={**PATHS[path], **long, "stream": True})
    assert reply.status_code == 400 and len(bench.engine.requests) == asked
    error = reply.json()["error"]
    if path == "messages":
        assert error["type"] == "invalid_request_error" and error["message"].startswith("prompt is too long")
    else:
        assert error["code"] == "context_length_exceeded"
    assert (await bench.gateway.close("a")).exhausted == name


async def test_waiting_for_the_engine_costs_no_seconds(bench: Bench) -> None:
    await bench.start(f"ok{STOP}", f"ok{STOP}")
    client = bench.client(bench.gateway.open("a", Budget(seconds=0.5)))
    with ExitStack() as rest:
        rest.enter_context(bench.engine.resting())
        asyncio.get_running_loop().call_later(0.8, rest.pop_all().close)
    await client.chat.completions.create(**CHAT)
    await client.chat.completions.create(**CHAT)
    record = await bench.gateway.close("a")
    assert record.exhausted == "" and record.engine_wait_s > 0.7


@pytest.mark.parametrize("path", PATHS)
async def test_a_weight_update_holds_requests_and_freezes_streams(bench: Bench, path: str) -> None:
    """A stream that is under way, and a request that comes while the engine is held: both are answered."""
    await bench.start("one two three four five six" + STOP, f"later{STOP}", delay=0.01)
    handle = bench.gateway.open("a")
    body = {**PATHS[path], "max_tokens": 40} if path == "completions" else PATHS[path]
    other = {**CHAT, "messages": [{"role": "user", "content": "other"}]}
    late: asyncio.Task[httpx.Response] | None = None
    seen = 0
    async with httpx.AsyncClient(verify=False, timeout=20) as http:
        async with http.stream("POST", f"{handle.base_url}/{path}", json={**body, "stream": True}) as reply:
            async for line in reply.aiter_lines():
                seen += line.startswith("data:")
                if late is None and seen > 5:
                    with bench.engine.resting():
                        late = asyncio.create_task(http.post(f"{handle.base_url}/chat/completions", json=other))
                        await asyncio.sleep(0.1)
                        assert not late.done()
                        await bench.engine.push(None, 7)  # type: ignore[arg-type]
        assert late is not None and (await late).json()["choices"][0]["message"]["content"] == "later"
    samples = (await bench.gateway.close("a")).samples
    streamed = samples[0]
    assert set(streamed.versions) == {0, 7} and streamed.versions == sorted(streamed.versions)
    assert streamed.finish == "stop" and streamed.delivery == "delivered"
    assert set(samples[1].versions) == {7}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_after_a_lost_answer_is_that_very_sample(bench: Bench, path: str, stream: bool) -> None:
    await bench.start(f"one two three{STOP}")
    handle = bench.gateway.open("a")
    async with httpx.AsyncClient(verify=False) as http:
        replies = [
            await http.post(
                f"{handle.base_url}/{path}",
                json={**PATHS[path], "stream": stream},
                headers={"x-stainless-retry-count": str(i)},
            )
            for i in range(3)
        ]
    assert {r.status_code for r in replies} == {200} and len(bench.engine.requests) == 1
    assert all("three" in r.text for r in replies) or stream
    assert len((await bench.gateway.close("a")).samples) == 1


async def test_paths_that_are_no_api_are_404_in_the_dialect_of_who_asks(bench: Bench) -> None:
    await bench.start(call_text("ls"))
    handle = bench.gateway.open("a")
    async with httpx.AsyncClient(verify=False) as http:
        for path in ("", "/x", "/models/other", "/chat", "/messages/x"):
            openai_says = await http.get(handle.base_url + path)
            assert openai_says.status_code == 404 and set(openai_says.json()["error"]) > {"code", "param"}
            theirs = await http.get(handle.base_url + path, headers={"anthropic-version": "2023-06-01"})
            assert theirs.status_code == 404 and theirs.json()["error"]["type"] == "not_found_error"
        for path in (*PATHS, "messages/count_tokens"):
            assert (await http.get(f"{handle.base_url}/{path}")).status_code == 405
        assert (await http.get(f"{handle.base_url}/models/policy")).json()["id"] == "policy"
        big = await http.post(f"{handle.base_url}/messages", content=b" " * (65 * 2**20))
        assert big.status_code == 413 and big.json()["error"]["type"] == "request_too_large"
