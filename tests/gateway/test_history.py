"""Histories as agents really send them back: results out of order, turns in pieces, items by reference, half emoji."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from gateway_kit import STOP, TOOLS, Bench
from template_kit import every_family

from crrl.gateway.api import Budget
from crrl.gateway.canonical import Call, Message
from crrl.gateway.dialects.history import put_in_order
from crrl.gateway.renderer import Renderer, load_renderer

TURN = "0123456789abcdef01234567"
A, B, C = (Call("shell", json.dumps({"cmd": name}), f"call_{TURN}_{i}") for i, name in enumerate("abc"))


def result(call: Call, text: str) -> Message:
    return Message("tool", text, answers=call.id)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_results_stand_in_the_order_of_their_calls(order: tuple[int, ...]) -> None:
    calls = [A, B, C]
    sent = [Message("assistant", "", calls), *(result(calls[i], f"of {i}") for i in order), Message("user", "Go on.")]
    assert put_in_order(sent) == [
        sent[0],
        *(Message("tool", f"of {i}") for i in range(3)),
        Message("user", "Go on."),
    ]


def test_a_result_that_comes_alone_says_which_call_it_answers() -> None:
    found = put_in_order([Message("assistant", "", [A, B]), result(B, "of b")])
    assert found[1].place == 1
    unknown = put_in_order([Message("assistant", "", [A, B]), Message("tool", "x", answers="nobody's"), result(A, "a")])
    assert [m.content for m in unknown[1:]] == ["x", "a"]  # who knows: left where they are


@pytest.mark.parametrize("content", ["", "Go."])
def test_a_turn_in_pieces_is_one_turn(content: str) -> None:
    sent = [
        Message("user", "x"),
        Message("assistant", "Go.", [A]),
        result(A, "of a"),
        Message("assistant", content, [B]),
        result(B, "of b"),
    ]
    whole = [
        Message("user", "x"),
        Message("assistant", "Go.", [A, B]),
        Message("tool", "of a"),
        Message("tool", "of b"),
    ]
    assert put_in_order(sent) == whole


def test_turns_that_only_look_alike_stay_apart() -> None:
    other = Call("shell", "{}", "call_ffffffffffffffffffffffff_0")
    foreign = [Call("shell", "{}", id) for id in ("1", "2")]
    for second in (other, *foreign):
        sent = [Message("assistant", "", [foreign[0]]), Message("tool", "r"), Message("assistant", "", [second])]
        assert len(put_in_order(sent)) == 3
    again = [Message("assistant", "", [A]), result(A, "r"), Message("user", "no"), Message("assistant", "", [A])]
    assert len(put_in_order(again)) == 4


@pytest.mark.parametrize("key", ["kimi-k2", "inkling", "gemma4", "qwen3", "kimi-k2.5"])
def test_where_the_template_names_the_call_it_names_the_right_one(key: str) -> None:
    renderer = load_renderer(every_family(), key)
    calls = [Call("read", "{}", "r"), Call("test", "{}", "t")]
    sent = [
        Message("user", "x"),
        Message("assistant", "", calls),
        result(calls[1], "OF TEST"),
        result(calls[0], "OF READ"),
    ]
    in_order = [sent[0], sent[1], Message("tool", "OF READ"), Message("tool", "OF TEST")]
    assert renderer.prompt(put_in_order(sent), None) == renderer.prompt(in_order, None)
    alone = renderer.tokenizer.decode(renderer.prompt(put_in_order(sent[:3]), None))
    if key != "qwen3":
        assert "test" in alone[alone.index("OF TEST") - 60 : alone.index("OF TEST")]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


async def opened(bench: Bench, *answers: str) -> str:
    await bench.start(*answers)
    handle = bench.gateway.open("s", Budget())
    return handle.base_url


async def test_items_by_reference_are_the_turns_that_were_sampled(bench: Bench, http: httpx.AsyncClient) -> None:
    url = await opened(bench, f"<think>\nHm.\n</think>\n\nHi.{STOP}", f"Yes.{STOP}")
    first = (await http.post(f"{url}/responses", json={"model": "m", "input": "x"})).json()
    references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
    asked = [{"role": "user", "content": "x"}, *references, {"role": "user", "content": "y"}]
    assert (await http.post(f"{url}/responses", json={"model": "m", "input": asked})).status_code == 200
    unknown = [{"type": "item_reference", "id": f"msg_{TURN}_0"}]
    refused = await http.post(f"{url}/responses", json={"model": "m", "input": unknown})
    assert refused.status_code == 400 and "not sampled in this session" in refused.text
    one, two = (await bench.gateway.close("s")).samples
    assert two.parent == one.id


@pytest.mark.parametrize(
    "part,shown",
    [
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}, "[image left out"),
        ({"type": "tool_reference", "tool_name": "CronList"}, "[tool: CronList]"),
        ({"type": "document", "source": {}}, "[document left out"),
    ],
)
async def test_parts_of_a_result_that_are_no_text_are_named(
    bench: Bench, http: httpx.AsyncClient, part: dict[str, Any], shown: str
) -> None:
    url = await opened(bench, f"Ok.{STOP}")
    content = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "See:"}, part]}]
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "shell", "input": {"cmd": "ls"}}]},
        {"role": "user", "content": content},
    ]
    answer = await http.post(f"{url}/messages", json={"model": "m", "max_tokens": 9, "messages": messages})
    assert answer.status_code == 200
    (sample,) = (await bench.gateway.close("s")).samples
    assert shown in bench.renderer.tokenizer.decode(sample.prompt_ids)


async def test_an_image_from_the_user_is_refused_as_before(bench: Bench, http: httpx.AsyncClient) -> None:
    url = await opened(bench)
    content = [{"type": "image_url", "image_url": {"url": "data:"}}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    refused = await http.post(f"{url}/chat/completions", json=body)
    assert refused.status_code == 400 and "image_url" in refused.text


@pytest.mark.parametrize(
    "text,shown",
    [
        (r"cut \ud83d", "cut \ufffd"),
        (r"\ude00 cut", "\ufffd cut"),
        (r"\ud83d\ud83d\ude00", "\ufffd"),
        (r"\\ud83d", r"\ud83d"),
        (r"a \ud83d b \ude00 \ud83d\ude00", "a \ufffd b \ufffd "),
    ],
)
async def test_half_an_emoji_is_no_bad_request(bench: Bench, http: httpx.AsyncClient, text: str, shown: str) -> None:
    url = await opened(bench, f"Ok.{STOP}")
    raw = '{"model": "m", "messages": [{"role": "user", "content": "%s"}]}' % text  # noqa: UP031
    answer = await http.post(f"{url}/chat/completions", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    (sample,) = (await bench.gateway.close("s")).samples
    assert shown in bench.renderer.tokenizer.decode(sample.prompt_ids)


@pytest.mark.parametrize(
    "sent,same", [("the work", True), ("plan  the\nwork", True), ("", True), ("plan other work", False)]
)
async def test_a_stretch_of_the_reasoning_is_the_same_turn(
    bench: Bench, http: httpx.AsyncClient, sent: str, same: bool
) -> None:
    url = await opened(bench, f"<think>\nplan the work\n</think>\n\nSo.{STOP}", f"Ok.{STOP}")
    user = {"role": "user", "content": "x"}
    await http.post(f"{url}/chat/completions", json={"model": "m", "messages": [user]})
    back = {"role": "assistant", "content": "So.", "reasoning_content": sent}
    await http.post(f"{url}/chat/completions", json={"model": "m", "messages": [user, back, user]})
    first, second = (await bench.gateway.close("s")).samples
    assert (second.parent == first.id) == same


async def test_a_call_that_says_parameters_has_its_arguments(bench: Bench) -> None:
    await bench.start(f'<tool_call>\n{{"name": "shell", "parameters": {{"cmd": "ls"}}}}\n</tool_call>{STOP}')
    tools: Any = TOOLS
    client = bench.client(bench.gateway.open("s", Budget()))
    answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], tools=tools)
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function" and json.loads(call.function.arguments) == {"cmd": "ls"}


@pytest.mark.parametrize("key", ["glm-5.3", "deepseek-v4", "qwen3", "kimi-k2", "minimax-m2", "gemma4", "llama-3"])
@pytest.mark.parametrize("arguments", ["[1]", "null", "ls", '"x"', "1"])
def test_arguments_that_are_no_object_can_stand_in_a_history(key: str, arguments: str) -> None:
    renderer: Renderer = load_renderer(every_family(), key)
    history = [Message("user", "x"), Message("assistant", "", [Call("edit", arguments)]), Message("tool", "r")]
    assert renderer.prompt(history, None) and renderer.assistant(history[1])
