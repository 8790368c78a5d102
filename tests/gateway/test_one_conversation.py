"""The tiny policy's own renderer, and one conversation carried on in all the dialects: the tree knows no dialect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from gateway_kit import Bench

from crrl.gateway import load_renderer
from crrl.models import model_folder

SCHEMA = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
FUNCTION = {"name": "shell", "description": "Run a command.", "parameters": SCHEMA}


def said(cmd: str, before: str) -> str:
    """As a policy may write it, and as no template would."""
    return f'{before}\n<tool_call>\n{{"name": "shell",  "arguments": {{ "cmd":"{cmd}" }}}}\n</tool_call><|im_end|>'


@pytest.fixture
async def tiny() -> AsyncIterator[Bench]:
    bench = Bench(load_renderer(model_folder("tiny"), "qwen3"))
    yield bench
    await bench.stop()
    await bench.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_one_conversation_in_three_dialects(tiny: Bench, stream: bool) -> None:
    await tiny.start(
        said("ls", "Look."),
        said("cat a.py", "<think>\nhm\n</think>\nRead."),
        said("pytest", "Test."),
        "Done.<|im_end|>",
    )
    handle = tiny.gateway.open("a")
    openai, anthropic = tiny.client(handle), tiny.anthropic(handle)

    tools = [{"type": "function", "function": FUNCTION}]
    asked = {"model": "m", "messages": [{"role": "system", "content": "Repair."}, {"role": "user", "content": "Go."}]}
    if stream:
        async with openai.chat.completions.stream(**asked, tools=tools) as events:
            first = (await events.get_final_completion()).choices[0].message
    else:
        first = (await openai.chat.completions.create(**asked, tools=tools)).choices[0].message
    call = first.tool_calls[0]
    assert (first.content, json.loads(call.function.arguments)) == ("Look.", {"cmd": "ls"})

    blocks = [{"type": "text", "text": first.content}]
    blocks.append({"type": "tool_use", "id": call.id, "name": "shell", "input": json.loads(call.function.arguments)})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "a.py"}
    history = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": [result]},
    ]
    tools = [{"name": "shell", "description": FUNCTION["description"], "input_schema": SCHEMA}]
    body = {"model": "m", "max_tokens": 500, "system": "Repair.", "messages": history, "tools": tools}
    if stream:
        async with anthropic.messages.stream(**body) as events:
            second = await events.get_final_message()
    else:
        second = await anthropic.messages.create(**body)
    thinking, text, use = second.content
    assert (thinking.thinking, text.text, use.input) == ("hm", "Read.", {"cmd": "cat a.py"})

    items = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "Look."},
        {"type": "function_call", "call_id": "1", "name": "shell", "arguments": '{"cmd": "ls"}'},
        {"type": "function_call_output", "call_id": "1", "output": "a.py"},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": "Read."},
        {"type": "function_call", "call_id": "2", "name": "shell", "arguments": '{"cmd":"cat a.py"}'},
        {"type": "function_call_output", "call_id": "2", "output": "x = 1"},
    ]
    tools = [{"type": "function", **FUNCTION}]
    asked = {"model": "m", "instructions": "Repair.", "tools": tools}
    for final in (False, True):
        if stream:
            async with openai.responses.stream(**asked, input=items) as events:
                third = await events.get_final_response()
        else:
            third = await openai.responses.create(**asked, input=items)
        assert third.output_text == ("Done." if final else "Test.")
        items += [item.model_dump(exclude_none=True) for item in third.output]
        items.append({"type": "function_call_output", "call_id": "x", "output": "passed"})

    samples = (await tiny.gateway.close("a")).samples
    assert [s.branch for s in samples] == ["first", "", "", ""] and {s.delivery for s in samples} == {"delivered"}
    for child, parent in zip(samples[1:], samples, strict=False):
        whole = parent.prompt_ids + parent.ids
        assert child.parent == parent.id and child.prompt_ids[: len(whole)] == whole
