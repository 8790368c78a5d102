"""No body makes a 500 or a hung stream, and what is answered is in the API's own grammar (the clients' own types).

Bodies are drawn near to valid ones, answers from pieces of what a policy may babble. `make fuzz` draws many more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from gateway_kit import STOP, make_tokenizer
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from crrl.engines.scripted import ScriptedEngine
from crrl.gateway import Budget, Gateway, load_renderer

EXAMPLES = int(os.environ.get("CRRL_FUZZ", "4"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.reuse, Phase.generate])  # shrinking takes minutes
TOGETHER = 12  # requests of one example, which share a session
RENDERER = load_renderer(make_tokenizer(), "qwen3")
PIECES = ["a b", "\n\n", "<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "shell", ', '"arguments": {}}']
PIECES += [
    '<tool_call>{"name": "\\ud800", "arguments": {"a": "\\ud800"}}</tool_call>',
    '{"a": 1e999, "b": 9007199254740993}',
]
PIECES += ["é你", '{"name": "shell", "arguments": {"cmd": 1}}', "<|im_start|>", "\ufffd", "x", STOP]

TEXT = st.sampled_from(["", "hi", " a b\n", "<think>x</think>y", "<|im_end|>", "<tool_call>", "\u0000é你", "x" * 300])
TEXT |= st.text(max_size=8)
NAMES = ["type", "text", "content", "role", "name", "input", "id", "function", "arguments", "thinking", "output"]
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | TEXT, inner, max_size=3),
    max_leaves=5,
)


def near(*valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 30).flatmap(lambda i: JUNK if i == 0 else st.one_of(*valid))


def record(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def body(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return record({"stream": near(st.sampled_from([True, True, False])), **required}, **optional)


def typed(kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return record({"type": st.just(kind), **fields})


ARGUMENTS = st.sampled_from(["{}", '{"cmd": "ls"}', '{"cmd": ', "", "[1]", '{"a": 1e999}'])
SCHEMA = near(st.just({"type": "object", "properties": {"cmd": {"type": "string"}}}))
NAME = near(st.sampled_from(["shell", "f"]))
TOOL = record({"name": NAME}, description=near(TEXT), parameters=SCHEMA, input_schema=SCHEMA, cache_control=JUNK)
COMMON = {
    "model": near(st.just("policy")),
    "temperature": near(st.floats(0, 2)),
    "top_p": near(st.just(1.0)),
    "stop": near(st.just("a"), st.lists(TEXT, max_size=3)),
    "stop_sequences": near(st.lists(TEXT, max_size=3)),
    "max_tokens": near(st.integers(1, 50)),
    "n": near(st.integers(1, 3)),
    "seed": near(st.integers()),
    "tool_choice": near(st.sampled_from(["auto", "none"])),
    "parallel_tool_calls": near(st.booleans()),
    "stream_options": near(st.just({"include_usage": True})),
    "x_unknown": JUNK,
}
CALL = record({"function": record({"name": NAME, "arguments": near(ARGUMENTS)})}, id=near(TEXT), type=JUNK)
CHAT_TEXT = near(TEXT, st.lists(near(typed("text", text=near(TEXT))), max_size=3))
CHAT_MESSAGE = record(
    {"role": near(st.sampled_from(["user", "system", "tool", "developer"])), "content": CHAT_TEXT},
    tool_call_id=near(TEXT),
) | record(
    {"role": st.just("assistant"), "content": CHAT_TEXT},
    tool_calls=near(st.lists(near(CALL), max_size=2)),
    reasoning_content=near(TEXT),
)
CHAT = body(
    {"messages": near(st.lists(near(CHAT_MESSAGE), min_size=1, max_size=5))},
    tools=near(st.lists(near(typed("function", function=near(TOOL))), max_size=2)),
    logprobs=near(st.booleans()),
    **COMMON,
)
COMPLETION = body(
    {"prompt": near(TEXT, st.lists(st.integers(0, 300), max_size=9), st.lists(TEXT, max_size=2))},
    logprobs=near(st.just(0)),
    **COMMON,
)
TEXT_BLOCK = record({"type": st.just("text"), "text": near(TEXT)}, cache_control=JUNK)
THINKING = record({"type": st.just("thinking"), "thinking": near(TEXT)}, signature=near(TEXT))
TOOL_USE = record({"type": st.just("tool_use"), "name": NAME}, id=near(TEXT), input=near(st.just({"cmd": "ls"})))
TOOL_RESULT = typed("tool_result", content=near(TEXT, st.lists(near(TEXT_BLOCK), max_size=2)), is_error=JUNK)
TURN = record(
    {"role": st.just("user"), "content": near(TEXT, st.lists(near(TEXT_BLOCK, TOOL_RESULT), max_size=4))}
) | record(
    {
        "role": near(st.just("assistant")),
        "content": near(TEXT, st.lists(near(TEXT_BLOCK, THINKING, TOOL_USE), max_size=4)),
    }
)
MESSAGES = body(
    {"messages": near(st.lists(near(TURN), min_size=1, max_size=5))},
    system=CHAT_TEXT,
    tools=near(st.lists(near(TOOL), max_size=2)),
    thinking=near(st.just({"type": "enabled", "budget_tokens": 10})),
    context_management=near(st.just({"edits": []})),
    output_config=near(st.just({"effort": "low"})),
    **{**COMMON, "tool_choice": near(st.just({"type": "auto", "disable_parallel_tool_use": True}))},
)
RESPONSE_TOOL = near(
    record(
        {"type": st.sampled_from(["function", "custom", "web_search"]), "name": NAME}, parameters=SCHEMA, format=JUNK
    ),
    typed("namespace", name=NAME, tools=near(st.lists(near(typed("function", name=NAME)), max_size=2))),
)
ITEM = near(
    record(
        {
            "role": near(st.sampled_from(["user", "assistant", "developer"])),
            "content": near(TEXT, st.lists(near(typed("input_text", text=near(TEXT))), max_size=2)),
        },
        type=st.just("message"),
    ),
    typed(
        "reasoning", content=near(st.lists(near(typed("reasoning_text", text=near(TEXT))), max_size=2)), summary=JUNK
    ),
    typed("reasoning", encrypted_content=near(st.sampled_from(["crrl-", "crrl-eA==", "crrl-/w==", "crrl-€"]))),
    record(
        {"type": st.just("function_call"), "name": NAME}, arguments=near(ARGUMENTS), call_id=near(TEXT), namespace=JUNK
    ),
    record({"type": st.just("custom_tool_call"), "name": NAME}, input=near(TEXT), call_id=near(TEXT)),
    typed("function_call_output", output=near(TEXT), call_id=near(TEXT)),
)
RESPONSES = body(
    {"input": near(TEXT, st.lists(ITEM, max_size=6))},
    instructions=near(TEXT),
    tools=near(st.lists(RESPONSE_TOOL, max_size=3)),
    include=near(st.just(["reasoning.encrypted_content", "message.output_text.logprobs"])),
    reasoning=near(st.just({"effort": "high"})),
    text=near(st.just({"format": {"type": "text"}})),
    **COMMON,
)
BODIES = {
    "chat/completions": CHAT,
    "completions": COMPLETION,
    "messages": MESSAGES,
    "messages/count_tokens": MESSAGES,
    "responses": RESPONSES,
}


def raw(body: dict[str, Any], kept: float) -> bytes:
    """As JSON; now and then broken off."""
    sent = json.dumps(body).encode()
    return sent[: round(len(sent) * kept)]


KEPT = st.sampled_from([1.0] * 20 + [0.9, 0.5, 0.0])


def babble(prompt_ids: list[int]) -> list[int]:
    chance = random.Random(str(prompt_ids))
    return RENDERER.tokenizer.encode("".join(chance.choices(PIECES, k=chance.randrange(9))) + STOP)


WHOLE = {"chat/completions": ChatCompletion, "completions": Completion, "messages": Message, "responses": Response}
EVENT: dict[str, TypeAdapter[Any]] = {
    "chat/completions": TypeAdapter(ChatCompletionChunk),
    "messages": TypeAdapter(RawMessageStreamEvent),
    "responses": TypeAdapter(ResponseStreamEvent),
}


def check_whole(path: str, reply: httpx.Response) -> None:
    if path in WHOLE:
        WHOLE[path].model_validate_json(reply.content)
    else:
        assert reply.json()["input_tokens"] > 0


def check_stream(path: str, reply: httpx.Response) -> None:
    sent = [line[len("data: ") :] for line in reply.text.split("\n") if line.startswith("data: ")]
    if "completions" in path:
        assert sent.pop() == "[DONE]"
    events = [json.loads(event) for event in sent]
    if path == "completions":
        assert all(event["object"] == "text_completion" for event in events)
        return
    for event in events:
        if event.get("type") != "ping":
            EVENT[path].validate_python(event)
    last = events[-1].get("type")
    assert path == "chat/completions" or last in ("message_stop", "response.completed", "response.incomplete")


def check_error(path: str, reply: httpx.Response) -> None:
    error = reply.json()["error"]
    assert reply.status_code == 400 and isinstance(error["message"], str)
    assert set(error) == ({"type", "message"} if "messages" in path else {"message", "type", "param", "code"})


@contextmanager
def told(body: bytes, reply: httpx.Response) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{body!r} gave {reply.status_code} {reply.text}") from error


async def post_all(path: str, bodies: list[bytes]) -> None:
    gateway = Gateway(ScriptedEngine(babble, step=2, vocab_size=400), RENDERER)
    await gateway.start()
    handle = gateway.open("a", Budget(turns=1000, tokens=100_000))
    try:
        async with httpx.AsyncClient(verify=False, timeout=10) as http:
            replies = await asyncio.gather(
                *(http.post(f"{handle.base_url}/{path}", content=body, timeout=10) for body in bodies)
            )
        for body, reply in zip(bodies, replies, strict=True):
            with told(body, reply):
                if reply.status_code != 200:
                    check_error(path, reply)
                elif reply.headers["content-type"].startswith("text/event-stream"):
                    check_stream(path, reply)
                else:
                    check_whole(path, reply)
        record = await gateway.close("a")
        assert record.engine_failed == "" and all(s.finish in ("stop", "length") for s in record.samples)
    finally:
        await gateway.stop()


@pytest.mark.parametrize("path", BODIES)
def test_no_500_no_hung_stream_and_the_apis_own_grammar(path: str) -> None:
    bodies = st.lists(st.builds(raw, BODIES[path], KEPT), min_size=TOGETHER, max_size=TOGETHER)

    @given(bodies)
    @FUZZ
    def run(bodies: list[bytes]) -> None:
        asyncio.run(post_all(path, bodies))

    run()


@given(st.lists(st.binary(max_size=60), min_size=TOGETHER, max_size=TOGETHER), st.sampled_from(list(BODIES)))
@FUZZ
def test_bytes_that_are_no_json(bodies: list[bytes], path: str) -> None:
    asyncio.run(post_all(path, bodies))
