"""The wire to vLLM, against answers that the real server gave to the very requests that we send.

`CRRL_RECORD=1 make test-vllm ARGS='-k recordings'` writes recorded/vllm.json. Without the variable it compares the file
with what a real server says: a later vLLM that says something else is noticed there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from vllm_kit import RECORDED, RECORDINGS, Answer, ask

from crrl.engines import ContextLengthError, EngineError, Request
from crrl.engines.vllm.client import Serving, VllmClient

EXCHANGES: dict[str, Any] = json.loads(RECORDINGS.read_text())


@asynccontextmanager
async def playing(
    folder: Path, name: str, *, lines: int | None = None, break_off: bool = False, ill: int = 0
) -> AsyncIterator[tuple[VllmClient, list[dict[str, Any]]]]:
    """A server on a socket that gives one recorded answer, or its first lines; and the requests that it got. It
    refuses the first `ill` of them, as one does whose engine has died."""
    exchange = EXCHANGES[name]
    got: list[dict[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = json.loads(await reader.readexactly(length)) if length else None
        got.append({"path": head.split()[1], "body": body, "headers": headers})
        status = 503 if len(got) <= ill else exchange["status"]
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: {exchange['type']}\r\n".encode())
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        for line in exchange["lines"][:lines]:
            data = f"{line}\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        if break_off:
            writer.transport.abort()
            return
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    socket = folder / "s"
    client = VllmClient(Serving((str(socket),), 1024, 964, "hash", seeds=False).address.partition(":")[2])
    async with await asyncio.start_unix_server(answer, str(socket)):
        yield client, got
        await client.close()


@pytest.mark.parametrize("name", ["stop", "length", "greedy", "pushed"])
async def test_generations(name: str, tmp_path: Path) -> None:
    request = RECORDED[name]
    async with playing(tmp_path, name) as (client, got):
        answer = await ask(client, request)
    assert got[0]["path"] == "/inference/v1/generate"
    assert got[0]["body"] == EXCHANGES[name]["body"], "not what the real server was asked"
    assert got[0]["headers"]["x-session-id"] == request.scope
    assert len(answer.ids) == len(answer.logprobs) == len(answer.versions) > 0
    assert answer.finish == ("stop" if answer.ids[-1] in request.stop_ids else "length")
    assert (answer.finish == "stop") == (name == "stop")
    assert all(value <= 0 for value in answer.logprobs)
    assert answer.versions == sorted(answer.versions)
    assert len(set(answer.versions)) == (2 if name == "pushed" else 1)


async def test_a_generation_that_is_cut_has_its_versions_too(tmp_path: Path) -> None:
    async with playing(tmp_path, "pushed") as (client, _):
        stream = client.generate(RECORDED["pushed"])
        first = await anext(stream)
        await stream.aclose()
    assert first.finish is None and first.versions


async def test_the_log_probs_of_a_prompt(tmp_path: Path) -> None:
    ids = EXCHANGES["score"]["body"]["token_ids"]
    async with playing(tmp_path, "score") as (client, got):
        scored = await client.score(ids)
    assert got[0]["body"] == EXCHANGES["score"]["body"]
    assert len(scored) == len(ids) - 1 and all(value < 0 for value in scored)


async def test_the_version_that_is_served(tmp_path: Path) -> None:
    async with playing(tmp_path, "version") as (client, _):
        info = await client.info()
    assert (info.context, info.vocab_size, info.tokenizer_hash) == (1024, 964, "hash")
    assert not (info.constrained or info.truncates)


async def test_a_new_server_has_no_policy(tmp_path: Path) -> None:
    """As one is that was started again behind our back."""
    async with playing(tmp_path, "unpushed-version") as (client, _):
        with pytest.raises(EngineError, match="no run has pushed"):
            await client.info()
    async with playing(tmp_path, "unpushed") as (client, _):
        with pytest.raises(EngineError, match="no run has pushed"):
            await ask(client, RECORDED["length"])


@pytest.mark.parametrize(
    ("name", "says"),
    [("too-long", r"failed: The decoder prompt .* is longer"), ("unknown-model", r"answers 404: The model `other`")],
)
async def test_refusals_are_named(name: str, says: str, tmp_path: Path) -> None:
    async with playing(tmp_path, name) as (client, _):
        with pytest.raises(EngineError, match=says):
            await ask(client, RECORDED["length"])


async def test_a_server_that_breaks_off(tmp_path: Path) -> None:
    for lines in (0, 3, 4):
        async with playing(tmp_path, "length", lines=lines, break_off=True) as (client, _):
            answer = Answer(RECORDED["length"])
            with pytest.raises(EngineError, match=r"was lost|is gone"):
                await ask(client, RECORDED["length"], answer)
            assert answer.finish is None


async def test_an_answer_that_ends_too_early(tmp_path: Path) -> None:
    async with playing(tmp_path, "length", lines=3) as (client, _):
        with pytest.raises(EngineError, match="without a finish reason"):
            await ask(client, RECORDED["length"])


async def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    early = VllmClient(Serving((str(tmp_path / "s"),), 1024, 964, "hash", seeds=False).address.partition(":")[2])
    asking = asyncio.create_task(ask(early, RECORDED["length"]))
    await asyncio.sleep(0)
    async with playing(tmp_path, "length"):
        assert (await asking).finish == "length"
    await early.close()


async def test_where_no_server_is_there_is_nothing_to_cancel(tmp_path: Path) -> None:
    alone = VllmClient(Serving((str(tmp_path / "s"),), 1024, 964, "hash", seeds=False).address.partition(":")[2])
    asking = asyncio.create_task(ask(alone, RECORDED["length"]))
    await asyncio.sleep(0.1)
    async with asyncio.timeout(30):
        await alone.cancel("length")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await alone.close()


async def test_a_dying_server_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refusal would cost a try of an episode that has done nothing."""
    async with playing(tmp_path, "length", ill=2) as (client, got):
        assert (await ask(client, RECORDED["length"])).finish == "length"
    assert len(got) == 3
    monkeypatch.setattr("crrl.engines.vllm.client.HEAL_S", 0.0)
    async with playing(tmp_path, "length", ill=2) as (client, _):
        with pytest.raises(EngineError, match="answers 503"):
            await ask(client, RECORDED["length"])


async def test_what_cannot_be_asked_never_leaves(tmp_path: Path) -> None:
    async with playing(tmp_path, "length") as (client, got):
        with pytest.raises(ContextLengthError):
            await ask(client, Request("a", [7] * 1024, 1))
        for request in (Request("b", [], 1), Request("c", [7], 0), Request("d", [964], 1), Request("e", [-1], 1)):
            with pytest.raises(ValueError, match="request"):
                await ask(client, request)
    assert not got
