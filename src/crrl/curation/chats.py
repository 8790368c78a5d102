"""The chat that recorded tokens are, proved: rendered again as `crrl sft` renders it, it gives the same tokens.

Only the tokens of an episode are in the ledger (invariant 1). Where roles stand between ChatML's marks they can be read
back: as calls and results of tools, or, where that renders otherwise, as the text that stands there. A conversation for
which neither gives the recorded tokens has no chat, and stays a row of tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer
from crrl.gateway.renderer.api import RenderError

TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n?", re.DOTALL)
TOOLS = re.compile(r"\A(.*?)(?:\n\n)?# Tools\n.*?<tools>\n(.*?)\n</tools>", re.DOTALL)
ARGUMENTS = re.compile(r'"arguments"\s*:\s*')
RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)

Chat = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def chat_of(ids: Sequence[int], trained: Sequence[int], renderer: Renderer) -> Chat | None:
    """(messages, tools) of one row, or None. `trained`: 1 where the policy sampled."""
    if "<|im_start|>" not in renderer.tokenizer.decode(list(ids[:8])):
        return None
    said = list(_parts(ids, trained))
    for structured in (True, False):
        try:
            messages, tools = _read(said, renderer, structured)
            if messages and _rendered(messages, tools, renderer) == list(ids):
                return plain(messages), tools
        except (RenderError, ValueError):
            continue
    return None


def _parts(ids: Sequence[int], trained: Sequence[int]) -> Iterator[tuple[bool, list[int]]]:
    """(sampled, ids) of each stretch."""
    start = 0
    for i in range(1, len(ids) + 1):
        if i == len(ids) or bool(trained[i]) != bool(trained[start]):
            yield bool(trained[start]), list(ids[start:i])
            start = i


def _read(
    parts: Sequence[tuple[bool, list[int]]], renderer: Renderer, structured: bool
) -> tuple[list[Message], list[dict[str, Any]]]:
    messages: list[Message] = []
    tools: list[dict[str, Any]] = []
    for sampled, ids in parts:
        if sampled:
            parsed = renderer.parse(ids)
            text = renderer.tokenizer.decode([i for i in ids if i not in renderer.stop_ids])
            calls = as_written(parsed.calls, text)
            turn = Message("assistant", parsed.content, calls, parsed.reasoning)
            messages.append(turn if structured else Message("assistant", text))
            continue
        for role, content in TURN.findall(renderer.tokenizer.decode(ids)):
            if structured and role == "system" and (found := TOOLS.search(content)):
                tools = [json.loads(line) for line in found[2].splitlines()]
                content = found[1]
            results = RESULT.findall(content) if structured and role == "user" else []
            if results:
                messages += [Message("tool", result) for result in results]
            elif content or role != "system":
                messages.append(Message(role, content))
    return messages, tools


def as_written(calls: Sequence[Call], text: str) -> list[Call]:
    """Calls with their arguments as they stand in the sampled text: other spaces, or a number written otherwise, would
    be other tokens."""
    written = []
    for found in ARGUMENTS.finditer(text):
        try:
            _, end = json.JSONDecoder().raw_decode(text, found.end())
        except ValueError:
            continue
        written.append(text[found.end() : end])
    if len(written) != len(calls):
        return list(calls)
    return [replace(call, arguments=arguments) for call, arguments in zip(calls, written, strict=True)]


def _rendered(messages: list[Message], tools: list[dict[str, Any]], renderer: Renderer) -> list[int]:
    """As `learning.sft_rows.of_conversation`, which will render it."""
    at = [i for i, message in enumerate(messages) if message.role == "assistant"]
    prompt = renderer.prompt(messages[: at[0]], tools or None) if at else []
    for turn, behind in zip(at, [*at[1:], None], strict=True):
        sampled = renderer.assistant(messages[turn])
        if behind is None:
            return prompt + sampled
        prompt = renderer.bridge(prompt, sampled, messages[turn + 1 : behind])
    return prompt


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As a request to chat completions has them. Results answer the calls before them, in order."""
    made: list[dict[str, Any]] = []
    waiting: list[str] = []
    for number, message in enumerate(messages):
        form: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning:
            form["reasoning_content"] = message.reasoning
        if message.calls:
            waiting = [f"call_{number}_{i}" for i in range(len(message.calls))]
            form["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for id, call in zip(waiting, message.calls, strict=True)
            ]
        elif message.role == "tool" and waiting:
            form["tool_call_id"], *waiting = waiting
        made.append(form)
    return made
