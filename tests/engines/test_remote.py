"""engine=remote: a real server on loopback says what it is told to; every failure by its name, and no key anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from remote_kit import KEY, ChatServer, completion, error

from crrl import engines
from crrl.engines import EngineError, remote
from crrl.engines.chat import NotAnswered, Question, TooLong
from crrl.engines.remote import Endpoint, RemoteEngine
from crrl.errors import CrrlError, UsageError

ASKED = Question("q", [{"role": "user", "content": "hi"}], 32, top_p=0.9, stop=["x"], seed=2**64 - 1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    made = ChatServer()
    yield made
    made.close()


async def test_what_is_asked_and_what_is_said(server: ChatServer) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "run", "arguments": '{"a": 1}'}}
    server.answers = [(200, completion(None, "tool_calls", tool_calls=[call], reasoning_content="hm"), {})]
    endpoint = engines.connect(f"remote:{server.rest}")
    assert isinstance(endpoint, Endpoint)
    said = await endpoint.answer(ASKED)
    assert (said.content, said.reasoning, said.calls) == ("", "hm", [("run", '{"a": 1}')])
    assert (said.finish, said.prompt_tokens, said.tokens) == ("stop", 11, 7)
    (body,) = server.asked
    assert body["model"] == "big" and body["max_tokens"] == 32 and body["top_p"] == 0.9 and body["stop"] == ["x"]
    assert 0 <= body["seed"] < 2**63 and "tools" not in body and server.keys == [f"Bearer {KEY}"]
    assert (await endpoint.info()).context == 4096
    await endpoint.close()


@pytest.mark.parametrize(
    "first",
    [
        (429, error("slow down"), {"Retry-After": "0.01"}),
        (500, "oops", {}),
        (503, error("overloaded"), {}),
        (529, error("overloaded"), {}),
        (200, "<html>", {}),
        (0, "", {}),
    ],
)
async def test_what_passes_is_tried_again(server: ChatServer, first: Any) -> None:
    server.answers = [first, first, (200, completion(), {})]
    endpoint = Endpoint(server.rest, first_wait_s=0.001)
    assert (await endpoint.answer(ASKED)).content == "hello" and len(server.asked) == 3
    await endpoint.close()


async def test_what_never_passes_is_an_engine_that_failed(server: ChatServer) -> None:
    server.answers = [(500, error("for ever"), {})]
    endpoint = Endpoint(server.rest, first_wait_s=1e-5)
    with pytest.raises(EngineError, match="failed 9 times; at last: 500 for ever") as caught:
        await endpoint.answer(ASKED)
    assert len(server.asked) == remote.TRIES and KEY not in str(caught.value)
    server.answers = [(200, {"choices": []}, {})]
    with pytest.raises(EngineError, match="no chat completion"):
        await endpoint.answer(ASKED)
    server.answers = [(200, {**completion(), "usage": None}, {})]
    with pytest.raises(EngineError, match="no chat completion"):  # budgets count its tokens
        await endpoint.answer(ASKED)
    await endpoint.close()


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000.", TooLong),
        (400, "prompt is too long: 213543 tokens > 200000 maximum", TooLong),
        (400, "Input exceeds the context window of this model.", TooLong),
        (413, "Request Entity Too Large", TooLong),
        (400, "The response was filtered due to the content policy", NotAnswered),
        (422, "tools: unsupported", NotAnswered),
        (401, "Incorrect API key provided", EngineError),
        (404, "The model does not exist", EngineError),
    ],
)
async def test_what_it_refuses_is_told_apart(server: ChatServer, status: int, message: str, kind: type) -> None:
    server.answers = [(status, error(message), {})]
    endpoint = Endpoint(server.rest)
    with pytest.raises(kind, match=message[:20]):
        await endpoint.answer(ASKED)
    assert len(server.asked) == 1
    await endpoint.close()


async def test_the_newer_name_of_the_limit_is_learnt(server: ChatServer) -> None:
    server.answers = [(400, error("Use 'max_completion_tokens' instead."), {}), (200, completion(), {})]
    endpoint = Endpoint(server.rest)
    await endpoint.answer(ASKED)
    await endpoint.answer(ASKED)
    assert ["max_tokens" in body for body in server.asked] == [True, False, False]
    await endpoint.close()


def test_the_start_says_what_is_wrong(server: ChatServer) -> None:
    made = RemoteEngine(None, url=f"{server.url}/", model="big", key_variable="TEST_KEY")  # type: ignore[arg-type]
    made.start(print, print)
    assert KEY not in made.address and server.asked[0]["max_tokens"] == 16
    server.answers = [(401, error("Incorrect API key provided"), {})]
    with pytest.raises(CrrlError, match="Incorrect API key") as caught:
        made.start(print, print)
    assert "TEST_KEY, which is set" in caught.value.remedy and KEY not in caught.value.message + caught.value.remedy
    for url in ("", "api.openai.com/v1", "ftp://x/v1"):
        with pytest.raises(UsageError, match="is no address"):
            RemoteEngine(None, url=url, model="big", key_variable="TEST_KEY")  # type: ignore[arg-type]
