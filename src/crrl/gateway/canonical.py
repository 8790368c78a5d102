"""The canonical form of messages: two histories are the same conversation iff their canonical forms are
equal.

What real agents were seen to change without meaning anything by it is covered here, and nothing else:
- a string content equals a list of text parts; missing, null and "" are equal;
- white space around a content is ignored;
- tool-call arguments are compared as JSON (agents re-serialise them); text that is no JSON is compared as it
  is;
- tool-call ids, `cache_control`, names and unknown fields are ignored; `developer` is `system`;
- reasoning that an agent drops, or folds into the content as `<think>...</think>`, is no change (reasoning
  sent back *different* is: see `tree.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

_json = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True)
class Call:
    """One tool call. `arguments` is JSON text as sent, or raw text where it was none."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One message of any dialect, as text. Role: system | user | assistant | tool."""

    role: str
    content: str = ""
    calls: list[Call] = field(default_factory=list)
    reasoning: str = ""

    def rendered(self) -> dict[str, Any]:
        """The form `renderers` takes; arguments stay the text that was sent."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in self.calls
            ]
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        return message


def split_reasoning(message: Message) -> Message:
    """Unfold `<think>...</think>` at the start of an assistant's content into `reasoning`."""
    text = message.content.lstrip()
    if message.role != "assistant" or not text.startswith("<think>") or "</think>" not in text:
        return message
    inside, _, after = text[len("<think>") :].partition("</think>")
    return Message(message.role, after, message.calls, message.reasoning or inside.strip())


def canonical_arguments(arguments: str) -> bytes:
    if not arguments.strip():
        return b"{}"
    try:
        return _json.encode(msgspec.json.decode(arguments))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return arguments.strip().encode("utf-8", "surrogatepass")


def canonical(message: Message) -> bytes:
    """Reasoning is not part of it: an agent that drops reasoning continues the same conversation."""
    message = split_reasoning(message)
    parts = [message.role.encode(), message.content.strip().encode("utf-8", "surrogatepass")]
    for call in message.calls:
        parts += [call.name.encode("utf-8", "surrogatepass"), canonical_arguments(call.arguments)]
    return b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def start_digest(tools: list[dict[str, Any]] | None) -> bytes:
    """Where a chain of digests starts: the tools are part of the prompt, so of the conversation."""
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
