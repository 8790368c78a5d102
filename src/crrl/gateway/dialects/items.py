"""The items of `/v1/responses`: messages and tools on the way in, a growing turn on the way out."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from crrl.gateway.api import BadRequest
from crrl.gateway.canonical import Call, Message
from crrl.gateway.dialects import common
from crrl.gateway.dialects.common import Answer
from crrl.gateway.dialects.history import put_in_order
from crrl.gateway.stream import Delta

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_HOSTED = ("web_search", "web_search_preview", "web_search_2025_08_26")  # run by the API's servers: not offered here
_SEALED = "crrl-"
_OUR_ITEM = re.compile(r"(?:msg|rs|fc|ctc)_([0-9a-f]{24})_[0-9]+")

Event = tuple[str, dict[str, Any]]
Name = tuple[str, str | None]  # a tool's own name, and its namespace


@dataclass(frozen=True)
class Names:
    """The client's names for the tools that the policy sees."""

    of: dict[str, Name] = field(default_factory=dict)
    custom: set[str] = field(default_factory=set)


def offered(tools: list[dict[str, Any]], where: str = "tools", space: str | None = None) -> tuple[list[Any], Names]:
    """Tools in the form of chat completions, and their names."""
    shown: list[dict[str, Any]] = []
    names = Names()
    for i, tool in enumerate(tools):
        kind, name = tool.get("type"), tool.get("name")
        if kind in _HOSTED:
            continue
        if kind not in ("function", "custom", "namespace") or (kind == "namespace" and space is not None):
            raise common.unsupported_value(f"{where}[{i}].type", f"cannot be {kind!r}")
        if not isinstance(name, str):
            raise BadRequest("A tool must have a 'name'.", f"{where}[{i}].name")
        if kind == "namespace":
            inner = tool.get("tools")
            if not isinstance(inner, list) or not all(isinstance(t, dict) for t in inner):
                raise BadRequest("A namespace must have a list of 'tools'.", f"{where}[{i}].tools")
            more, theirs = offered(inner, f"{where}[{i}].tools", name)
            shown += more
            names.of.update(theirs.of)
            names.custom.update(theirs.custom)
            continue
        full = _full_name(name, space)
        names.of[full] = name, space
        if kind == "custom":
            names.custom.add(full)
            shown.append(common.chat_tool(full, _custom_description(tool), _CUSTOM_PARAMETERS))
        else:
            shown.append(common.chat_tool(full, tool.get("description"), tool.get("parameters")))
    return shown, names


_CUSTOM_PARAMETERS = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def _custom_description(tool: dict[str, Any]) -> str | None:
    form = tool.get("format")
    description = tool.get("description")
    if isinstance(form, dict) and isinstance(form.get("definition"), str):
        grammar = f"The input follows this grammar ({form.get('syntax')}):\n{form['definition']}"
        return f"{description}\n{grammar}" if isinstance(description, str) else grammar
    return description if isinstance(description, str) else None


def _full_name(name: str, space: Any) -> str:
    return f"{space}__{name}" if isinstance(space, str) and space else name


@dataclass
class _Turn:
    """An assistant turn, put together again from its items."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    sampled: str = ""

    def message(self) -> Message:
        return Message("assistant", self.content, self.calls, self.reasoning, sampled=self.sampled)


def messages_of(instructions: str | None, items: str | list[dict[str, Any]]) -> list[Message]:
    """Raises BadRequest naming the item."""
    found: list[Message | _Turn] = [Message("system", instructions)] if instructions else []
    if isinstance(items, str):
        found += [Message("user", items)] if items else []
        items = []
    for i, item in enumerate(items):
        where = f"input[{i}]"
        kind = item.get("type") or ("message" if "role" in item else None)
        if not isinstance(kind, str):
            raise BadRequest("An item must have a 'type', a string.", f"{where}.type")
        last = found[-1] if found and isinstance(found[-1], _Turn) else None
        if kind == "message":
            role, content = _message(item, where)
            if role != "assistant":
                found.append(Message(role, content))
                continue
            turn = last or _Turn()
            turn.content += content
        elif kind == "reasoning":
            turn = last if last is not None and not (last.content or last.calls) else _Turn()
            turn.reasoning += _reasoning(item, where)
        elif kind in _CALLS:
            turn = last or _Turn()
            turn.calls.append(_call(item, kind, where))
        elif kind in _OUTPUTS:
            output = item.get("output")
            if not isinstance(output, str | list | None):
                raise BadRequest("An output is a string or a list.", f"{where}.output")
            text = common.result_text(output, f"{where}.output", between="\n")
            found.append(Message("tool", text, answers=str(item.get("call_id", ""))))
            continue
        elif kind == "item_reference":
            ours = _OUR_ITEM.fullmatch(str(item.get("id")))
            if ours is None:
                raise BadRequest(f"No item {item.get('id')!r} was sampled here.", f"{where}.id")
            turn = last if last is not None and last.sampled == ours[1] else _Turn(sampled=ours[1])
        else:
            raise common.unsupported_value(f"{where}.type", f"cannot be {kind!r}")
        if turn is not last:
            found.append(turn)
    return put_in_order([m if isinstance(m, Message) else m.message() for m in found])


def _message(item: dict[str, Any], where: str) -> tuple[str, str]:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise BadRequest(f"Invalid role {item.get('role')!r}.", f"{where}.role")
    content = item.get("content")
    if not isinstance(content, str | list | None):
        raise BadRequest("A content is a string or a list.", f"{where}.content")
    return role, common.text_of(content, f"{where}.content", between="" if role == "assistant" else "\n")


def _reasoning(item: dict[str, Any], where: str) -> str:
    for name, kind in (("content", "reasoning_text"), ("encrypted_content", ""), ("summary", "summary_text")):
        value = item.get(name)
        if name == "encrypted_content":
            text = _unsealed(value)
        elif isinstance(value, list | None):
            text = common.text_of(value, f"{where}.{name}", {kind, "text"}, "\n")
        else:
            raise BadRequest(f"'{name}' must be a list.", f"{where}.{name}")
        if text:
            return text
    return ""


def _call(item: dict[str, Any], kind: str, where: str) -> Call:
    name, value = item.get("name"), item.get(_CALLS[kind])
    if not isinstance(name, str) or not isinstance(value, str | None):
        raise BadRequest(f"A call must have a 'name' and '{_CALLS[kind]}', a string.", where)
    arguments = common.encode({"input": value or ""}).decode() if kind == "custom_tool_call" else value or "{}"
    return Call(_full_name(name, item.get("namespace")), arguments, str(item.get("call_id", "")))


def _sealed(text: str) -> str:
    return _SEALED + base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def _unsealed(value: Any) -> str:
    """Only our own; we cannot read what another server encrypted."""
    if not isinstance(value, str) or not value.startswith(_SEALED):
        return ""
    try:
        return base64.b64decode(value.removeprefix(_SEALED), validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        return ""


class OutputItems:
    """The items of one turn as they grow: each delta gives the events that tell of it; `done` are the whole items."""

    def __init__(self, answer: Answer) -> None:
        self.done: list[dict[str, Any]] = []
        self._answer, self._turn = answer, answer.turns[0]
        self._options = answer.incoming.options
        self._open = ""  # the kind of the item that is growing
        self._id = ""
        self._texts: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._told = 0  # tokens before the present delta

    def delta(self, delta: Delta) -> list[Event]:
        events = []
        if delta.kind == "call":
            assert delta.call is not None
            return self.close() + self._called(delta.index, delta.call)
        if self._open != delta.kind:
            events = self.close() + self._begin(delta.kind)
        new = []
        if delta.kind == "content" and self._options["logprobs"]:
            new = self._answer.logprobs(0, self._told, delta.upto)
            self._logprobs += new
        self._told = delta.upto
        self._texts.append(delta.text)
        place = {**self._place(), "content_index": 0, "delta": delta.text}
        if delta.kind == "content":
            return [*events, ("response.output_text.delta", {**place, "logprobs": new})]
        return [*events, ("response.reasoning_text.delta", place)]

    def close(self) -> list[Event]:
        """The growing item is complete."""
        if not self._open:
            return []
        text, place = "".join(self._texts), self._place()
        part = self._part(self._open, text, self._logprobs)
        whole = {**place, "content_index": 0, "text": text}
        if self._open == "content":
            told: Event = ("response.output_text.done", {**whole, "logprobs": self._logprobs})
        else:
            told = ("response.reasoning_text.done", whole)
        item = self._item(self._open, [part], "incomplete" if self._turn.finish == "length" else "completed", text)
        self._open = ""
        ended: Event = ("response.content_part.done", {**place, "content_index": 0, "part": part})
        return [told, ended, self._finished(item)]

    def _begin(self, kind: str) -> list[Event]:
        self._open, self._texts, self._logprobs = kind, [], []
        prefix = "msg" if kind == "content" else "rs"
        self._id = f"{prefix}_{common.name_of(self._turn)}_{len(self.done)}"
        added = {"output_index": len(self.done), "item": self._item(kind, [], "in_progress", "")}
        part = {**self._place(), "content_index": 0, "part": self._part(kind, "", [])}
        return [("response.output_item.added", added), ("response.content_part.added", part)]

    def _called(self, index: int, call: Call) -> list[Event]:
        names = self._options["names"]
        name, space = names.of.get(call.name, (call.name, None))
        custom = call.name in names.custom
        self._id = f"{'ctc' if custom else 'fc'}_{common.name_of(self._turn)}_{index}"
        kind, field_ = ("custom_tool_call", "input") if custom else ("function_call", "arguments")
        value = _custom_input(call.arguments) if custom else call.arguments
        item = {"id": self._id, "type": kind, "call_id": common.call_id(self._turn, index), "name": name}
        if space is not None:
            item["namespace"] = space
        stream = "response.custom_tool_call_input" if custom else "response.function_call_arguments"
        place = self._place()
        begun = {**item, field_: "", "status": "in_progress"}
        told = {**place, field_: value} if custom else {**place, field_: value, "name": name}
        return [
            ("response.output_item.added", {"output_index": len(self.done), "item": begun}),
            (f"{stream}.delta", {**place, "delta": value}),
            (f"{stream}.done", told),
            self._finished({**item, field_: value, "status": "completed"}),
        ]

    def _finished(self, item: dict[str, Any]) -> Event:
        self.done.append(item)
        return "response.output_item.done", {"output_index": len(self.done) - 1, "item": item}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._id, "output_index": len(self.done)}

    def _part(self, kind: str, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        if kind == "content":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
        return {"type": "reasoning_text", "text": text}

    def _item(self, kind: str, content: list[dict[str, Any]], status: str, text: str) -> dict[str, Any]:
        if kind == "content":
            return {"id": self._id, "type": "message", "status": status, "role": "assistant", "content": content}
        item: dict[str, Any] = {
            "id": self._id,
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": content,
        }
        if self._options["encrypted"]:
            item["encrypted_content"] = _sealed(text) if text else None
        return item


def _custom_input(arguments: str) -> str:
    """What the policy wrote as the `input`; all that it wrote, where that is not what it wrote."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    if isinstance(value, dict) and set(value) == {"input"} and isinstance(value["input"], str):
        return value["input"]
    return arguments
