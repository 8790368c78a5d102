"""A recording of a live agent is what it sent and got, and passes the check."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from gateway_kit import STOP, TOOLS, Bench, call_text

from crrl.cli.main import main
from crrl.conformance import check
from crrl.conformance.record import Recorder
from crrl.conformance.recording import Recorded, Reply, Writer, read
from crrl.gateway import Budget

THOUGHT = f"<think>\nlook\n</think>\n\nSo.{STOP}"


async def recorded(bench: Bench, file: Path, agent) -> list[Recorded]:
    """What `agent(base_url)` sends to the bench's gateway, by way of a recorder."""
    handle = bench.gateway.open("a", Budget(turns=50))
    writer = Writer(file)
    async with Recorder(handle.base_url, writer, "mine", "base").serving() as url:
        await agent(url)
    writer.close()
    return read(file)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_passes_through_is_written_and_passes_the_check(bench: Bench, tmp_path: Path, stream: bool) -> None:
    await bench.start(call_text("ls", "Let me look."), THOUGHT)
    got = []

    async def agent(url: str) -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-mine", max_retries=0) as client:
            messages: list = [{"role": "user", "content": "go"}]
            for _ in range(2):
                reply = await client.chat.completions.create(
                    model="m", messages=messages, tools=TOOLS, stream=stream, extra_headers={"x-session": "7"}
                )
                message = await joined(reply) if stream else reply.choices[0].message.model_dump(exclude_none=True)
                got.append(message)
                messages += [message, {"role": "user", "content": "and?"}]

    first, second = await recorded(bench, tmp_path / "r.jsonl", agent)
    assert (first.path, first.method, first.i, first.variant) == ("/v1/chat/completions", "POST", 1, "mine")
    assert first.resp == Reply("Let me look.", None, ((got[0]["tool_calls"][0]["id"], "shell", '{"cmd":"ls"}'),))
    assert second.resp == Reply("So.", "look") and second.body["messages"][1] == got[0]
    assert first.headers["x-session"] == "7" and "sk-mine" not in (tmp_path / "r.jsonl").read_text()
    report = await check.check([first, second], bench.renderer)
    assert report.passed and (report.total("accepted"), report.total("matched")) == (2, 1)


async def joined(stream) -> dict:
    """A streamed message, as an agent puts it together to send it back."""
    message: dict = {"role": "assistant", "content": ""}
    async for chunk in stream:
        for choice in chunk.choices:
            message["content"] += choice.delta.content or ""
            for call in choice.delta.tool_calls or []:
                message["tool_calls"] = [call.model_dump(exclude={"index"})]
    return message


async def test_every_api_is_recorded_as_its_client_reads_it(bench: Bench, tmp_path: Path) -> None:
    answers = 2 * [f"<think>\nlook\n</think>\n\n{call_text('ls', 'So.')}"]
    await bench.start(*answers, *answers)
    tool = TOOLS[0]["function"]

    async def agent(url: str) -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            flat = {"type": "function", **tool, "strict": False}
            await client.responses.create(model="m", input="go", tools=[flat])
            async with client.responses.stream(model="m", input="come", tools=[flat]) as stream:
                await stream.until_done()
        root = url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(base_url=root, api_key="k") as client:
            ask = {"model": "m", "max_tokens": 99, "tools": [{"name": "shell", "input_schema": tool["parameters"]}]}
            await client.messages.create(messages=[{"role": "user", "content": "go"}], **ask)
            async with client.messages.stream(messages=[{"role": "user", "content": "come"}], **ask) as stream:
                await stream.until_done()

    requests = await recorded(bench, tmp_path / "r.jsonl", agent)
    assert [one.path for one in requests] == 2 * ["/v1/responses"] + 2 * ["/v1/messages"]
    for one in requests:
        assert isinstance(one.resp, Reply)
        ((_, name, arguments),) = one.resp.calls
        assert (one.resp.text, one.resp.reasoning, name, json.loads(arguments)) == (
            "So.",
            "look",
            "shell",
            {"cmd": "ls"},
        )
    report = await check.check(requests, bench.renderer)
    assert report.passed, report.sessions[0].problems


async def test_faults_are_recorded_as_faults(bench: Bench, tmp_path: Path) -> None:
    await bench.start(f"ok{STOP}", "word " * 300, step=1, delay=0.01)
    body = {"model": "m", "messages": [{"role": "user", "content": "go"}], "stream": True}

    async def agent(url: str) -> None:
        async with httpx.AsyncClient(verify=False) as http:
            await http.get(f"{url}/nothing/here")
            await http.post(f"{url}/chat/completions", json={"model": "m"})
            await http.post(f"{url}/chat/completions", json={**body, "messages": body["messages"] * 4000})
            await http.post(f"{url}/chat/completions", json=body)
            async with http.stream("POST", f"{url}/chat/completions", json={**body, "n": 1, "stop": "x"}) as reply:
                async for _ in reply.aiter_bytes():
                    break  # and away
        await asyncio.sleep(0.3)

    requests = await recorded(bench, tmp_path / "r.jsonl", agent)
    assert [one.resp for one in requests] == [404, "FAIL-400", "FAIL-ctx", Reply("ok"), "FAIL-drop"]


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    recorder = Recorder("http://127.0.0.1:9/v1", Writer(tmp_path / "r.jsonl"), "v", "s")
    async with recorder.serving() as url, httpx.AsyncClient(verify=False) as http:
        reply = await http.post(f"{url}/chat/completions", json={})
    assert reply.status_code == 502 and "upstream" in reply.json()["error"]["message"]


async def test_the_command_line_records_an_agent_and_ends_with_it(bench: Bench, tmp_path: Path) -> None:
    await bench.start(f"hello{STOP}")
    upstream = bench.gateway.open("a").base_url
    script = tmp_path / "agent.py"
    script.write_text(
        "import openai; openai.OpenAI().chat.completions.create("
        "model='m', messages=[{'role': 'user', 'content': 'go'}])"
    )
    out = tmp_path / "r.jsonl"
    words = [
        "gateway",
        "record",
        str(out),
        f"upstream={upstream}",
        f"command={sys.executable} {script}",
        "scenario=one",
    ]
    code = await asyncio.to_thread(main, words)
    (one,) = read(out)
    assert code == 0 and (one.scenario, one.resp) == ("one", Reply("hello"))
    assert main(["gateway", "record", str(out), f"upstream={upstream}"]) == 1  # never over another recording
