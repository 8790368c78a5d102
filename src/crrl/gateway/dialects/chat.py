"""The dialect of `/v1/chat/completions`: a request body as messages, sampled turns as a completion or as chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crrl.gateway.api import Ask, BadRequest
from crrl.gateway.canonical import Call, Message
from crrl.gateway.dialects import common
from crrl.gateway.dialects.common import Answer, Incoming, encode
from crrl.gateway.dialects.history import put_in_order
from crrl.gateway.stream import Delta
from crrl.gateway.tree import Turn

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_LOGGED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "reasoning_effort",
)
_CONSTRAINTS = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs")  # vLLM's


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
    reasoning: Any = None
    function_call: Any = None
    tool_call_id: str | None = None


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
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: Any = None
    response_format: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    structured_outputs: Any = None


_decoder = msgspec.json.Decoder(_Body)
error = common.openai_error
context_full = common.openai_context_full


def read(raw: bytes, headers: Mapping[str, str]) -> Incoming:
    body = common.decode(_decoder, raw)
    _refuse_unsupported(body)
    if not body.messages:
        raise BadRequest("'messages' must hold at least one message.", "messages")
    asked: dict[str, float | int | str | None] = {name: getattr(body, name) for name in _LOGGED}
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    asked["max_tokens"] = common.max_tokens(limit, getattr(body, limit))
    ask = Ask(
        messages=put_in_order([_message(m, i) for i, m in enumerate(body.messages)]),
        tools=common.chat_tools(body.tools or []) or None,
        asked=asked,
        stop=common.stop_strings("stop", body.stop),
        n=common.answers(body.n),
        retry=common.is_retry(headers),
        tool_choice="none" if body.tool_choice == "none" else "auto",
        parallel_calls=body.parallel_tool_calls is not False,
        forced=common.only(
            common.forced_call(body.tool_choice, {"function": "function.name"}),
            common.forced_form(body.response_format, "response_format", "json_schema.schema"),
        ),
        hints=common.hints(headers),
    )
    usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return Incoming(ask, body.model, bool(body.stream), {"usage": usage, "logprobs": bool(body.logprobs)})


def _refuse_unsupported(body: _Body) -> None:
    common.refuse(
        {
            "top_logprobs": bool(body.top_logprobs),
            "logit_bias": bool(body.logit_bias),
            "functions": bool(body.functions),
            "function_call": body.function_call not in (None, "auto", "none"),
            "modalities": body.modalities not in (None, [], ["text"]),
            "audio": bool(body.audio),
            "web_search_options": body.web_search_options is not None,
            **{name: getattr(body, name) is not None for name in _CONSTRAINTS},
        }
    )


def _message(m: _Message, i: int) -> Message:
    role = _ROLES.get(m.role)
    if role is None:
        raise BadRequest(f"Invalid role '{m.role}'. Valid: {', '.join(_ROLES)}.", f"messages[{i}].role")
    if m.function_call:
        raise BadRequest("'function_call' is not supported; use 'tool_calls'.", f"messages[{i}].function_call")
    calls = [Call(c.function.name, common.arguments_of(c.function.arguments), c.id or "") for c in m.tool_calls or []]
    if calls and role != "assistant":
        raise BadRequest("Only assistant messages have 'tool_calls'.", f"messages[{i}].tool_calls")
    reasoning = m.reasoning_content or (m.reasoning if isinstance(m.reasoning, str) else "")
    if role == "tool":
        return Message(role, common.result_text(m.content, f"messages[{i}].content"), answers=m.tool_call_id or "")
    return Message(role, common.text_of(m.content, f"messages[{i}].content"), calls, reasoning)


def _finish_reason(turn: Turn) -> str:
    assert turn.parsed is not None
    if turn.finish == "length":
        return "length"
    return "tool_calls" if turn.parsed.calls else "stop"


def whole(answer: Answer) -> bytes:
    choices = []
    for i, turn in enumerate(answer.turns):
        assert turn.parsed is not None
        message: dict[str, Any] = {"role": "assistant", "content": turn.parsed.content or None}
        if turn.parsed.reasoning:
            message["reasoning_content"] = turn.parsed.reasoning
        if turn.parsed.calls:
            message["tool_calls"] = [_call(turn, j, call) for j, call in enumerate(turn.parsed.calls)]
        logprobs = {"content": answer.logprobs(i)} if answer.incoming.options["logprobs"] else None
        choices.append({"index": i, "message": message, "logprobs": logprobs, "finish_reason": _finish_reason(turn)})
    return encode({**_head(answer, "chat.completion"), "choices": choices, "usage": common.usage(answer.turns)})


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    name = answer.name("chatcmpl-")
    return {"id": name, "object": kind, "created": answer.created, "model": answer.incoming.model}


def _call(turn: Turn, i: int, call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": common.call_id(turn, i), "type": "function", "function": function}


class _Events:
    def __init__(self, answer: Answer) -> None:
        self._answer, self._turns = answer, answer.turns
        self._usage, self._logprobs = answer.incoming.options["usage"], answer.incoming.options["logprobs"]
        self._told = [0] * len(answer.turns)  # tokens whose log-probs have been sent
        self._head = b"data: " + encode(_head(answer, "chat.completion.chunk"))[:-1]
        self._tail = b'],"usage":null}\n\n' if self._usage else b"]}\n\n"

    def start(self) -> bytes:
        return b"".join(self._chunk(i, {"role": "assistant", "content": ""}) for i in range(len(self._turns)))

    def delta(self, choice: int, delta: Delta) -> bytes:
        if delta.kind == "call":
            assert delta.call is not None
            call = {"index": delta.index, **_call(self._turns[choice], delta.index, delta.call)}
            return self._chunk(choice, {"tool_calls": [call]}, upto=delta.upto)
        name = "reasoning_content" if delta.kind == "reasoning" else "content"
        return self._chunk(choice, {name: delta.text}, upto=delta.upto)

    def finish(self, choice: int) -> bytes:
        turn = self._turns[choice]
        return self._chunk(choice, {}, _finish_reason(turn), upto=len(turn.ids))

    def end(self) -> bytes:
        done = b"data: [DONE]\n\n"
        if self._usage:
            return self._head + b',"choices":[],"usage":' + encode(common.usage(self._turns)) + b"}\n\n" + done
        return done

    def keep_alive(self) -> bytes:
        return common.comment()

    def broken(self, message: str) -> bytes:
        return b"data: " + error(503, message, "engine_failed") + b"\n\n"

    def _chunk(self, choice: int, delta: dict[str, Any], finish: str | None = None, upto: int = 0) -> bytes:
        shape: dict[str, Any] = {"index": choice, "delta": delta, "finish_reason": finish}
        if self._logprobs:
            new = self._answer.logprobs(choice, self._told[choice], upto)
            shape["logprobs"] = {"content": new} if new else None
            self._told[choice] = max(self._told[choice], upto)
        return self._head + b',"choices":[' + encode(shape) + self._tail


events = _Events
