"""The forms in which templates without a hand-coded renderer write tool calls, and reading those from sampled ids.

The renderer never guesses a format: at the start it lets the template write a call, and takes the format that reads it
back (`generic.py`). A mark that begins a call must be one token, so text that only looks like a mark is not a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from crrl.gateway.canonical import Call
from crrl.gateway.renderer.api import arguments_text, is_name
from crrl.gateway.renderer.arguments import Schemas, written
from crrl.gateway.renderer.pythonic import calls_of

Decode = Callable[[list[int]], str]
_FUNCTION = re.compile(r"<function=([^<>\s]+)>")


@dataclass(frozen=True)
class Said:
    """What stands in an answer behind its reasoning. Broken calls stay in `content`, as they were sampled."""

    content: str
    calls: list[Call]
    malformed: int = 0


class CallFormat(Protocol):
    """`name`: as people call it. `call_start`: see `Renderer`. `read`: of ids without the turn's end."""

    @property
    def name(self) -> str: ...

    @property
    def call_start(self) -> str: ...

    def read(self, ids: list[int], decode: Decode, schemas: Schemas) -> Said: ...


@dataclass(frozen=True)
class Marked:
    """Blocks between two tokens, or from one token to the next such or the end: Hermes and Qwen2.5 (`<tool_call>`),
    Mistral (`[TOOL_CALLS]`), Phi-4-mini and Granite (`<|tool_call|>`), LFM2 (`<|tool_call_start|>`). A block holds a
    JSON call or a list of them, `name[ARGS]{...}`, `<function=name>` (Qwen3-Coder), or `[name(argument="value")]`.
    `several`: the template can show the results of more than one call; else the first alone is made. `raw`: text stands
    between its quotes as it is (`pythonic.py`)."""

    name: str
    opener: int
    closer: int | None
    several: bool = True
    call_start: str = ""
    raw: bool = False

    def read(self, ids: list[int], decode: Decode, schemas: Schemas) -> Said:
        texts: list[str] = []
        calls: list[Call] = []
        malformed, at, closing = 0, 0, -1  # `closing`: where the next closer is
        while at < len(ids):
            start = _find(ids, self.opener, at)
            texts.append(decode(ids[at:start]).strip())
            if start == len(ids):
                break
            if closing <= start:
                closing = _find(ids, self.closer, start + 1)
            end = min(_find(ids, self.opener, start + 1), closing)
            closed = self.closer is None or (end < len(ids) and ids[end] == self.closer)
            found = _block(decode(ids[start + 1 : end]), schemas, self.raw) if closed else None
            at = end + 1 if end < len(ids) and ids[end] == self.closer else end
            if found is None or (len(calls) + len(found) > 1 and not self.several):
                malformed += 1
                texts.append(decode(ids[start:at]))
            else:
                calls += found
        return Said("\n".join(t for t in texts if t), calls, malformed)


@dataclass(frozen=True)
class BareJson:
    """Llama 3: the whole answer is one JSON call, or stands behind `<|python_tag|>`, as JSON or as
    `name.call(argument="value")`."""

    python_tag: int | None
    name: str = "Llama 3 (JSON or <|python_tag|>)"
    call_start: str = "{"

    def read(self, ids: list[int], decode: Decode, schemas: Schemas) -> Said:
        tagged = _find(ids, self.python_tag, 0)
        before, text = decode(ids[:tagged]).strip(), decode(ids[tagged + 1 :]).strip()
        if tagged == len(ids):
            calls = _json_calls(before) if before.startswith("{") else None
            return Said("", calls) if calls else Said(before, [])
        calls = _json_calls(text) or calls_of(text)
        if calls:
            return Said(before, calls)
        return Said(decode(ids).strip(), [], malformed=1)


@dataclass(frozen=True)
class NoCalls:
    """Plain text: the agent writes its commands into its answers."""

    name: str = "plain text"
    call_start: str = ""

    def read(self, ids: list[int], decode: Decode, schemas: Schemas) -> Said:
        return Said(decode(ids).strip(), [])


def formats(token_id: Callable[[str], int | None]) -> list[CallFormat]:
    """Those that this tokenizer has the tokens for, the stricter first."""
    found: list[CallFormat] = []
    for name, opener, closer in (
        ("Hermes (<tool_call>)", "<tool_call>", "</tool_call>"),
        ("Phi and Granite (<|tool_call|>)", "<|tool_call|>", "<|/tool_call|>"),
        ("Mistral ([TOOL_CALLS])", "[TOOL_CALLS]", None),
        ("LFM2 (<|tool_call_start|>)", "<|tool_call_start|>", "<|tool_call_end|>"),
    ):
        start = token_id(opener)
        if start is not None:
            marked = Marked(name, start, token_id(closer) if closer else None)
            found += [marked, replace(marked, raw=True)]
    return [*found, BareJson(token_id("<|python_tag|>"))]


def _find(ids: list[int], token: int | None, start: int) -> int:
    """Where `token` is, or the length."""
    return next((i for i in range(start, len(ids)) if ids[i] == token), len(ids))


def _block(text: str, schemas: Schemas, raw: bool) -> list[Call] | None:
    """The calls of one block; None: not well formed."""
    name, mark, arguments = text.partition("[ARGS]")
    if mark:
        name, _, id = name.partition("[CALL_ID]")
        value = _json(arguments)
        if not is_name(name.strip()) or not isinstance(value, dict):
            return None
        return [Call(name.strip(), arguments_text(value), id.strip())]
    if "<function=" in text:
        return _xml_call(text, schemas)
    return _json_calls(text) or calls_of(text, raw=raw)


def _json_calls(text: str) -> list[Call] | None:
    value = _json(text)
    calls = [_call(item) for item in (value if isinstance(value, list) else [value])]
    good = [call for call in calls if call is not None]
    return good if good and len(good) == len(calls) else None


def _xml_call(text: str, schemas: Schemas) -> list[Call] | None:
    text = text.strip()
    function = _FUNCTION.match(text)
    if function is None or not is_name(function[1]):
        return None
    arguments = {}
    for key, value in written(text[function.end() :].removesuffix("</function>")).items():
        arguments[key] = schemas.read(function[1], key, value)
    return [Call(function[1], arguments_text(arguments))]


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    value = value.get("function", value) if isinstance(value.get("function"), dict) else value
    name, arguments, id = value.get("name"), value.get("arguments", value.get("parameters", {})), value.get("id")
    if not is_name(name) or not isinstance(arguments, dict):
        return None
    return Call(name, arguments_text(arguments), id if isinstance(id, str) else "")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
