"""`renderer.calls=lenient`: calls as small models were seen to write them, without their template's marks."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from gateway_kit import STOP, Bench, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from crrl.gateway.api import Budget
from crrl.gateway.renderer import load_renderer
from crrl.gateway.renderer.api import Parsed
from crrl.gateway.renderer.lenient import lenient, strict

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("shell", "edit")]
LS = '{"name": "shell", "arguments": {"cmd": "ls"}}'
PWD = '{"name": "shell", "arguments": {"cmd": "pwd"}}'
LIST = ("shell", {"cmd": "ls"})
WHERE = ("shell", {"cmd": "pwd"})


def read(text: str) -> tuple[str, list[tuple[str, object]], str, int]:
    said = lenient(Parsed(text), TOOLS)
    return said.content, [(c.name, json.loads(c.arguments)) for c in said.calls], said.read, said.malformed


@pytest.mark.parametrize(
    "text,calls,how",
    [
        (LS, [LIST], "bare"),
        (f"```json\n{LS}\n```", [LIST], "fence"),
        (f"```\n{LS}\n```", [LIST], "fence"),
        (f"```json\n{LS}", [LIST], "fence"),
        (LS[:-1], [LIST], "repaired"),
        (LS[:-2], [LIST], "repaired"),
        (f"```json\n{LS[:-1]}\n```", [LIST], "repaired"),
        (f"{LS}\n{PWD}", [LIST, WHERE], "bare"),
        (f"[{LS}, {PWD}]", [LIST, WHERE], "bare"),
        (f"{LS}\nThis lists the files.", [LIST], "bare"),
        (f"```json\n{LS}\n```\n\nThen:\n```json\n{PWD}\n```", [LIST, WHERE], "fence"),
        (f"```json\n{LS}\n{PWD}\n```", [LIST, WHERE], "fence"),
        (f"<tool_call>\n{LS}", [LIST], "marked"),
        (f"<tool_call>\n{LS[:-1]}\n</tool_call>", [LIST], "repaired"),
        ('{"function": {"name": "shell", "arguments": "{\\"cmd\\": \\"ls\\"}"}}', [LIST], "bare"),
        ('{"name": "shell", "parameters": {"cmd": "ls"}}', [LIST], "bare"),
        ('{"name": "edit", "arguments": {"path": "a", "old": "x\ny", "new": ""}}', None, "bare"),
    ],
)
def test_what_small_models_write_is_read(text: str, calls: list[tuple[str, object]] | None, how: str) -> None:
    content, found, said_how, malformed = read(text)
    assert found == (calls if calls is not None else [("edit", {"path": "a", "old": "x\ny", "new": ""})])
    assert (content, said_how, malformed) == ("", how, 0)


def test_the_text_in_front_of_a_call_is_its_content() -> None:
    assert read(f"I look first.\n\n```json\n{LS}\n```\nDone.")[:2] == ("I look first.", [LIST])
    assert read(f"I look first: {LS} and that is all")[:2] == ("I look first:", [LIST])


@pytest.mark.parametrize(
    "text",
    [
        "All done.",
        'The config is {"debug": true}.',
        "```python\nx = {'name': 1}\n```",
        '```json\n{"version": 2}\n```',
        "{",
        "[" * 5000,
        '{"a":' * 3000,
        "f(x) = {x}",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert read(text) == (text, [], "", 0)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "shell", "arguments": {"cmd": "ls',
        '{"name": "shell", "arguments": "ls"}',
        '{"name": "nothing", "arguments": {}}',
        "{'name': 'shell', 'arguments': {'cmd': 'ls'}}",
        '{"name": "shell" "arguments": {}}',
    ],
)
def test_what_looks_like_a_call_and_is_none_counts_as_malformed(text: str) -> None:
    assert read(text) == (text, [], "", 1)


def test_the_familys_own_calls_come_first_and_strict_reads_nothing_else() -> None:
    assert strict(Parsed(LS), TOOLS) == Parsed(LS)
    own = lenient(Parsed(LS), TOOLS).calls
    said = Parsed(PWD, calls=own)
    assert lenient(said, TOOLS) is said


@given(st.text(alphabet='{}[]"`\\:, \nnametoolrgus<>_', max_size=80))
def test_nothing_breaks_it(text: str) -> None:
    said = lenient(Parsed(text), TOOLS)
    assert said.calls or said.content == text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fenced_call_reaches_the_agent_and_its_tokens_stay(stream: bool) -> None:
    """The turn comes back as a call of the API; its sampled ids stand in the next prompt as they were."""
    renderer = load_renderer(make_tokenizer(), "qwen3", "lenient")
    bench = Bench(renderer)
    try:
        sampled = f"I look.\n```json\n{LS}\n```{STOP}"
        await bench.start(sampled, f"Done.{STOP}")
        client = bench.client(bench.gateway.open("s", Budget()))
        tools: list[Any] = TOOLS
        messages: list[Any] = [{"role": "user", "content": "Go."}]
        if stream:
            content, name, arguments, id = "", "", "", ""
            async for chunk in await client.chat.completions.create(
                model="m", messages=messages, tools=tools, stream=True
            ):
                for choice in chunk.choices:
                    content += choice.delta.content or ""
                    for part in choice.delta.tool_calls or []:
                        assert part.function is not None
                        name, arguments, id = (
                            name + (part.function.name or ""),
                            arguments + (part.function.arguments or ""),
                            part.id or id,
                        )
        else:
            answer = (
                (await client.chat.completions.create(model="m", messages=messages, tools=tools)).choices[0].message
            )
            assert answer.tool_calls is not None
            call: Any = answer.tool_calls[0]
            content, name, arguments, id = answer.content or "", call.function.name, call.function.arguments, call.id
        assert (content, name, json.loads(arguments)) == ("I look.", "shell", {"cmd": "ls"})
        messages += [
            {
                "role": "assistant",
                "content": content,
                "tool_calls": [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}],
            },
            {"role": "tool", "tool_call_id": id, "content": "a.py"},
        ]
        await client.chat.completions.create(model="m", messages=messages, tools=tools)
        first, second = (await bench.gateway.close("s")).samples
        assert first.params["calls_read"] == "fence" and second.parent == first.id
        assert second.prompt_ids[: len(first.prompt_ids) + len(first.ids)] == first.prompt_ids + first.ids
    finally:
        await bench.stop()
        await bench.close()


def test_marks_within_an_argument_are_the_arguments_own() -> None:
    cmd = "grep -c '<tools>' a.txt </tool_call> [TOOL_CALLS]"
    call = json.dumps({"name": "shell", "arguments": {"cmd": cmd}})
    for text in (
        call,
        f"So:\n{call}\nDone.",
        f"```json\n{call}\n```",
        f"<tool_call>{call}</tool_call><tool_call>{PWD}",
    ):
        assert read(text)[1][0] == ("shell", {"cmd": cmd})


@pytest.mark.parametrize(
    "text", ['{"name": ', '{"a":1}', "{", "[", "```json\n{", "```", '"', '{"name":"x","arguments":', "<tool_call>"]
)
def test_a_long_answer_is_read_in_linear_time(text: str) -> None:
    """On the loop that all agents share: the first took minutes."""
    began = time.process_time()
    lenient(Parsed(content=text * (250_000 // len(text))), None)
    assert time.process_time() - began < 5
