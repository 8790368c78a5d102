"""`/v1/responses` as the official client sees it."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest
from gateway_kit import STOP, Bench, call_text

from crrl.gateway import Budget
from crrl.gateway.api import Sample

SHELL = {"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": False}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x+/"},
}
AGENTS = {"type": "namespace", "name": "agents", "tools": [{**SHELL, "name": "spawn"}]}
TOOLS = [SHELL, PATCH, AGENTS, {"type": "web_search", "external_web_access": True}]
USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Repair stats.py."}]}
SEALED = {"store": False, "include": ["reasoning.encrypted_content"]}


def extends(child: Sample, parent: Sample) -> bool:
    whole = parent.prompt_ids + parent.ids
    return child.parent == parent.id and child.prompt_ids[: len(whole)] == whole


def called(name: str, arguments: dict) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


async def asked(client: openai.AsyncOpenAI, stream: bool, **body) -> openai.types.responses.Response:
    if not stream:
        return await client.responses.create(model="m", **body)
    async with client.responses.stream(model="m", **body) as events:
        return await events.get_final_response()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kept", ["content", "encrypted_content", "nothing", "interleaved"])
async def test_a_turn_leaves_as_items_and_comes_back_as_one_turn(bench: Bench, stream: bool, kept: str) -> None:
    calls = "\n".join(
        [
            called("shell", {"cmd": "ls"}),
            called("apply_patch", {"input": "xx\nx"}),
            called("agents__spawn", {"n": 1}),
        ]
    )
    await bench.start(f"<think>\nhm, hm\n</think>\n\nLooking.\n{calls}{STOP}", f"Done. \n{STOP}")
    client = bench.client(bench.gateway.open("a"))
    first = await asked(client, stream, input=[USER], tools=TOOLS, instructions="You repair.", **SEALED)
    assert [item.type for item in first.output] == [
        "reasoning",
        "message",
        "function_call",
        "custom_tool_call",
        "function_call",
    ]
    reasoning, message, shell, patch, spawn = first.output
    assert reasoning.content[0].text == "hm, hm" and message.content[0].text == first.output_text == "Looking."
    assert (shell.name, json.loads(shell.arguments)) == ("shell", {"cmd": "ls"})
    assert (patch.name, patch.input) == ("apply_patch", "xx\nx")
    assert (spawn.name, spawn.namespace, json.loads(spawn.arguments)) == ("spawn", "agents", {"n": 1})
    assert first.status == "completed" and first.usage.output_tokens_details.reasoning_tokens > 2
    back = [item.model_dump(exclude_none=True) for item in first.output]
    if kept == "nothing":
        del back[0]
    elif kept == "encrypted_content":
        back[0] = {**back[0], "content": [], "summary": []}
    outputs = [
        {"type": f"{'custom_tool' if c is patch else 'function'}_call_output", "call_id": c.call_id, "output": "out"}
        for c in (shell, patch, spawn)
    ]
    if kept == "interleaved":
        back = [*back[:3], outputs[0], back[3], outputs[1], back[4], outputs[2]]
    else:
        back += outputs
    second = await asked(client, stream, input=[USER, *back], tools=TOOLS, instructions="You repair.", **SEALED)
    assert second.output_text == "Done."
    one, two = (await bench.gateway.close("a")).samples
    assert extends(two, one) and two.branch == ""
    assert (second.usage.input_tokens, second.usage.output_tokens) == (len(two.prompt_ids), len(two.ids))
    prompt = bench.renderer.tokenizer.decode(one.prompt_ids)
    assert "agents__spawn" in prompt and "web_search" not in prompt and "start: /x+/" in prompt


async def test_the_stream_is_incremental_and_in_the_apis_own_grammar(bench: Bench) -> None:
    await bench.start(f"<think>\nhm, hm\n</think>\n\nLooking at it now.\n{call_text('ls')}")
    client = bench.client(bench.gateway.open("a"))
    kinds, numbers, items = [], [], {}
    stream = await client.responses.create(model="m", input="Repair.", tools=TOOLS, stream=True)
    async for event in stream:
        kinds.append(event.type)
        numbers.append(event.sequence_number)
        if event.type == "response.output_item.added":
            items[event.output_index] = event.item.id
        if "item_id" in event.model_fields_set:
            assert items[event.output_index] == event.item_id
        if event.type == "response.output_item.done":
            assert items[event.output_index] == event.item.id
        if event.type == "response.completed":
            assert {i: item.id for i, item in enumerate(event.response.output)} == items
    assert numbers == list(range(len(kinds)))
    assert list(dict.fromkeys(kinds)) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
    ]
    assert kinds.count("response.output_text.delta") > 4 and kinds.count("response.reasoning_text.delta") > 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_answer_is_incomplete_and_log_probs_are_told_when_asked(bench: Bench, stream: bool) -> None:
    await bench.start(*[f"one two three{STOP}"] * 2)
    client = bench.client(bench.gateway.open("a"))
    cut = await client.responses.create(model="m", input="x", max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    told = await asked(client, stream, input="y", include=["message.output_text.logprobs"])
    part = told.output[0].content[0]
    assert "".join(p.token for p in part.logprobs) == part.text == "one two three"
    assert {p.logprob for p in part.logprobs} == {-1.0}


async def test_an_engine_that_fails_and_budgets_in_the_apis_own_shape(bench: Bench) -> None:
    await bench.start()
    client = bench.client(bench.gateway.open("a", Budget(context=20)))
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="m", input="word " * 50)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    client = bench.client(bench.gateway.open("b"))
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model="m", input="x", stream=True)


BAD: list[tuple[str, dict]] = [
    ("input", {}),
    ("previous_response_id", {"input": "x", "previous_response_id": "resp_1"}),
    ("conversation", {"input": "x", "conversation": "c"}),
    ("background", {"input": "x", "background": True}),
    ("truncation", {"input": "x", "truncation": "auto"}),
    ("text.format", {"input": "x", "text": {"format": {"type": "json_schema"}}}),
    ("tool_choice", {"input": "x", "tool_choice": "required"}),
    ("top_logprobs", {"input": "x", "top_logprobs": 2}),
    ("tools[0].type", {"input": "x", "tools": [{"type": "code_interpreter"}]}),
    ("tools[0].tools[0].type", {"input": "x", "tools": [{"type": "namespace", "name": "a", "tools": [AGENTS]}]}),
    ("input[0].id", {"input": [{"type": "item_reference", "id": "x"}]}),
    ("input[0].type", {"input": [{"type": [[]]}]}),
    ("input[0].role", {"input": [{"role": "king", "content": "x"}]}),
    ("input[0].content[0]", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
    ("input[0].output", {"input": [{"type": "function_call_output", "output": 3}]}),
    ("input[0]", {"input": [{"type": "function_call", "arguments": "{}"}]}),
]


@pytest.mark.parametrize(("field", "body"), BAD)
async def test_what_cannot_be_done_is_named(bench: Bench, field: str, body: dict) -> None:
    await bench.start(f"ok{STOP}")
    handle = bench.gateway.open("a")
    async with httpx.AsyncClient(verify=False) as http:
        reply = await http.post(f"{handle.base_url}/responses", json={"model": "m", **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field), reply.text
    assert bench.engine.requests == []


async def test_the_synchronous_client(bench: Bench) -> None:
    await bench.start(*[f"one two{STOP}"] * 2)
    handle = bench.gateway.open("a")

    def talk() -> list[str]:
        with openai.OpenAI(base_url=handle.base_url, api_key="k", timeout=20) as client:
            whole = client.responses.create(model="m", input="x")
            with client.responses.stream(model="m", input="x") as events:
                return [whole.output_text, events.get_final_response().output_text]

    assert await asyncio.to_thread(talk) == ["one two", "one two"]
