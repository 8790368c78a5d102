"""The dialect of `/v1/chat/completions`: a request body as messages, a sampled turn as bodies and events.

Unknown fields are accepted. A known field that would change the answer and is not supported is an error in
the API's own shape, never ignored. Sampling parameters are read, recorded and overridden by the recipe.
"""

from __future__ import annotations

from typing import Any

import msgspec

from crrl.gateway.canonical import Call, Message
from crrl.gateway.tree import Turn

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_TEXT_PARTS = {"text", "input_text", "output_text"}
_LOGGED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_encode = msgspec.json.Encoder().encode


class BadRequest(Exception):
    """Answered 400 with the field that is wrong."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[str | dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    reasoning_content: str | None = None
    function_call: Any = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    messages: list[_Message]
    model: str = "policy"
    tools: list[dict[str, Any]] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    n: int | None = None
    stop: Any = None
    logprobs: bool | None = None
    logit_bias: Any = None
    response_format: Any = None
    tool_choice: Any = None
    functions: Any = None
    audio: Any = None


class ChatCall(msgspec.Struct):
    """One request, as the gateway works with it."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None
    asked: dict[str, float | int | str | None]
    model: str
    stream: bool
    include_usage: bool


_decoder = msgspec.json.Decoder(_Body)


def read(raw: bytes) -> ChatCall:
    """Raises BadRequest naming the field."""
    try:
        body = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"Invalid request body: {error}") from None
    _refuse_unsupported(body)
    if not body.messages:
        raise BadRequest("'messages' must hold at least one message.", "messages")
    messages = [_message(m, i) for i, m in enumerate(body.messages)]
    asked: dict[str, float | int | str | None] = {name: getattr(body, name) for name in _LOGGED}
    asked["max_tokens"] = body.max_completion_tokens or body.max_tokens
    if asked["max_tokens"] is not None and asked["max_tokens"] < 1:  # type: ignore[operator]
        raise BadRequest("'max_tokens' must be at least 1.", "max_tokens")
    usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return ChatCall(messages, body.tools or None, asked, body.model, bool(body.stream), usage)


def _refuse_unsupported(body: _Body) -> None:
    kind = body.response_format.get("type") if isinstance(body.response_format, dict) else body.response_format
    forced = body.tool_choice not in (None, "auto") and not (body.tool_choice == "none" and not body.tools)
    unsupported = {
        "n": body.n not in (None, 1),
        "stop": body.stop not in (None, [], ""),
        "logprobs": bool(body.logprobs),
        "logit_bias": bool(body.logit_bias),
        "response_format": kind not in (None, "text"),
        "tool_choice": forced,
        "functions": bool(body.functions),
        "audio": bool(body.audio),
    }
    for name, bad in unsupported.items():
        if bad:
            raise BadRequest(f"'{name}' is not supported with this value.", name, "unsupported_parameter")


def _message(m: _Message, i: int) -> Message:
    role = _ROLES.get(m.role)
    if role is None:
        raise BadRequest(f"Invalid role '{m.role}'. Valid: {', '.join(_ROLES)}.", f"messages[{i}].role")
    if m.function_call:
        raise BadRequest("'function_call' is not supported; use 'tool_calls'.", f"messages[{i}].function_call")
    calls = [Call(c.function.name, _arguments(c.function.arguments), c.id or "") for c in m.tool_calls or []]
    if calls and role != "assistant":
        raise BadRequest("Only assistant messages have 'tool_calls'.", f"messages[{i}].tool_calls")
    return Message(role, _text(m.content, i), calls, m.reasoning_content or "")


def _arguments(arguments: str | dict[str, Any] | None) -> str:
    if isinstance(arguments, dict):
        return _encode(arguments).decode()
    return arguments or "{}"


def _text(content: str | list[str | dict[str, Any]] | None, i: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for j, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type", "text") in _TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise BadRequest(f"Only text parts are supported, not {part.get('type')!r}.", f"messages[{i}].content[{j}]")
    return "".join(texts)


def usage(turn: Turn) -> dict[str, int]:
    prompt, sampled = len(turn.prompt_ids), len(turn.ids)
    return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}


def finish_reason(turn: Turn) -> str:
    assert turn.parsed is not None
    if turn.finish == "length":
        return "length"
    return "tool_calls" if turn.parsed.calls else "stop"


def _calls(turn: Turn, *, indexed: bool) -> list[dict[str, Any]]:
    assert turn.parsed is not None
    calls: list[dict[str, Any]] = []
    for i, call in enumerate(turn.parsed.calls):
        shape: dict[str, Any] = {
            "id": f"call_{turn.id}_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        calls.append({"index": i, **shape} if indexed else shape)
    return calls


def completion(turn: Turn, model: str, created: int) -> bytes:
    """The whole answer of a request that did not stream."""
    assert turn.parsed is not None
    message: dict[str, Any] = {"role": "assistant", "content": turn.parsed.content or None}
    if turn.parsed.reasoning:
        message["reasoning_content"] = turn.parsed.reasoning
    if turn.parsed.calls:
        message["tool_calls"] = _calls(turn, indexed=False)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(turn)}
    return _encode(
        {
            "id": f"chatcmpl-{turn.id}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [choice],
            "usage": usage(turn),
        }
    )


class Events:
    """The server-sent events of one streamed answer."""

    def __init__(self, turn: Turn, model: str, created: int, include_usage: bool) -> None:
        self._turn = turn
        head = {
            "id": f"chatcmpl-{turn.id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._head = b"data: " + _encode(head)[:-1]
        self._null_usage = b',"usage":null' if include_usage else b""
        self._usage = include_usage

    def delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._head + b',"choices":[' + _encode(choice) + b"]" + self._null_usage + b"}\n\n"

    def end(self, shown: str) -> bytes:
        """What a whole turn adds to the text already shown: the rest, the calls, reason and usage."""
        turn = self._turn
        assert turn.parsed is not None and turn.parsed.content.startswith(shown)
        events = []
        if turn.parsed.reasoning:
            events.append(self.delta({"reasoning_content": turn.parsed.reasoning}))
        if len(turn.parsed.content) > len(shown):
            events.append(self.delta({"content": turn.parsed.content[len(shown) :]}))
        if turn.parsed.calls:
            events.append(self.delta({"tool_calls": _calls(turn, indexed=True)}))
        events.append(self.delta({}, finish_reason(turn)))
        if self._usage:
            events.append(self._head + b',"choices":[],"usage":' + _encode(usage(turn)) + b"}\n\n")
        return b"".join(events) + b"data: [DONE]\n\n"


def error(message: str, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def models(model: str, context: int) -> bytes:
    card = {"id": model, "object": "model", "created": 0, "owned_by": "crrl", "max_model_len": context}
    return _encode({"object": "list", "data": [card]})
