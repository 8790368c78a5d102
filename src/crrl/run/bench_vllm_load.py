"""The load of `crrl bench vllm`, in a process of its own, so that the benchmark does not measure it.

    python bench_vllm_load.py < spec.json        one JSON line at the end: what each request saw, by the system's clock

Raw HTTP on asyncio streams. `raw`: the bodies in `sessions` go to a server's socket, those of one session one after the
other. `chat`: each path in `sessions` is a session of the gateway, with a conversation of `turns`, streamed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

TOOL = {
    "type": "function",
    "function": {
        "name": "shell",
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
    },
}


async def play(spec: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    one = _raw if spec["mode"] == "raw" else _chat
    seen = await asyncio.gather(*(one(spec, session) for session in spec["sessions"]))
    return {"wall_s": time.monotonic() - began, "seen": seen}


async def _raw(spec: dict[str, Any], bodies: list[dict[str, Any]]) -> list[Any]:
    reader, writer = await asyncio.open_unix_connection(spec["socket"])
    for body in bodies:
        async for _ in _events(reader, writer, "/inference/v1/generate", body):
            pass
    writer.close()
    return []


async def _chat(spec: dict[str, Any], path: str) -> list[tuple[float, float]]:
    """For each turn, when it was sent, and when its first text or call came."""
    reader, writer = await asyncio.open_connection(spec["host"], spec["port"])
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You repair the repository with the shell."},
        {"role": "user", "content": f"{path}: {spec['text']}"},
    ]
    seen = []
    for _ in range(spec["turns"]):
        body = {"model": "policy", "messages": messages, "tools": [TOOL], "stream": True, "max_tokens": spec["tokens"]}
        sent, first = time.monotonic(), 0.0
        answer: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
        async for event in _events(reader, writer, f"{path}/chat/completions", body):
            for choice in json.loads(event)["choices"]:
                delta = choice["delta"]
                if not first and (delta.get("content") or delta.get("tool_calls")):
                    first = time.monotonic()
                answer["content"] += delta.get("content") or ""
                _put(answer["tool_calls"], delta.get("tool_calls") or [])
        seen.append((sent, first))
        calls = answer["tool_calls"]
        messages.append(answer if calls else {"role": "assistant", "content": answer["content"]})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": spec["text"]} for call in calls]
        if not calls:
            messages.append({"role": "user", "content": "Go on."})
    writer.close()
    return seen


def _put(calls: list[dict[str, Any]], deltas: list[dict[str, Any]]) -> None:
    for delta in deltas:
        while len(calls) <= delta["index"]:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call, function = calls[delta["index"]], delta.get("function") or {}
        call["id"] = delta.get("id") or call["id"]
        for key in ("name", "arguments"):
            call["function"][key] += function.get(key) or ""


async def _events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: object) -> Any:
    """The data of each event of a streamed answer."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    status = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert " 200 " in status.split("\r\n")[0], status
    while size := int(await reader.readline(), 16):
        for line in (await reader.readexactly(size + 2)).split(b"\n"):
            if line.startswith(b"data: {"):
                yield line[6:]
    await reader.readline()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(play(json.loads(sys.stdin.read())))), flush=True)
