"""The proof at the start that a renderer takes what agents do: whatever would fail in the middle of a run fails here.

For every key alike, through the renderer's own interface: system messages anywhere, a user who speaks twice or behind a
result, turns that the agent changed, results for some calls alone, text behind a call, a turn cut short, and arguments
that are easily read back as something else. Nothing may be lost or moved, and no earlier token may change.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer.api import Renderer, RenderError, Tools
from crrl.gateway.renderer.template import Refusal

# Arguments with their schemas.
_HARD: dict[str, tuple[Any, dict[str, Any]]] = {
    "edges": ("  if x:\n\treturn 'it\\'s' \"\\n\"\n\n", {"type": "string"}),
    "blank": (" \n", {"type": "string"}),
    "empty": ("", {"type": "string"}),
    "number_as_text": ("123", {"type": "string"}),
    "value_as_text": ("false", {"anyOf": [{"type": "string"}, {"type": "array"}]}),
    "python_as_text": ("None", {"type": "string"}),
    "flag": (False, {"type": "boolean"}),
    "set": (True, {"type": "boolean"}),
    "zero": (0, {"type": "integer"}),
    "nothing": (None, {"type": ["integer", "null"]}),
    "unset": (None, {"type": ["string", "null"]}),
    "list": (["it's", 1, None, [True]], {"type": "array"}),
    "no_items": ([], {"type": "array"}),
    "object": ({"a": {"b": [False, "é\n"]}}, {"type": "object"}),
}
HARD = Call("edit", json.dumps({name: value for name, (value, _) in _HARD.items()}, ensure_ascii=False))
TOOLS: Tools = [
    {
        "type": "function",
        "function": {
            "name": "edit",
            "description": "To edit.",
            "parameters": {"type": "object", "properties": {name: schema for name, (_, schema) in _HARD.items()}},
        },
    }
]
_PLAIN = Call("edit", '{"edges":"here"}')

_SYSTEM, _SECOND = Message("system", "Heliotrope."), Message("system", "Cinnabar.")
_USER, _MORE = Message("user", "Bring vermilion."), Message("user", "Bring ultramarine.")
_RESULT, _OTHER = Message("tool", "Found sienna."), Message("tool", "Found umber.")
_SAID = Message("assistant", "Here is ochre.")
_CALLED = Message("assistant", "", [_PLAIN])
_CHANGED = (  # as agents write turns themselves, or hand them back
    _SAID,
    Message("assistant", "Here is ochre.", [_PLAIN]),
    _CALLED,
    Message("assistant", "Here is ochre.", [_PLAIN], "It may be rust."),
    Message("assistant", "", [Call("edit", "{}")]),
    Message("assistant", ""),
)


def check(renderer: Renderer) -> None:
    """Raises Refusal: at which turn, and how."""
    tools = TOOLS if renderer.tools else None
    for turn, messages in _conversations(renderer.tools):
        _prompt(renderer, turn, messages, tools)
    for turn, answer, appended in _appended(renderer.tools):
        _bridge(renderer, turn, [_SYSTEM, _USER], answer, appended, tools)
    if renderer.tools:
        _arguments(renderer)
        _results_of_some(renderer)
        _text_behind_a_call(renderer)


def differences(sent: Call, read: list[Call]) -> str:
    """Between a call and how it reads back, in words; "": none."""
    if len(read) != 1 or read[0].name != sent.name:
        return f"a call of {sent.name} reads back as {[call.name for call in read]}"
    was, found = json.loads(sent.arguments), json.loads(read[0].arguments)
    for name, value in was.items():
        if name not in found or json.dumps(found[name]) != json.dumps(value):
            return f"the argument {value!r} reads back as {found.get(name, 'nothing')!r}"
    return f"arguments that nobody wrote: {sorted(found.keys() - was.keys())}" if found.keys() - was.keys() else ""


def _conversations(tools: bool) -> list[tuple[str, list[Message]]]:
    found = [
        ("two system messages", [_SYSTEM, _SECOND, _USER]),
        ("a system message behind a user's", [_SYSTEM, _USER, _SECOND]),
        ("a system message behind a user's, and none before", [_USER, _SECOND]),
        ("a system message alone", [_SYSTEM]),
        ("an answer at the beginning", [_SYSTEM, _SAID, _MORE]),
        ("two user messages", [_SYSTEM, _USER, _MORE]),
        ("a later system message", [_SYSTEM, _USER, _SAID, _SECOND, _MORE]),
        ("a system message at the end", [_SYSTEM, _USER, _SAID, _MORE, _SECOND]),
    ]
    if tools:
        found += [
            ("a user message behind a result", [_USER, _CALLED, _RESULT, _MORE]),
            ("a system message behind a result", [_SYSTEM, _USER, _CALLED, _RESULT, _SECOND]),
            ("a turn without its result", [_USER, _CALLED, _MORE]),
        ]
    return found


def _appended(tools: bool) -> list[tuple[str, Message, list[Message]]]:
    found = [
        ("a user message after an answer", _SAID, [_MORE]),
        ("a system and a user message after an answer", _SAID, [_SECOND, _MORE]),
        ("a user and a system message after an answer", _SAID, [_MORE, _SECOND]),
        ("a system message after an answer", _SAID, [_SECOND]),
        ("an empty answer", Message("assistant", ""), [_MORE]),
    ]
    if tools:
        changed = [(f"a changed turn, {_what(m)}", m, [_RESULT] if m.calls else [_MORE]) for m in _CHANGED]
        found += [
            *changed,
            ("a user message after a result", _CALLED, [_RESULT, _MORE]),
            ("a system message after a result", _CALLED, [_RESULT, _SECOND]),
            ("a system message before a result", _CALLED, [_SECOND, _RESULT]),
            ("a result that nobody asked for", _SAID, [_RESULT]),
            ("a system message after a call", _CALLED, [_SECOND]),
            ("two results after one call", _CALLED, [_RESULT, _OTHER]),
            ("no result after a call", _CALLED, [_MORE]),
        ]
    return found


def _what(message: Message) -> str:
    parts = [
        "with text" if message.content else "without text",
        f"{len(message.calls)} calls",
        "with reasoning" if message.reasoning else "without reasoning",
    ]
    return ", ".join(parts)


def _prompt(renderer: Renderer, turn: str, messages: list[Message], tools: Tools) -> None:
    try:
        text = renderer.tokenizer.decode(renderer.prompt(messages, tools))
    except RenderError as error:
        raise Refusal(turn, str(error)) from error
    _shown(turn, text, messages)


def _bridge(
    renderer: Renderer, turn: str, before: list[Message], answer: Message, appended: list[Message], tools: Tools
) -> None:
    try:
        prompt, ids = renderer.prompt(before, tools), renderer.assistant(answer)
        for sampled in filter(None, (ids, ids[:-1], ids[: len(ids) // 2])):  # whole, and cut short
            found = renderer.bridge(prompt, sampled, appended)
            start = len(prompt) + len(sampled)
            if found[:start] != [*prompt, *sampled]:
                raise Refusal(turn, "it changes tokens that were sampled, or stood before")
            answered = renderer.parse(sampled, tools, prompt).calls
            shown = sorted(appended, key=lambda m: m.role != "tool") if answered else appended  # results first
            _shown(turn, renderer.tokenizer.decode(found[start:]), shown)
    except RenderError as error:
        raise Refusal(turn, str(error)) from error


def _shown(turn: str, text: str, messages: list[Message]) -> None:
    """Each message's text once, in order."""
    at = -1
    for message in messages:
        if not message.content:
            continue
        if text.count(message.content) != 1:
            raise Refusal(turn, f"it shows the {message.role} message {text.count(message.content)} times")
        if text.index(message.content) < at:
            raise Refusal(turn, f"it moves the {message.role} message")
        at = text.index(message.content)


def _arguments(renderer: Renderer) -> None:
    turn = "a tool call"
    try:
        ids = renderer.assistant(Message("assistant", "", [HARD]))
    except RenderError as error:
        raise Refusal(turn, str(error)) from error
    read = renderer.parse(ids, TOOLS, renderer.prompt([_USER], TOOLS)).calls
    if different := differences(HARD, read):
        raise Refusal(turn, different)


def _results_of_some(renderer: Renderer) -> None:
    """Results of two calls: both, and that of the second alone."""
    answer = Message("assistant", "", [_PLAIN, HARD])
    try:
        ids = renderer.assistant(answer)
    except RenderError:
        return  # the template has room for one call
    if len(renderer.parse(ids, TOOLS, renderer.prompt([_USER], TOOLS)).calls) < 2:
        return
    second = replace(_OTHER, place=1)
    _bridge(renderer, "two results after two calls", [_USER], answer, [_RESULT, _OTHER], TOOLS)
    _bridge(renderer, "the second call's result alone", [_USER], answer, [second], TOOLS)
    _prompt(renderer, "the second call's result alone", [_USER, answer, second], TOOLS)


def _text_behind_a_call(renderer: Renderer) -> None:
    turn = "text behind a call"
    ids = renderer.assistant(_CALLED)
    sampled = [*ids[:-1], *renderer.tokenizer.encode(" Here is ochre."), ids[-1]]
    parsed = renderer.parse(sampled, TOOLS, renderer.prompt([_USER], TOOLS))
    if not parsed.calls and _PLAIN.name not in parsed.content:
        raise Refusal(turn, f"the call is gone: {parsed.content!r}")
    if "Here is ochre." not in parsed.content:
        raise Refusal(turn, f"the text is gone: {parsed.content!r}")
    before = renderer.prompt([_USER], TOOLS)
    try:
        found = renderer.bridge(before, sampled, [_RESULT])
    except RenderError as error:
        raise Refusal(turn, str(error)) from error
    start = len(before) + len(sampled)
    if found[:start] != [*before, *sampled]:
        raise Refusal(turn, "it changes tokens that were sampled, or stood before")
    _shown(turn, renderer.tokenizer.decode(found[start:]), [_RESULT])
