"""The dialect of `/v1/responses`: input items as messages, sampled turns as output items.

Stateless: the gateway stores nothing, so every request brings its whole input. Several items make one assistant turn
(reasoning, message, calls), because one turn left as several items. Reasoning is shown as it is (`reasoning_text`);
`encrypted_content` holds the same text, for clients that send back only that. Custom tools are functions with one
`input`, and the tools of a namespace go by `NAMESPACE__NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crrl.gateway.api import Ask, BadRequest
from crrl.gateway.dialects import common
from crrl.gateway.dialects.common import Answer, Incoming, encode
from crrl.gateway.dialects.items import OutputItems, messages_of, offered

_STATEFUL = "needs responses to be stored, which this server does not do; send the whole input"


class _Body(msgspec.Struct):
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    model: str = "policy"
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    include: list[str] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    truncation: str | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None


_decoder = msgspec.json.Decoder(_Body)
error = common.openai_error


def context_full(message: str) -> bytes:
    return error(400, message, "context_length_exceeded", "input")


def read(raw: bytes, headers: Mapping[str, str]) -> Incoming:
    body = common.decode(_decoder, raw)
    _refuse_unsupported(body)
    tools, names = offered(body.tools or [])
    messages = messages_of(body.instructions, body.input)
    if not messages:
        raise BadRequest("'input' must not be empty.", "input")
    reasoning, text = body.reasoning or {}, body.text or {}
    asked: dict[str, float | int | str | None] = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "max_tokens": common.max_tokens("max_output_tokens", body.max_output_tokens),
        "reasoning_effort": str(reasoning["effort"]) if reasoning.get("effort") else None,
        "verbosity": str(text["verbosity"]) if text.get("verbosity") else None,
    }
    ask = Ask(
        messages=messages,
        tools=tools or None,
        asked=asked,
        retry=common.is_retry(headers),
        tool_choice="none" if body.tool_choice == "none" else "auto",
        parallel_calls=body.parallel_tool_calls is not False,
        forced=common.only(
            common.forced_call(body.tool_choice, {"function": "name", "custom": "name"}),
            common.forced_form(text.get("format"), "text.format", "schema"),
        ),
        hints=common.hints(headers),
    )
    include = body.include or []
    options = {
        "names": names,
        "format": text.get("format") or {"type": "text"},
        "tool_choice": body.tool_choice or "auto",
        "encrypted": "reasoning.encrypted_content" in include,
        "logprobs": "message.output_text.logprobs" in include,
    }
    return Incoming(ask, body.model, bool(body.stream), options)


def _refuse_unsupported(body: _Body) -> None:
    for name in ("previous_response_id", "conversation", "background"):
        if getattr(body, name):
            raise common.unsupported_value(name, _STATEFUL)
    common.refuse(
        {
            "top_logprobs": bool(body.top_logprobs),
            "truncation": body.truncation not in (None, "disabled"),
            "prompt": body.prompt is not None,
        }
    )


def whole(answer: Answer) -> bytes:
    items = OutputItems(answer)
    for delta in answer.turns[0].deltas:
        items.delta(delta)
    items.close()
    return encode(_response(answer, items.done))


def _response(answer: Answer, output: list[dict[str, Any]], status: str = "") -> dict[str, Any]:
    """`status`: "" for that of a whole turn."""
    turn, ask = answer.turns[0], answer.incoming.ask
    cut = turn.finish == "length" and not status
    return {
        "id": answer.name("resp_"),
        "object": "response",
        "created_at": answer.created,
        "status": status or ("incomplete" if cut else "completed"),
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": None,
        "max_output_tokens": ask.asked["max_tokens"],
        "model": answer.incoming.model,
        "output": output,
        "parallel_tool_calls": ask.parallel_calls,
        "previous_response_id": None,
        "reasoning": {"effort": ask.asked["reasoning_effort"], "summary": None},
        "store": False,
        "temperature": turn.params["temperature"],
        "text": {"format": answer.incoming.options["format"]},
        "tool_choice": answer.incoming.options["tool_choice"],
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if status else _usage(answer),
        "metadata": {},
    }


def _usage(answer: Answer) -> dict[str, Any]:
    turn = answer.turns[0]
    return {
        "input_tokens": turn.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": len(turn.ids),
        "output_tokens_details": {"reasoning_tokens": turn.reasoning_tokens},
        "total_tokens": turn.tokens,
    }


class _Events:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._items = OutputItems(answer)
        self._number = 0

    def start(self) -> bytes:
        response = _response(self._answer, [], "in_progress")
        return self._sent([(kind, {"response": response}) for kind in ("response.created", "response.in_progress")])

    def delta(self, choice: int, delta: Any) -> bytes:
        return self._sent(self._items.delta(delta))

    def finish(self, choice: int) -> bytes:
        return self._sent(self._items.close())

    def end(self) -> bytes:
        response = _response(self._answer, self._items.done)
        return self._sent([(f"response.{response['status']}", {"response": response})])

    def keep_alive(self) -> bytes:
        return common.comment()

    def broken(self, message: str) -> bytes:
        response = _response(self._answer, self._items.done, "failed")
        response["error"] = {"code": "server_error", "message": message}
        return self._sent([("response.failed", {"response": response})])

    def _sent(self, events: list[tuple[str, dict[str, Any]]]) -> bytes:
        sent = []
        for kind, data in events:
            sent.append(common.event(kind, {"type": kind, "sequence_number": self._number, **data}))
            self._number += 1
        return b"".join(sent)


events = _Events
