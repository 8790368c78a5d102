"""The canonical form of messages: two histories are the same conversation iff their canonical forms are
equal.

It ignores the meaningless changes that we have seen real agents make, and no others (`docs/agents.md` lists the
same rules):
- a string content equals a list of text parts; missing, null and "" are equal;
- white space around content is ignored;
- tool-call arguments are compared as JSON (agents re-serialise them); text that is not JSON is compared as it
  is;
- tool-call ids, `cache_control`, names and unknown fields are ignored; `developer` is `system`;
- ids, hashes, dates and times that stand alone in system messages are ignored: some agents write new ones into every
  request (a path or a small number is none);
- dropping reasoning, or folding it into the content as `<think>...</think>`, is not a change (sending back
  *different* reasoning is: see `same_reasoning`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

_json = msgspec.json.Encoder(order="deterministic")
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
NONCE = re.compile(
    r"(?<![\w/\\.-])(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?=[a-z]*\d)(?=\d*[a-z])[0-9a-f]{6,64}|\d{6,}"
    r"|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?)?|\d\d?:\d\d(?::\d\d(?:\.\d+)?)?)(?![\w/\\-]|\.\w)",
    re.IGNORECASE,
)
_LEADING_THINK = re.compile(r"\s*(?:<think>.*?</think>\s*)+", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """One tool call. `arguments` is JSON text as sent, or raw text where it was none."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One message of any dialect, as text. Role: system | user | assistant | tool.

    Args:
        answers: of a tool result: the id of the call that it answers, until `dialects.history` has put it in order.
        sampled: of an assistant turn that is named, not repeated: the name that its items have on the wire.
        place: of a tool result: which of the turn's calls it answers, where that is not the one next in order.
    """

    role: str
    content: str = ""
    calls: list[Call] = field(default_factory=list)
    reasoning: str = ""
    answers: str = ""
    place: int | None = None
    sampled: str = ""


def split_reasoning(message: Message) -> Message:
    """Unfold `<think>...</think>` at the start of an assistant's content into `reasoning`."""
    head = _LEADING_THINK.match(message.content) if message.role == "assistant" else None
    if head is None:
        return message
    return Message(message.role, message.content[head.end() :], message.calls, "\n\n".join(reasoning_of(message)))


def reasoning_of(message: Message) -> list[str]:
    """The pieces of an assistant's reasoning: its own field, and `<think>...</think>` in the content."""
    inside = _THINK.findall(_closed(message.content)) if message.role == "assistant" else []
    return [text for piece in (message.reasoning, *inside) if (text := piece.strip())]


def _closed(content: str) -> str:
    """Up to the last `</think>`: there, each `<think>` finds its end, and a search takes linear time."""
    before, mark, _ = content.rpartition("</think>")
    return before + mark


def same_reasoning(sent: Message, sampled: Message) -> bool:
    """With reasoning dropped, in part or whole, it is the same turn; with other reasoning than was sampled it is not. A
    part is a piece or a stretch of the text: clients keep only its last delta, or join pieces with other white
    space."""
    pieces, whole = reasoning_of(sent), reasoning_of(sampled)
    sampled_text = "".join("".join(whole).split())
    return set(pieces) <= set(whole) or "".join("".join(pieces).split()) in sampled_text


def _whole_number(text: str) -> float | int:
    """1.0 is 1: some agents' JSON has only one kind of number."""
    number = float(text)
    return int(number) if number.is_integer() else number


_arguments = msgspec.json.Decoder(float_hook=_whole_number)


def _decoded(arguments: str) -> Any:
    """Raises ValueError: not JSON."""
    try:
        return _arguments.decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, OverflowError, RecursionError) as error:
        raise ValueError from error


def is_object(arguments: str) -> bool:
    try:
        return isinstance(_decoded(arguments), dict)
    except ValueError:
        return False


def canonical_arguments(arguments: str) -> bytes:
    try:
        return _json.encode(_decoded(arguments))
    except (ValueError, OverflowError):
        return arguments.strip().encode("utf-8", "surrogatepass")


def canonical(message: Message) -> bytes:
    """Without reasoning: an agent that drops it continues the same conversation."""
    content = message.content
    if message.role == "assistant" and "<think>" in content:
        closed = _closed(content)
        content = _THINK.sub("", closed) + content[len(closed) :]
    elif message.role == "system":
        content = NONCE.sub("", content)
    parts = [message.role.encode(), content.strip().encode("utf-8", "surrogatepass")]
    for call in message.calls:
        parts += [call.name.encode("utf-8", "surrogatepass"), canonical_arguments(call.arguments)]
    if message.place is not None:
        parts.append(b"%d" % message.place)
    return b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def start_digest(tools: list[dict[str, Any]] | None) -> bytes:
    """The start of a chain of digests: the tools are part of the prompt, so of the conversation."""
    return hashlib.blake2b(_json.encode(_without_cache_control(tools or [])), digest_size=16).digest()


def next_digest(digest: bytes, message: Message) -> bytes:
    """The digest of a conversation after one more message."""
    return hashlib.blake2b(digest + canonical(message), digest_size=16).digest()


def _without_cache_control(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_cache_control(v) for k, v in value.items() if k != "cache_control"}
    if isinstance(value, list):
        return [_without_cache_control(v) for v in value]
    return value
