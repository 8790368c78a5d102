"""`/v1/completions` as the official client sees it."""

from __future__ import annotations

import asyncio

import openai
import pytest
from gateway_kit import STOP, Bench

from crrl.gateway import Budget


@pytest.mark.parametrize("stream", [False, True])
async def test_the_prompt_is_the_prompt_and_the_text_is_the_text(bench: Bench, stream: bool) -> None:
    raw = f" one <think>two</think>\n<tool_call> é你 {STOP}"
    await bench.start(raw, raw, raw, raw)
    client = bench.client(bench.gateway.open("a"))
    ids = bench.ids("<|im_start|>user\nhi")
    for prompt in ("<|im_start|>user\nhi", ids, ["<|im_start|>user\nhi "], [[*ids, 5]]):
        asked = client.completions.create(model="m", prompt=prompt, stream=stream, max_tokens=99)
        if stream:
            events = [event async for event in await asked]
            text = "".join(event.choices[0].text for event in events)
            assert len(events) > 10 and events[-1].choices[0].finish_reason == "stop"
        else:
            reply = await asked
            text = reply.choices[0].text
            assert reply.choices[0].finish_reason == "stop" and reply.usage.completion_tokens == len(bench.ids(raw))
        assert text == raw.removesuffix(STOP)
    assert [r.prompt_ids for r in bench.engine.requests[:2]] == [ids, ids]
    assert bench.engine.requests[3].prompt_ids == [*ids, 5]


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_with_their_log_probs(bench: Bench, stream: bool) -> None:
    await bench.start(f"one two{STOP}", f"three four five{STOP}")
    client = bench.client(bench.gateway.open("a"))
    asked = client.completions.create(model="m", prompt="x", n=2, logprobs=0, stream=stream, stop=["four", "zz"])
    texts, tokens, offsets, usage = ["", ""], [[], []], [[], []], None
    for event in [e async for e in await asked] if stream else [await asked]:
        for choice in event.choices:
            texts[choice.index] += choice.text
            if choice.logprobs is not None:
                tokens[choice.index] += choice.logprobs.tokens
                offsets[choice.index] += choice.logprobs.text_offset
                assert set(choice.logprobs.token_logprobs) <= {-1.0}
        usage = event.usage or usage
    assert texts == ["one two", "three "]
    first, second = (await bench.gateway.close("a")).samples
    for sample, said, at in ((first, tokens[0], offsets[0]), (second, tokens[1], offsets[1])):
        assert "".join(said) == bench.renderer.tokenizer.decode(sample.ids)
        assert at == [len("".join(said[:i])) for i in range(len(said))]
    assert first.prompt_ids == second.prompt_ids and first.params["seed"] != second.params["seed"]
    assert stream or usage.completion_tokens == len(first.ids) + len(second.ids)


async def test_sixteen_tokens_are_the_apis_default(bench: Bench) -> None:
    await bench.start("word " * 50 + STOP)
    reply = await bench.client(bench.gateway.open("a")).completions.create(model="m", prompt="x")
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (16, "length")


BAD: list[tuple[str, dict]] = [
    ("echo", {"prompt": "x", "echo": True}),
    ("suffix", {"prompt": "x", "suffix": "y"}),
    ("logprobs", {"prompt": "x", "logprobs": 2}),
    ("best_of", {"prompt": "x", "best_of": 3}),
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": []}),
    ("prompt", {"prompt": ["a", "b"]}),
    ("prompt", {"prompt": [-1]}),
    ("prompt", {"prompt": [1 << 40]}),
    ("prompt", {"prompt": [[1], [2]]}),
]


@pytest.mark.parametrize(("field", "body"), BAD)
async def test_what_cannot_be_done_is_named(bench: Bench, field: str, body: dict) -> None:
    await bench.start(f"ok{STOP}")
    client = bench.client(bench.gateway.open("a"))
    with pytest.raises(openai.BadRequestError) as refused:
        await client.post("/completions", body={"model": "m", **body}, cast_to=object)
    assert refused.value.param == field
    record = await bench.gateway.close("a")
    assert record.samples == [] and record.engine_failed == "" and bench.engine.requests == []


async def test_a_raw_prompt_has_the_budgets_too(bench: Bench) -> None:
    await bench.start()
    client = bench.client(bench.gateway.open("a", Budget(context=5)))
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model="m", prompt=[1] * 9)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")


async def test_the_synchronous_client(bench: Bench) -> None:
    await bench.start(*[f"one two{STOP}"] * 2)
    handle = bench.gateway.open("a")

    def talk() -> list[str]:
        with openai.OpenAI(base_url=handle.base_url, api_key="k", timeout=20) as client:
            whole = client.completions.create(model="m", prompt="x").choices[0].text
            stream = client.completions.create(model="m", prompt="x", stream=True)
            return [whole, "".join(event.choices[0].text for event in stream)]

    assert await asyncio.to_thread(talk) == ["one two", "one two"]
