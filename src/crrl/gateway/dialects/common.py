"""What the dialects share: reading a body, text out of content parts, OpenAI's error shape, log-probs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from crrl.gateway.api import Ask
from crrl.gateway.renderer import Renderer
from crrl.gateway.tree import Turn

MAX_ANSWERS = 128
TEXT_PARTS = {"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"}
encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
Body = TypeVar("Body")


class BadRequest(Exception):
    """Answered with the field that is wrong."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


@dataclass(frozen=True)
class Incoming:
    """One request, read. `options`: what only its dialect knows."""

    ask: Ask
    model: str
    stream: bool
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a request gets: its sampled turns, one for each answer it wants. created: seconds since the epoch."""

    incoming: Incoming
    turns: Sequence[Turn]
    created: int
    renderer: Renderer

    def logprobs(self, choice: int, start: int = 0, end: int | None = None) -> list[dict[str, Any]]:
        """Of the sampled tokens start..end, whether they show or not; of the temperature they were drawn at.
        `bytes` is null where a token is a part of a character."""
        turn = self.turns[choice]
        entries = []
        for token, logprob in zip(turn.ids[start:end], turn.logprobs[start:end], strict=True):
            text = self.renderer.tokenizer.decode([token])
            raw = None if "\ufffd" in text else list(text.encode())
            entries.append({"token": text, "logprob": logprob, "bytes": raw, "top_logprobs": []})
        return entries


def decode(decoder: msgspec.json.Decoder[Body], raw: bytes) -> Body:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"Invalid request body: {error}") from None


def refuse(unsupported: Mapping[str, bool]) -> None:
    """Raises for the first field whose value would change the answer in a way that we cannot."""
    for name, bad in unsupported.items():
        if bad:
            raise BadRequest(f"'{name}' is not supported with this value.", name, "unsupported_parameter")


def is_retry(headers: Mapping[str, str]) -> bool:
    """The official clients say so when they send a request again."""
    return headers.get("x-stainless-retry-count", "0") not in ("", "0")


def max_tokens(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise BadRequest(f"'{name}' must be at least 1.", name)
    return value


def stop_strings(name: str, value: str | list[str] | None) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if len(stops) > 16:
        raise BadRequest(f"'{name}' has more than 16 strings.", name)
    return [stop for stop in stops if stop]


def answers(n: int | None) -> int:
    if n is not None and not 1 <= n <= MAX_ANSWERS:
        raise BadRequest(f"'n' must be between 1 and {MAX_ANSWERS}.", "n")
    return n or 1


def text_of(content: Any, where: str) -> str:
    """The text of a string, of a list of strings and text parts, or of nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for i, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict) or part.get("type", "text") not in TEXT_PARTS:
            kind = part.get("type") if isinstance(part, dict) else part
            raise BadRequest(f"Only text parts are supported, not {kind!r}.", f"{where}[{i}]")
        else:
            text = part.get("text", part.get("refusal"))
            if not isinstance(text, str):
                raise BadRequest("A text part must have a 'text'.", f"{where}[{i}].text")
            texts.append(text)
    return "".join(texts)


def arguments_of(value: str | dict[str, Any] | None) -> str:
    if isinstance(value, dict):
        return encode(value).decode()
    return value or "{}"


def call_id(turn: Turn, index: int) -> str:
    return f"call_{turn.id}_{index}"


def chat_tool(name: str, description: Any, parameters: Any) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": {k: v for k, v in function.items() if v is not None}}


def usage(turns: Sequence[Turn]) -> dict[str, int]:
    """The prompt is counted once: one request, however many answers."""
    prompt, sampled = len(turns[0].prompt_ids), sum(len(t.ids) for t in turns)
    return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}


def openai_error(status: int, message: str, code: str | None = None, param: str | None = None) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def openai_context_full(message: str) -> bytes:
    return openai_error(400, message, "context_length_exceeded", "messages")


def models(name: str, context: int) -> bytes:
    """The list of the one model, which serves the clients of both APIs."""
    only = {"has_more": False, "first_id": name, "last_id": name}
    return encode({"object": "list", "data": [model(name, context)], **only})


def model(name: str, context: int) -> dict[str, Any]:
    openai = {"id": name, "object": "model", "created": 0, "owned_by": "crrl", "max_model_len": context}
    anthropic = {"type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
    return {**openai, **anthropic, "max_input_tokens": context, "max_tokens": context}
