"""An answer as a client reads it: whole bodies and event streams of each API, as one `Reply`.

For code on the client's side of the gateway: `check.py`, which compares it with the script, and `record.py`. It uses
none of the dialects' code, so that a bug in one cannot hide the same bug in the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from crrl.conformance.recording import Reply

MODEL_APIS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


class Broken(Exception):
    """The answer is an error, or breaks off."""


def api_of(path: str) -> str:
    """The model API that a path (with its query) belongs to; "" if none."""
    plain = path.partition("?")[0].rstrip("/")
    return plain if plain in MODEL_APIS else ""


def read_reply(path: str, raw: bytes, streamed: bool) -> Reply:
    """Raises Broken."""
    api = api_of(path)
    try:
        if api == "/v1/responses":
            return _response(_closing(raw) if streamed else json.loads(raw))
        if api == "/v1/messages":
            return _message(raw, streamed)
        return _completion(raw, streamed)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Broken(f"{type(error).__name__}: {error}: {raw[-300:]!r}") from error


def _events(raw: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream, `[DONE]` as {"type": "[DONE]"}."""
    for block in raw.decode().replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].lstrip() for line in block.split("\n") if line.startswith("data:"))
        if data == "[DONE]":
            yield {"type": "[DONE]"}
        elif data:
            event = json.loads(data)
            if event.get("error") and "choices" not in event and event.get("type") in (None, "error"):
                raise Broken(f"an error in the stream: {event['error']}")
            yield event


def _closing(raw: bytes) -> dict[str, Any]:
    """The response that the stream's last event carries."""
    last = list(_events(raw))[-1]
    if last["type"] not in ("response.completed", "response.incomplete"):
        raise Broken(f"the stream ends with {last['type']}")
    closing: dict[str, Any] = last["response"]
    return closing


def _response(body: dict[str, Any]) -> Reply:
    text, reasoning, calls = "", "", []
    for item in body["output"]:
        if item["type"] == "message":
            text += "".join(part.get("text", "") for part in item["content"])
        elif item["type"] == "reasoning":
            parts = item.get("content") or item.get("summary") or []
            reasoning += "".join(part.get("text", "") for part in parts)
        elif item["type"] == "function_call":
            calls.append((item["call_id"], item["name"], item["arguments"]))
    return Reply(text, reasoning or None, tuple(calls))


def _message(raw: bytes, streamed: bool) -> Reply:
    if streamed:
        blocks: list[dict[str, Any]] = []
        seen = list(_events(raw))
        if seen[-1]["type"] != "message_stop":
            raise Broken(f"the stream ends with {seen[-1]['type']}")
        for event in seen:
            if event["type"] == "content_block_start":
                blocks.append({**event["content_block"], "json": ""})
            elif event["type"] == "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
                for key, into in (("text", "text"), ("thinking", "thinking"), ("partial_json", "json")):
                    block[into] = block.get(into, "") + delta.get(key, "")
    else:
        blocks = json.loads(raw)["content"]
    calls = tuple(
        (b["id"], b["name"], b.get("json") or json.dumps(b["input"])) for b in blocks if b["type"] == "tool_use"
    )
    text = "".join(b["text"] for b in blocks if b["type"] == "text")
    return Reply(text, "".join(b["thinking"] for b in blocks if b["type"] == "thinking") or None, calls)


def _completion(raw: bytes, streamed: bool) -> Reply:
    """Chat completions, and the older completions. Of several choices the first."""
    if not streamed:
        choice = json.loads(raw)["choices"][0]
        message = choice.get("message") or {"content": choice.get("text")}
        return _chat(message, message.get("tool_calls") or [])
    whole: dict[str, str] = {}
    calls: dict[int, dict[str, Any]] = {}
    seen = list(_events(raw))
    if seen[-1]["type"] != "[DONE]":
        raise Broken("the stream ends without [DONE]")
    for choice in (c for event in seen[:-1] for c in event["choices"] if c.get("index", 0) == 0):
        delta = choice.get("delta") or {"content": choice.get("text")}
        for key in ("content", "reasoning_content"):
            whole[key] = whole.get(key, "") + (delta.get(key) or "")
        for part in delta.get("tool_calls") or []:
            call = calls.setdefault(part["index"], {"id": "", "function": {"name": "", "arguments": ""}})
            call["id"] = part.get("id") or call["id"]
            for key in ("name", "arguments"):
                call["function"][key] += part.get("function", {}).get(key) or ""
    return _chat(whole, [calls[index] for index in sorted(calls)])


def _chat(message: dict[str, Any], calls: list[dict[str, Any]]) -> Reply:
    functions = tuple((c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls)
    return Reply(message.get("content") or "", message.get("reasoning_content") or None, functions)
