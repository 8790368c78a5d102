"""Shared by the dialects: reading a body, text from content parts, OpenAI's error format, log-probs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from crrl.gateway.api import Ask, BadRequest, Forced
from crrl.gateway.renderer import Renderer
from crrl.gateway.tree import Turn

MAX_ANSWERS = 128
UNSUPPORTED = "unsupported_parameter"
MAX_STOPS = 16
TEXT_PARTS = {"text", "input_text", "output_text", "refusal"}
_REQUEST_KIND = re.compile(r'"request_kind" *: *"([^"]+)"')
# Escapes in JSON; the group: one half of a surrogate pair, as JavaScript's `slice` leaves it of an emoji.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
Body = TypeVar("Body")


@dataclass(frozen=True)
class Incoming:
    """One parsed request. `options`: settings that only its dialect knows."""

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

    def name(self, prefix: str) -> str:
        return prefix + name_of(self.turns[0])

    def logprobs(self, choice: int, start: int = 0, end: int | None = None) -> list[dict[str, Any]]:
        """Of the sampled tokens start..end, whether they show or not; of the temperature they were drawn at."""
        turn, tokenizer = self.turns[choice], self.renderer.tokenizer
        entries = []
        for token, logprob in zip(turn.ids[start:end], turn.logprobs[start:end], strict=True):
            text = tokenizer.decode([token])
            raw = _part_bytes(tokenizer.backend.id_to_token(token) or "") if "\ufffd" in text else text.encode()
            entries.append({"token": text, "logprob": logprob, "bytes": list(raw), "top_logprobs": []})
        return entries


_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the bytes that byte-level BPE writes as they are
_UNPRINTED = [byte for byte in range(256) if byte not in _PRINTED]
_BYTES = {chr(b): b for b in _PRINTED} | {chr(256 + i): b for i, b in enumerate(_UNPRINTED)}


def _part_bytes(token: str) -> bytes:
    """The bytes of a token that is only a part of a character: `<0xE4>`, or byte-level BPE's letters for them."""
    if token.startswith("<0x") and token.endswith(">"):
        return bytes.fromhex(token[3:-1])
    return bytes(_BYTES[letter] for letter in token if letter in _BYTES)


def decode(decoder: msgspec.json.Decoder[Body], raw: bytes) -> Body:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if (whole := _ESCAPE.sub(lambda m: rb"\ufffd" if m[1] else m[0], raw)) != raw:
            return decode(decoder, whole)
        raise BadRequest(f"Invalid request body: {error}") from None


def refuse(unsupported: Mapping[str, bool]) -> None:
    """Raises for the first field whose value would change the answer in an unsupported way."""
    for name, bad in unsupported.items():
        if bad:
            raise unsupported_value(name)


def unsupported_value(name: str, why: str = "is not supported with this value") -> BadRequest:
    return BadRequest(f"'{name}' {why}.", name, UNSUPPORTED)


def forced_call(choice: Any, named: Mapping[str, str]) -> Forced | None:
    """What a `tool_choice` forces. `named`: kinds of objects that name a tool -> where."""
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind in (None, "auto", "none"):
        return None
    if kind in ("required", "any"):
        return Forced("tool_choice")
    if not isinstance(choice, dict) or not isinstance(kind, str) or kind not in named:
        raise unsupported_value("tool_choice")
    name: Any = choice
    for key in named[kind].split("."):
        name = name.get(key) if isinstance(name, dict) else None
    if not isinstance(name, str) or not name:
        raise BadRequest(f"'tool_choice.{named[kind]}' must name a tool.", "tool_choice")
    return Forced("tool_choice", tool=name)


def forced_form(form: Any, param: str, schema: str) -> Forced | None:
    """What a format of text forces. `schema`: where it has one."""
    kind = form.get("type") if isinstance(form, dict) else form
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return Forced(param, schema={"type": "object"})
    if kind != "json_schema":
        raise unsupported_value(param)
    value: Any = form
    for key in schema.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise BadRequest(f"'{param}.{schema}' must be a JSON schema.", param)
    return Forced(param, schema=value)


def only(*forced: Forced | None) -> Forced | None:
    """Of what a request forces. Raises BadRequest: several."""
    found = [one for one in forced if one is not None]
    if len(found) > 1:
        raise BadRequest(f"'{found[0].param}' and '{found[1].param}' cannot both be forced.", found[1].param)
    return found[0] if found else None


def is_retry(headers: Mapping[str, str]) -> bool:
    """The official clients declare that they repeat a request."""
    return headers.get("x-stainless-retry-count", "0") not in ("", "0")


def hints(headers: Mapping[str, str]) -> dict[str, str]:
    """What clients tell of a call in their headers: `request_kind`, and the `thread` of an agent or sub-agent."""
    said: dict[str, str] = {}
    if kind := _REQUEST_KIND.search(headers.get("x-codex-turn-metadata", "")):
        said["request_kind"] = kind[1]
    if thread := headers.get("thread-id") or headers.get("x-session-id"):
        said["thread"] = thread
    return said


def max_tokens(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise BadRequest(f"'{name}' must be at least 1.", name)
    return value


def stop_strings(name: str, value: str | list[str] | None) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"'{name}' has more than {MAX_STOPS} strings.", name)
    return [stop for stop in stops if stop]


def answers(n: int | None) -> int:
    if n is not None and not 1 <= n <= MAX_ANSWERS:
        raise BadRequest(f"'n' must be between 1 and {MAX_ANSWERS}.", "n")
    return n or 1


def text_of(content: Any, where: str, kinds: set[str] = TEXT_PARTS, between: str = "") -> str:
    """The text of a string, of a list of strings and text parts, or of nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for i, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict) or str(part.get("type", "text")) not in kinds:
            kind = part.get("type") if isinstance(part, dict) else part
            raise BadRequest(f"Only text parts are supported, not {kind!r}.", f"{where}[{i}]")
        else:
            text = part.get("text", part.get("refusal"))
            if not isinstance(text, str):
                raise BadRequest("A text part must have a 'text'.", f"{where}[{i}].text")
            texts.append(text)
    return between.join(texts)


def result_text(content: Any, where: str, between: str = "") -> str:
    """The text of a tool's result. Parts that are not text are named in words: a refusal would hit the agent again at
    every later request, because the result stays in its history."""
    if not isinstance(content, list):
        return text_of(content, where, between=between)
    parts = [_named(part) if isinstance(part, dict) else part for part in content]
    return text_of(parts, where, between=between)


def _named(part: dict[str, Any]) -> dict[str, Any]:
    kind = str(part.get("type", "text"))
    if kind in TEXT_PARTS:
        return part
    if kind == "tool_reference":
        return {"type": "text", "text": f"[tool: {part.get('tool_name')}]"}
    kind = kind.removeprefix("input_").removesuffix("_url")
    return {"type": "text", "text": f"[{kind} left out: text alone is read]"}


def arguments_of(value: str | dict[str, Any] | None) -> str:
    if isinstance(value, dict):
        return encode(value).decode()
    return value or "{}"


def chat_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for i, tool in enumerate(tools):
        function = tool.get("function")
        if tool.get("type", "function") != "function":
            raise unsupported_value(f"tools[{i}].type", f"cannot be {tool['type']!r}")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest("A tool must have a 'function' with a 'name'.", f"tools[{i}].function")
    return tools


def chat_tool(name: str, description: Any, parameters: Any) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": {k: v for k, v in function.items() if v is not None}}


def name_of(turn: Turn) -> str:
    """For ids on the wire: an agent should not see the session's own id."""
    return hashlib.blake2b(turn.id.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def call_id(turn: Turn, index: int, prefix: str = "call_") -> str:
    return f"{prefix}{name_of(turn)}_{index}"


def usage(turns: Sequence[Turn]) -> dict[str, Any]:
    """The prompt is counted once: one request, however many answers."""
    prompt, sampled = turns[0].prompt_tokens, sum(len(t.ids) for t in turns)
    details = {"reasoning_tokens": sum(t.reasoning_tokens for t in turns)}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": sampled,
        "total_tokens": prompt + sampled,
        "completion_tokens_details": details,
    }


def openai_error(status: int, message: str, code: str | None = None, param: str | None = None) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def openai_context_full(message: str) -> bytes:
    return openai_error(400, message, "context_length_exceeded", "messages")


def comment() -> bytes:
    """Of server-sent events: clients drop it unread."""
    return b": keep-alive\n\n"


def event(name: str, data: dict[str, Any]) -> bytes:
    """One server-sent event, in the APIs that name them."""
    return b"event: " + name.encode() + b"\ndata: " + encode(data) + b"\n\n"


def models(name: str, context: int) -> bytes:
    """The list of the one model, which serves the clients of both APIs."""
    only = {"has_more": False, "first_id": name, "last_id": name}
    return encode({"object": "list", "data": [model(name, context)], **only})


def model(name: str, context: int) -> dict[str, Any]:
    openai = {"id": name, "object": "model", "created": 0, "owned_by": "crrl", "max_model_len": context}
    anthropic = {"type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
    return {**openai, **anthropic, "max_input_tokens": context, "max_tokens": context}
