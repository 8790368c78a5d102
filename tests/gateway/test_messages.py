"""`/v1/messages` as the official client sees it."""

from __future__ import annotations

import asyncio
import json

import anthropic
import httpx
import pytest
from gateway_kit import STOP, Bench, call_text

from crrl.gateway import Budget
from crrl.gateway.api import Sample

USER = {"role": "user", "content": "Repair stats.py."}
SHELL = {"name": "shell", "input_schema": {"type": "object", "properties": {"cmd": {"type": "string"}}}}
ASK: dict = {"model": "m", "max_tokens": 500}
WANTED = {"temperature": 0.0, "top_k": 5}
THOUGHT = f"<think>\nhm, hm\n</think>\n\nLooking.\n{call_text('ls')[: -len(STOP)]}\n{call_text('cat x')}"


def extends(child: Sample, parent: Sample) -> bool:
    whole = parent.prompt_ids + parent.ids
    return child.parent == parent.id and child.prompt_ids[: len(whole)] == whole


async def asked(client: anthropic.AsyncAnthropic, stream: bool, **body) -> anthropic.types.Message:
    if not stream:
        return await client.messages.create(**ASK, **body)
    async with client.messages.stream(**ASK, **body) as events:
        return await events.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_text_and_parallel_calls_come_and_go_back_as_blocks(bench: Bench, stream: bool) -> None:
    await bench.start(THOUGHT, f"Done. \n{STOP}")
    client = bench.anthropic(bench.gateway.open("a"))
    system = [{"type": "text", "text": "You repair code.", "cache_control": {"type": "ephemeral"}}]
    first = await asked(client, stream, messages=[USER], tools=[SHELL], system=system, extra_body=WANTED)
    thinking, text, *calls = first.content
    assert (thinking.type, thinking.thinking, text.text) == ("thinking", "hm, hm", "Looking.") and thinking.signature
    assert [(c.name, c.input) for c in calls] == [("shell", {"cmd": "ls"}), ("shell", {"cmd": "cat x"})]
    assert first.stop_reason == "tool_use" and calls[0].id != calls[1].id
    results = [
        {"type": "tool_result", "tool_use_id": c.id, "content": [{"type": "text", "text": "out"}]} for c in calls
    ]
    history = [
        USER,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": [*results, {"type": "text", "text": "and on"}]},
        {"role": "system", "content": "Be quick."},
    ]
    second = await asked(client, stream, messages=history, tools=[SHELL], system="You repair code.")
    assert (second.content[0].text, second.stop_reason) == ("Done.", "end_turn")
    one, two = (await bench.gateway.close("a")).samples
    assert extends(two, one) and two.branch == ""
    assert (second.usage.input_tokens, second.usage.output_tokens) == (len(two.prompt_ids), len(two.ids))
    tail = bench.renderer.tokenizer.decode(two.prompt_ids[len(one.prompt_ids) + len(one.ids) :])
    assert tail.count("<tool_response>") == 2 and tail.index("and on") < tail.index("Be quick.")
    assert (
        one.params["asked_temperature"] == 0.0 and one.params["asked_top_k"] == 5 and one.params["temperature"] == 1.0
    )


async def test_the_stream_is_incremental_and_in_the_apis_own_grammar(bench: Bench) -> None:
    await bench.start(THOUGHT)
    handle = bench.gateway.open("a")
    kinds, deltas, index = [], 0, -1
    async with bench.anthropic(handle).messages.stream(**ASK, messages=[USER], tools=[SHELL]) as events:
        async for event in events:
            if event.type == "content_block_start":
                assert event.index == index + 1
                index = event.index
                kinds.append(event.content_block.type)
            deltas += event.type == "content_block_delta" and event.delta.type in ("text_delta", "thinking_delta")
    assert kinds == ["thinking", "text", "tool_use", "tool_use"] and deltas > 8
    async with httpx.AsyncClient(verify=False) as http:
        body = {**ASK, "messages": [USER], "stream": True}
        headers = {"x-stainless-retry-count": "1"}
        reply = await http.post(
            handle.base_url + "/messages?beta=true", json={**body, "tools": [SHELL]}, headers=headers
        )
    events = [line.removeprefix("event: ") for line in reply.text.splitlines() if line.startswith("event: ")]
    named = [json.loads(line[6:])["type"] for line in reply.text.splitlines() if line.startswith("data: ")]
    assert events == named and events[0] == "message_start" and events[-2:] == ["message_delta", "message_stop"]
    assert len((await bench.gateway.close("a")).samples) == 1  # the retry got the stored sample


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_reasons(bench: Bench, stream: bool) -> None:
    await bench.start(f"one two three{STOP}", f"one two three{STOP}", f"one two three{STOP}", STOP)
    client = bench.anthropic(bench.gateway.open("a"))
    ended = await asked(client, stream, messages=[USER])
    assert (ended.stop_reason, ended.stop_sequence, ended.content[0].text) == ("end_turn", None, "one two three")
    cut = await asked(client, stream, messages=[USER], stop_sequences=["zzz", "two"])
    assert (cut.stop_reason, cut.stop_sequence, cut.content[0].text) == ("stop_sequence", "two", "one")
    full = await asked(client.with_options(), stream, messages=[USER, {"role": "user", "content": "x"}])
    assert full.stop_reason == "end_turn"
    nothing = await asked(client, stream, messages=[{"role": "user", "content": "y"}])
    assert [block.text for block in nothing.content] == [""]
    short = (await bench.gateway.close("a")).samples[1]
    assert bench.renderer.tokenizer.decode(short.ids).startswith("one two") and len(short.ids) < len(
        bench.ids(f"one two three{STOP}")
    )


async def test_tokens_are_counted_without_sampling(bench: Bench) -> None:
    await bench.start(f"ok{STOP}")
    client = bench.anthropic(bench.gateway.open("a"))
    counted = await client.messages.count_tokens(model="m", messages=[USER], tools=[SHELL], system="s")
    assert bench.engine.requests == []
    reply = await client.messages.create(**ASK, messages=[USER], tools=[SHELL], system="s")
    assert counted.input_tokens == reply.usage.input_tokens == len(bench.engine.requests[0].prompt_ids)
    models = [m async for m in client.models.list()]
    assert [m.id for m in models] == ["policy"] and (await client.models.retrieve("policy")).type == "model"


async def test_errors_have_the_apis_own_shape(bench: Bench) -> None:
    await bench.start(f"ok{STOP}")
    client = bench.anthropic(bench.gateway.open("a", Budget(context=20)))
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: .* 20 tokens") as refused:
        await client.messages.create(**ASK, messages=[{"role": "user", "content": "word " * 50}])
    assert refused.value.body["error"]["type"] == "invalid_request_error" and bench.engine.requests == []
    assert (await bench.gateway.close("a")).exhausted == "context"
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(**ASK, messages=[USER])
    client = bench.anthropic(bench.gateway.open("b"))
    with pytest.raises(anthropic.BadRequestError, match="tool_choice"):
        await client.messages.create(**ASK, messages=[USER], tools=[SHELL], tool_choice={"type": "any"})
    bench.engine._answers = iter([])
    for stream in (False, True):
        with pytest.raises(anthropic.InternalServerError) as failed:
            await asked(client.with_options(max_retries=3), stream, messages=[USER])
        assert failed.value.status_code == 503 and failed.value.body["error"]["type"] == "api_error"
    assert len(bench.engine.requests) == 1


BAD: list[tuple[str, dict]] = [
    ("messages", {"messages": []}),
    ("role", {"messages": [{"role": "king", "content": "x"}]}),
    ("content", {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
    ("content", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": 5}]}]}),
    ("content", {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": 1}]}]}),
    ("type", {"messages": [USER], "tools": [{"type": "bash_20250124", "name": "bash"}]}),
    ("name", {"messages": [USER], "tools": [{"input_schema": {}}]}),
    ("max_tokens", {"messages": [USER], "max_tokens": 0}),
    ("mcp_servers", {"messages": [USER], "mcp_servers": [{"url": "x"}]}),
    ("output_config.format", {"messages": [USER], "output_config": {"format": {"type": "json_schema"}}}),
    ("context_management", {"messages": [USER], "context_management": {"edits": [{"type": "clear_tool_uses_1"}]}}),
    ("body", {"messages": [USER], "system": 5}),
]


@pytest.mark.parametrize(("field", "body"), BAD)
async def test_what_cannot_be_done_is_named(bench: Bench, field: str, body: dict) -> None:
    await bench.start(f"ok{STOP}")
    handle = bench.gateway.open("a")
    async with httpx.AsyncClient(verify=False) as http:
        reply = await http.post(f"{handle.base_url}/messages", json={**ASK, **body})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and field in error["message"]
    assert bench.engine.requests == []


async def test_unknown_fields_and_hosted_tools_are_accepted(bench: Bench) -> None:
    await bench.start(f"ok{STOP}")
    client = bench.anthropic(bench.gateway.open("a"))
    reply = await client.beta.messages.create(
        **ASK,
        messages=[USER],
        tools=[SHELL, {"type": "web_search_20250305", "name": "web_search"}],
        thinking={"type": "adaptive"},
        betas=["context-management-2025-06-27"],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        metadata={"user_id": "x"},
        extra_body={"x_unknown": [1], "output_config": {"effort": "high"}},
    )
    assert reply.content[0].text == "ok"
    sample = (await bench.gateway.close("a")).samples[0]
    assert "web_search" not in bench.renderer.tokenizer.decode(sample.prompt_ids)
    assert sample.params["asked_reasoning_effort"] == "high"


async def test_the_synchronous_client(bench: Bench) -> None:
    await bench.start(*[f"one two{STOP}"] * 2)
    handle = bench.gateway.open("a")

    def talk() -> list[str]:
        with anthropic.Anthropic(base_url=handle.base_url.removesuffix("/v1"), api_key="k", timeout=20) as client:
            whole = client.messages.create(**ASK, messages=[USER])
            with client.messages.stream(**ASK, messages=[USER]) as events:
                return [whole.content[0].text, "".join(events.text_stream)]

    assert await asyncio.to_thread(talk) == ["one two", "one two"]
