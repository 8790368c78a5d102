"""The dialect of `/v1/messages` (Anthropic) and its `count_tokens`.

One message of the API may hold several of ours: each tool result is its own message. Thinking blocks carry a
signature, because clients want one back; nothing checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crrl.gateway.api import Ask, BadRequest
from crrl.gateway.canonical import Call, Message
from crrl.gateway.dialects import common
from crrl.gateway.dialects.common import Answer, Incoming, encode, event
from crrl.gateway.dialects.history import put_in_order
from crrl.gateway.stream import Delta
from crrl.gateway.tree import Turn

_HOSTED = ("web_search", "web_fetch")  # run by the API's own servers; not offered to the policy
_BILLING = "x-anthropic-billing-header:"
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
}


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


class _Body(msgspec.Struct):
    messages: list[_Message]
    model: str = "policy"
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: Any = None
    mcp_servers: Any = None
    container: Any = None
    context_management: dict[str, Any] | None = None
    thread: Any = None


_decoder = msgspec.json.Decoder(_Body)


def read(raw: bytes, headers: Mapping[str, str]) -> Incoming:
    body = common.decode(_decoder, raw)
    choice = body.tool_choice or {}
    _refuse_unsupported(body)
    if not body.messages:
        raise BadRequest("at least one message is required", "messages")
    thinking, config = body.thinking or {}, body.output_config or {}
    asked: dict[str, float | int | str | None] = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "max_tokens": common.max_tokens("max_tokens", body.max_tokens),
        "thinking": str(thinking["type"]) if "type" in thinking else None,
        "reasoning_effort": str(config["effort"]) if "effort" in config else None,
    }
    messages = [Message("system", system)] if (system := _system(body.system)) else []
    for i, message in enumerate(body.messages):
        messages += _messages(message, f"messages[{i}]")
    ask = Ask(
        messages=put_in_order(messages),
        tools=_tools(body.tools) or None,
        asked=asked,
        stop=common.stop_strings("stop_sequences", body.stop_sequences),
        retry=common.is_retry(headers),
        tool_choice="none" if choice.get("type") == "none" else "auto",
        parallel_calls=not choice.get("disable_parallel_tool_use"),
        forced=common.only(
            common.forced_call(body.tool_choice, {"tool": "name"}),
            common.forced_form(config.get("format"), "output_config.format", "schema"),
            common.forced_form(body.output_format, "output_format", "schema"),
        ),
        hints=common.hints(headers),
    )
    return Incoming(ask, body.model, bool(body.stream))


def _system(system: str | list[dict[str, Any]] | None) -> str:
    """Without Claude Code's billing header, which the API takes out, too: its hashes change."""
    if isinstance(system, list):
        system = [block for block in system if not str(block.get("text", "")).startswith(_BILLING)]
    return common.text_of(system, "system", between="\n")


def _refuse_unsupported(body: _Body) -> None:
    if body.thread is not None:
        raise common.unsupported_value("thread", "needs conversations to be stored; send the whole conversation")
    edits = (body.context_management or {}).get("edits")
    kinds = [str(edit.get("type")) for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else []
    common.refuse(
        {
            "mcp_servers": bool(body.mcp_servers),
            "container": bool(body.container),
            # the recipe decides about earlier thinking
            "context_management": not all(kind.startswith("clear_thinking") for kind in kinds),
        }
    )


def _tools(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    offered = []
    for i, tool in enumerate(tools or []):
        kind = tool.get("type") or "custom"
        if str(kind).startswith(_HOSTED):
            continue
        if kind != "custom":
            raise common.unsupported_value(f"tools[{i}].type", f"cannot be {kind!r}")
        if not isinstance(tool.get("name"), str):
            raise BadRequest("A tool must have a 'name'.", f"tools[{i}].name")
        offered.append(common.chat_tool(tool["name"], tool.get("description"), tool.get("input_schema")))
    return offered


def _messages(message: _Message, where: str) -> list[Message]:
    if message.role not in ("user", "assistant", "system"):
        raise BadRequest(f"Invalid role '{message.role}'.", f"{where}.role")
    if isinstance(message.content, str):
        return [Message(message.role, message.content)]
    if message.role == "assistant":
        return [_assistant(message.content, where)]
    found: list[Message] = []
    texts: list[str] = []
    for i, block in enumerate(message.content):
        if block.get("type") == "tool_result" and message.role == "user":
            if texts:
                found.append(Message("user", "\n".join(texts)))
                texts = []
            content = block.get("content")
            if not isinstance(content, str | list | None):
                raise BadRequest("A tool result is a string or a list.", f"{where}.content[{i}].content")
            text = common.result_text(content, f"{where}.content[{i}].content", between="\n")
            found.append(Message("tool", text, answers=str(block.get("tool_use_id", ""))))
        else:
            texts.append(common.text_of([block], f"{where}.content"))
    if texts or not found:
        found.append(Message(message.role, "\n".join(texts)))
    return found


def _assistant(blocks: list[dict[str, Any]], where: str) -> Message:
    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[Call] = []
    for i, block in enumerate(blocks):
        kind = block.get("type")
        if kind == "thinking":
            if not isinstance(block.get("thinking"), str):
                raise BadRequest("A thinking block must have a 'thinking'.", f"{where}.content[{i}].thinking")
            reasoning.append(block["thinking"])
        elif kind == "tool_use":
            name, arguments = block.get("name"), block.get("input")
            if not isinstance(name, str) or not isinstance(arguments, dict | str | None):
                raise BadRequest("A tool_use block must have a 'name' and an 'input'.", f"{where}.content[{i}]")
            calls.append(Call(name, common.arguments_of(arguments), str(block.get("id", ""))))
        elif kind != "redacted_thinking":
            texts.append(common.text_of([block], f"{where}.content"))
    return Message("assistant", "".join(texts), calls, "\n".join(reasoning))


def error(status: int, message: str, code: str | None = None, param: str | None = None) -> bytes:
    said: dict[str, Any] = {
        "type": _KINDS.get(status, "api_error"),
        "message": f"{param}: {message}" if param else message,
    }
    if param == "thread":  # the official clients then go on without one
        said["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return encode({"type": "error", "error": said})


def context_full(message: str) -> bytes:
    return error(400, f"prompt is too long: {message}")


def whole(answer: Answer) -> bytes:
    turn = answer.turns[0]
    assert turn.parsed is not None
    content: list[dict[str, Any]] = []
    if turn.parsed.reasoning:
        content.append({"type": "thinking", "thinking": turn.parsed.reasoning, "signature": _signature(turn)})
    if turn.parsed.content or not (content or turn.parsed.calls):
        content.append({"type": "text", "text": turn.parsed.content})
    for i, call in enumerate(turn.parsed.calls):
        content.append({**_tool_use(turn, i, call), "input": msgspec.Raw(call.arguments.encode())})
    return encode({**_head(answer), "content": content, **_stop(turn), "usage": _usage(turn, len(turn.ids))})


def counted(tokens: int) -> bytes:
    return encode({"input_tokens": tokens})


def _head(answer: Answer) -> dict[str, Any]:
    name, model = answer.name("msg_"), answer.incoming.model
    return {"id": name, "type": "message", "role": "assistant", "model": model}


def _tool_use(turn: Turn, i: int, call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": common.call_id(turn, i, "toolu_"), "name": call.name, "input": {}}


def _signature(turn: Turn) -> str:
    return f"crrl-{common.name_of(turn)}"


def _stop(turn: Turn) -> dict[str, Any]:
    assert turn.parsed is not None
    if turn.finish == "length":
        reason = "max_tokens"
    elif turn.parsed.calls:
        reason = "tool_use"
    else:
        reason = "stop_sequence" if turn.stopped_by else "end_turn"
    return {"stop_reason": reason, "stop_sequence": turn.stopped_by or None}


def _usage(turn: Turn, sampled: int) -> dict[str, int]:
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": turn.prompt_tokens, **cache, "output_tokens": sampled}


class _Events:
    """Blocks follow each other: a delta of another kind closes the block before."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self._turn = answer, answer.turns[0]
        self._open = ""  # the kind of the open block
        self._index = -1

    def start(self) -> bytes:
        stop = {"stop_reason": None, "stop_sequence": None}
        message = {**_head(self._answer), "content": [], **stop, "usage": _usage(self._turn, 0)}
        return event("message_start", {"type": "message_start", "message": message}) + self.keep_alive()

    def delta(self, choice: int, delta: Delta) -> bytes:
        if delta.call is not None:
            block = _tool_use(self._turn, delta.index, delta.call)
            arguments = {"type": "input_json_delta", "partial_json": delta.call.arguments}
            return self._close() + self._begin("call", block) + self._more(arguments) + self._close()
        if delta.kind == "reasoning":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            more = {"type": "thinking_delta", "thinking": delta.text}
        else:
            block, more = {"type": "text", "text": ""}, {"type": "text_delta", "text": delta.text}
        if self._open == delta.kind:
            return self._more(more)
        return self._close() + self._begin(delta.kind, block) + self._more(more)

    def finish(self, choice: int) -> bytes:
        empty = self._begin("content", {"type": "text", "text": ""}) if self._index < 0 else b""
        return empty + self._close()

    def end(self) -> bytes:
        turn = self._turn
        delta = {"type": "message_delta", "delta": _stop(turn), "usage": _usage(turn, len(turn.ids))}
        return event("message_delta", delta) + event("message_stop", {"type": "message_stop"})

    def keep_alive(self) -> bytes:
        return event("ping", {"type": "ping"})

    def broken(self, message: str) -> bytes:
        return b"event: error\ndata: " + error(503, message) + b"\n\n"

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        self._index += 1
        self._open = kind
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return event("content_block_start", start)

    def _more(self, delta: dict[str, Any]) -> bytes:
        return event("content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        signed = self._more({"type": "signature_delta", "signature": _signature(self._turn)})
        head = signed if self._open == "reasoning" else b""
        self._open = ""
        return head + event("content_block_stop", {"type": "content_block_stop", "index": self._index})


events = _Events
