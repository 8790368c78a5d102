"""The load of `crrl bench gateway`, in a separate process, so that the benchmark does not measure it.

    python bench_load.py '{"sessions": 32, "turns": 8, "stream": false, "seconds": 0, "result": "..."}'

Raw HTTP on asyncio streams, with nothing but the standard library. Each of `sessions` slots plays conversations of
`turns` requests, one, or as many as fit into `seconds`; for each it asks the bench for a session (`open SLOT` out,
`SLOT PATH` back) and gives it back (`close SLOT`). A latency runs from the first byte sent to the last byte received;
bodies are built and read outside it. At the end: one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import resource
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


class Load:
    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._paths: dict[str, asyncio.Future[str]] = {}
        self._samples: list[tuple[int, float, int]] = []  # turn, seconds, tokens of the prompt
        self._until = 0.0

    async def run(self) -> dict[str, Any]:
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        answers = asyncio.create_task(self._answers(commands))
        began, cpu = time.monotonic(), _cpu_s()
        self._until = began + self._spec["seconds"]
        await asyncio.gather(*(self._slot(str(i)) for i in range(self._spec["sessions"])))
        answers.cancel()
        wall = time.monotonic() - began
        return {"samples": self._samples, "wall_s": wall, "cpu_s": _cpu_s() - cpu}

    async def _answers(self, commands: asyncio.StreamReader) -> None:
        while line := await commands.readline():
            slot, path = line.decode().split()
            self._paths.pop(slot).set_result(path)

    async def _slot(self, slot: str) -> None:
        # Sessions that start together would stay in step; agents do not.
        await asyncio.sleep(self._spec["spread_s"] * int(slot) / self._spec["sessions"])
        while True:
            self._paths[slot] = asyncio.get_running_loop().create_future()
            print("open", slot, flush=True)
            path = await self._paths[slot]
            reader, writer = await asyncio.open_connection(self._spec["host"], self._spec["port"])
            await self._conversation(path, reader, writer)
            writer.close()
            print("close", slot, flush=True)
            if time.monotonic() >= self._until:
                return

    async def _conversation(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": "You repair the repository with the shell."},
            {"role": "user", "content": self._spec["result"]},
        ]
        for turn in range(1, self._spec["turns"] + 1):
            ask: dict[str, Any] = {"model": "policy", "messages": messages, "tools": [TOOL]}
            if self._spec["stream"]:
                ask |= {"stream": True, "stream_options": {"include_usage": True}}
            body = json.dumps(ask).encode()
            head = f"POST {path}/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            start = time.perf_counter()
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            raw = await (_events(reader) if self._spec["stream"] else _body(reader))
            seconds = time.perf_counter() - start
            message, usage = _streamed(raw) if self._spec["stream"] else _whole(raw)
            assert usage["completion_tokens"] == self._spec["tokens"], usage
            self._samples.append((turn, seconds, usage["prompt_tokens"]))
            messages.append(message)
            call = message["tool_calls"][0]
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": self._spec["result"]})


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    assert " 200 " in lines[0], lines[0]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}


async def _body(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int((await _head(reader))["content-length"]))


async def _events(reader: asyncio.StreamReader) -> bytes:
    assert (await _head(reader))["transfer-encoding"] == "chunked"
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(parts)


def _whole(raw: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    answer = json.loads(raw)
    return answer["choices"][0]["message"], answer["usage"]


def _streamed(raw: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    """The message that the events add up to."""
    assert raw.endswith(b"data: [DONE]\n\n"), raw[-80:]
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
    usage: dict[str, int] = {}
    for line in raw.split(b"\n\n")[:-2]:
        event = json.loads(line.removeprefix(b"data: "))
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            message["content"] += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or []:
                message["tool_calls"].append({k: v for k, v in call.items() if k != "index"})
    return message, usage


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Load(json.loads(sys.argv[1])).run())), flush=True)
