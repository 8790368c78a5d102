"""Agents of all three APIs before a remote endpoint: what goes out, what comes back, what counts; and never trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from gateway_kit import Bench
from remote_kit import ChatServer, completion, error

from crrl.engines.remote import Endpoint
from crrl.gateway import Budget
from crrl.gateway.canonical import Call, Message
from crrl.gateway.spoken import NO_VERSION, chat_of

RUN = {"type": "function", "function": {"name": "run", "parameters": {"type": "object", "properties": {}}}}


def call(id: str, arguments: str = '{"cmd": "ls"}') -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "run", "arguments": arguments}}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    made = ChatServer()
    yield made
    made.close()


async def started(bench: Bench, server: ChatServer, *answers: Any) -> None:
    server.answers = [a if isinstance(a, tuple) else (200, a, {}) for a in answers]
    await bench.start_with(Endpoint(server.rest, first_wait_s=0.001))


async def test_chat_completions(bench: Bench, server: ChatServer) -> None:
    await started(bench, server, completion(None, "tool_calls", tool_calls=[call("x"), call("y")]), completion("Done."))
    handle = bench.gateway.open("a", Budget(tokens=100), temperature=0.0, top_p=0.5)
    client, messages = bench.client(handle), [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    first = await client.chat.completions.create(model="policy", messages=messages, tools=[RUN])  # type: ignore[call-overload]
    said = first.choices[0].message
    assert [c.function.arguments for c in said.tool_calls] == ['{"cmd": "ls"}'] * 2
    results = [{"role": "tool", "tool_call_id": c.id, "content": f"of {i}"} for i, c in enumerate(said.tool_calls)]
    again = [*messages, said.model_dump(exclude_none=True), *reversed(results)]
    second = await client.chat.completions.create(model="policy", messages=again, tools=[RUN])  # type: ignore[call-overload]
    assert second.choices[0].message.content == "Done." and second.choices[0].finish_reason == "stop"
    one, two = server.asked
    assert one["tools"] == [RUN] and one["max_tokens"] == 100 and two["max_tokens"] == 93
    assert (one["temperature"], one["top_p"]) == (0.0, 0.5)
    assert [m["role"] for m in two["messages"]] == ["system", "user", "assistant", "tool", "tool"]
    sent = {m["tool_call_id"]: m["content"] for m in two["messages"][3:]}
    assert [sent[c["id"]] for c in two["messages"][2]["tool_calls"]] == ["of 0", "of 1"]
    record = await bench.gateway.close("a")
    assert [s.params["completion_tokens"] for s in record.samples] == [7, 7] and record.exhausted == ""
    assert record.samples[1].parent == record.samples[0].id and record.samples[1].branch == ""
    for sample in record.samples:
        assert sample.ids and all(map(math.isnan, sample.logprobs)) and set(sample.versions) == {NO_VERSION}


async def test_messages_and_responses(bench: Bench, server: ChatServer) -> None:
    await started(bench, server, completion("Hello", reasoning_content="hm"))
    handle = bench.gateway.open("a")
    claude = await bench.anthropic(handle).messages.create(
        model="policy", max_tokens=9, system="S", messages=[{"role": "user", "content": "U"}]
    )
    assert [b.text for b in claude.content if b.type == "text"] == ["Hello"]
    answer = await bench.client(handle).responses.create(model="policy", instructions="S", input="U2")
    assert answer.output_text == "Hello"
    async with await bench.client(handle).chat.completions.create(
        model="policy", messages=[{"role": "user", "content": "U3"}], stream=True
    ) as stream:
        assert "".join([c.choices[0].delta.content or "" async for c in stream if c.choices]) == "Hello"
    chats = [body["messages"] for body in server.asked]
    system = {"role": "system", "content": "S"}
    assert chats[:2] == [[system, {"role": "user", "content": "U"}], [system, {"role": "user", "content": "U2"}]]


async def test_budgets_count_the_endpoints_tokens(bench: Bench, server: ChatServer) -> None:
    await started(bench, server, completion("a" * 400))
    handle = bench.gateway.open("a", Budget(tokens=14, turns=9))
    client = bench.client(handle)
    for n in range(2):
        await client.chat.completions.create(model="policy", messages=[{"role": "user", "content": str(n)}])
    with pytest.raises(openai.BadRequestError, match="14 tokens"):
        await client.chat.completions.create(model="policy", messages=[{"role": "user", "content": "3"}])
    assert (await bench.gateway.close("a")).exhausted == "tokens" and len(server.asked) == 2


async def test_a_full_context_is_a_budget_and_a_refusal_the_agents_own(bench: Bench, server: ChatServer) -> None:
    full = (400, error("maximum context length is 100 tokens"), {})
    filtered = (400, error("content filter"), {})
    await started(bench, server, completion("Hi"), full)
    for name, then in (("full", full), ("filtered", filtered)):
        server.answers = [(200, completion("Hi"), {}), then]
        client = bench.client(bench.gateway.open(name))
        await client.chat.completions.create(model="policy", messages=[{"role": "user", "content": "1"}])
        second = await client.chat.completions.create(model="policy", messages=[{"role": "user", "content": "2"}])
        assert not second.choices[0].message.content
        record = await bench.gateway.close(name)
        assert (record.exhausted, record.engine_failed) == ("context" if name == "full" else "", "")
        assert "refused" in record.samples[-1].params


async def test_what_failed_on_our_side_loses_the_episode(bench: Bench, server: ChatServer) -> None:
    await started(bench, server, (500, error("down"), {}))
    for name, then, said in (("down", 500, "failed 9 times"), ("never", 400, "bad schema"), ("key", 401, "no key")):
        server.answers = [(then, error(said), {})]
        client = bench.client(bench.gateway.open(name))
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(model="policy", messages=[{"role": "user", "content": "1"}])
        assert said in (await bench.gateway.close(name)).engine_failed


async def test_what_it_cannot_be_asked(bench: Bench, server: ChatServer) -> None:
    await started(bench, server, completion())
    client = bench.client(bench.gateway.open("a"))
    with pytest.raises(openai.BadRequestError, match="continues no text"):
        await client.completions.create(model="policy", prompt="def f")
    begun = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "Sure,"}]
    with pytest.raises(openai.BadRequestError, match="cannot go on"):
        await client.chat.completions.create(model="policy", messages=begun)  # type: ignore[arg-type]
    assert not server.asked


def test_calls_and_results_are_put_together_again() -> None:
    calls = [Call("f", "{}"), Call("g", "no json")]
    history = [Message("assistant", "x", calls), Message("tool", "of g", place=1), Message("tool", "of f")]
    chat = chat_of([*history, Message("user", "u"), Message("assistant", "", calls[:1]), Message("tool", "again")])
    of = {c["id"]: c["function"]["name"] for m in chat for c in m.get("tool_calls", [])}
    assert [(of[m["tool_call_id"]], m["content"]) for m in chat if m["role"] == "tool"] == [
        ("g", "of g"),
        ("f", "of f"),
        ("f", "again"),
    ]
    assert len(of) == 3 and json.dumps(chat).count("no json") == 1
