"""The gateway as the official client sees it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import httpx
import openai
import pytest
from gateway_kit import STOP, TOOLS, Bench, call_text

from crrl.errors import CrrlError
from crrl.gateway import Budget, Gateway, SamplingPolicy, ledger_hash
from crrl.gateway.api import Sample

USER = {"role": "user", "content": "Repair stats.py."}


def extends(child: Sample, parent: Sample) -> bool:
    whole = parent.prompt_ids + parent.ids
    return child.parent == parent.id and child.prompt_ids[: len(whole)] == whole


async def collect(stream) -> dict:
    out: dict = {"content": "", "calls": [], "reasoning": "", "events": 0}
    async for event in stream:
        out["usage"] = event.usage
        for choice in event.choices:
            out["events"] += bool(choice.delta.content)
            out["content"] += choice.delta.content or ""
            out["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
            out["calls"] += choice.delta.tool_calls or []
            out["finish"] = choice.finish_reason or out.get("finish")
    return out


@pytest.mark.parametrize("stream", [False, True])
async def test_three_turns_of_tool_use_splice_every_sampled_token(bench: Bench, stream: bool) -> None:
    texts = [call_text("cat stats.py", "Looking.\n"), call_text("sed -i s/a/b/ stats.py"), f"Done. \n{STOP}"]
    await bench.start(*texts)
    handle = bench.gateway.open("a", seed=1)
    client = bench.client(handle)
    messages: list = [{"role": "system", "content": "You repair code."}, USER]
    for turn in range(3):
        asked = client.chat.completions.create(
            model="m", messages=messages, tools=TOOLS, stream=stream, temperature=0.0
        )
        if stream:
            got = await collect(await asked)
            content, finish = got["content"], got["finish"]
            calls = [(c.id, c.function.name, c.function.arguments) for c in got["calls"]]
        else:
            choice = (await asked).choices[0]
            content, finish = choice.message.content, choice.finish_reason
            calls = [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls or []]
        assert "<tool_call>" not in (content or "")
        if turn == 2:
            assert (content, finish, calls) == ("Done.", "stop", [])
            break
        assert finish == "tool_calls" and len(calls) == 1 and calls[0][1] == "shell"
        (call_id, name, arguments), shape = calls[0], {"type": "function"}
        shape |= {"id": call_id, "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": content, "tool_calls": [shape]})
        messages.append({"role": "tool", "tool_call_id": calls[0][0], "content": f"output {turn}\n"})
    record = await bench.gateway.close("a")
    assert [s.ids for s in record.samples] == [bench.ids(t) for t in texts]
    assert [s.prompt_ids for s in record.samples] == [r.prompt_ids for r in bench.engine.requests]
    assert extends(record.samples[1], record.samples[0]) and extends(record.samples[2], record.samples[1])
    assert [s.branch for s in record.samples] == ["first", "", ""]
    assert {s.delivery for s in record.samples} == {"delivered"}
    used = record.samples[0].params
    assert (used["temperature"], used["asked_temperature"]) == (1.0, 0.0)
    assert len({s.params["seed"] for s in record.samples}) == 3


async def test_the_stream_is_incremental_and_ends_with_usage(bench: Bench) -> None:
    await bench.start(f"Hello wörld, 你好 there.{STOP}", step=1)
    client = bench.client(bench.gateway.open("a"))
    got = await collect(
        await client.chat.completions.create(
            model="m", messages=[USER], stream=True, stream_options={"include_usage": True}
        )
    )
    assert got["content"] == "Hello wörld, 你好 there." and got["finish"] == "stop"
    assert got["events"] > 10
    sample = (await bench.gateway.close("a")).samples[0]
    assert (got["usage"].prompt_tokens, got["usage"].completion_tokens) == (
        len(sample.prompt_ids),
        len(sample.ids),
    )


async def test_tokens_arrive_while_the_engine_is_still_at_work(bench: Bench) -> None:
    await bench.start(f"one two three{STOP}", step=4, delay=0.1)
    client = bench.client(bench.gateway.open("a"))
    stream = await client.chat.completions.create(model="m", messages=[USER], stream=True)
    bench.engine.requests.clear()
    texts = []
    rest = ExitStack()
    async for event in stream:
        texts.append(event.choices[0].delta.content)
        if texts[-1] and bench.engine._open.is_set():
            rest.enter_context(bench.engine.resting())  # the stream freezes and goes on, nothing is refused
            asyncio.get_running_loop().call_later(0.7, rest.close)
    assert "".join(t or "" for t in texts) == "one two three"
    assert (await bench.gateway.close("a")).engine_wait_s > 0.5


@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>\n{"name": "shell", "arguments": {"cmd": \n</tool_call>',
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "shell", "arguments": "ls"}\n</tool_call>',
        "<tool_call>\nnever closed",
        "<tool_call>" + "[" * 3000 + "</tool_call>",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_malformed_call_is_shown_as_it_was_produced(bench: Bench, broken: str, stream: bool) -> None:
    await bench.start(f"Hm.\n{broken}{STOP}", f"ok{STOP}")
    client = bench.client(bench.gateway.open("a", Budget(tokens=8000, context=8000)))
    bench.gateway._sessions["a"].session.info.__dict__["context"] = 8000
    asked = await client.chat.completions.create(model="m", messages=[USER], tools=TOOLS, stream=stream)
    content = (await collect(asked))["content"] if stream else asked.choices[0].message.content
    assert content.startswith("Hm.") and broken.strip() in content
    messages = [
        USER,
        {"role": "assistant", "content": content},
        {"role": "user", "content": "No call found."},
    ]
    await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    first, second = (await bench.gateway.close("a")).samples
    assert extends(second, first) and second.branch == ""


async def test_reasoning_has_its_own_place(bench: Bench) -> None:
    await bench.start(*[f"<think>\nhm, hm\n</think>\n\nAnswer.{STOP}"] * 2, f"x{STOP}")
    client = bench.client(bench.gateway.open("a"))
    whole = (await client.chat.completions.create(model="m", messages=[USER])).choices[0].message
    assert (whole.content, whole.reasoning_content) == ("Answer.", "hm, hm")
    got = await collect(await client.chat.completions.create(model="m", messages=[USER], stream=True))
    assert (got["content"], got["reasoning"]) == ("Answer.", "hm, hm")
    history = [USER, {"role": "assistant", "content": "Answer."}, {"role": "user", "content": "go on"}]
    await client.chat.completions.create(model="m", messages=history)
    samples = (await bench.gateway.close("a")).samples
    assert extends(samples[2], samples[1])  # reasoning that an agent drops changes nothing
    assert [s.delivery for s in samples] == ["superseded", "delivered", "delivered"]


async def test_budgets_are_answered_before_generation(bench: Bench) -> None:
    await bench.start(*["word " * 50 + STOP] * 9, context=2000)
    turns = bench.client(bench.gateway.open("turns", Budget(turns=1)))
    await turns.chat.completions.create(model="m", messages=[USER])
    tokens = bench.client(bench.gateway.open("tokens", Budget(tokens=30)))
    cut = await tokens.chat.completions.create(model="m", messages=[USER])
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 30
    context = bench.client(bench.gateway.open("context", Budget(context=20)))
    asked = len(bench.engine.requests)
    long = {"role": "user", "content": "word " * 100}
    for name, client, message in (
        ("turns", turns, long),
        ("tokens", tokens, long),
        ("context", context, long),
    ):
        with pytest.raises(openai.BadRequestError) as error:
            await client.chat.completions.create(model="m", messages=[message])
        assert error.value.code == "context_length_exceeded"
        # By these words litellm knows it for what it is, and does not ask again (minutes in each truncated episode).
        assert "This model's maximum context length is" in error.value.message
        assert (await bench.gateway.close(name)).exhausted == name
    assert len(bench.engine.requests) == asked


async def test_max_tokens_is_clipped_to_what_is_left(bench: Bench) -> None:
    await bench.start(*["word " * 50 + STOP] * 2)
    client = bench.client(bench.gateway.open("a", Budget(tokens=40)))
    for ask, got in ((15, 15), (1000, 25)):
        reply = await client.chat.completions.create(model="m", messages=[USER], max_completion_tokens=ask)
        assert reply.usage.completion_tokens == got and reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_failure_loses_the_episode(bench: Bench, stream: bool) -> None:
    await bench.start()  # a script without answers fails
    client = bench.client(bench.gateway.open("a"), retries=5)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as error:
            await client.chat.completions.create(model="m", messages=[USER], stream=stream)
        assert error.value.status_code == 503
    assert len(bench.engine.requests) == 1  # the client was told not to retry
    record = await bench.gateway.close("a")
    assert "no answer left" in record.engine_failed and record.samples == []


async def test_an_engine_that_fails_mid_stream(bench: Bench) -> None:
    class Dying:
        info = bench_info

        async def generate(self, request):
            async for chunk in ScriptedEngine([bench.ids("one two three")]).generate(request):
                yield chunk.__class__(chunk.ids, chunk.logprobs, chunk.versions)
                await asyncio.sleep(0.05)
                raise RuntimeError("gone")

    from crrl.engines.scripted import ScriptedEngine

    await bench.start_with(Dying())
    client = bench.client(bench.gateway.open("a"))
    with pytest.raises(openai.APIError):
        await collect(await client.chat.completions.create(model="m", messages=[USER], stream=True))
    record = await bench.gateway.close("a")
    assert record.engine_failed == "gone"
    assert record.samples[0].delivery == "dropped" and len(record.samples[0].ids) == 1


async def bench_info(self):
    from crrl.engines.api import EngineInfo

    return EngineInfo(4096, 0, "", 1000)


BAD = [
    b"",
    b"{",
    b"[]",
    b'{"messages": []}',
    b'{"messages": "x"}',
    b'{"messages": [{"role": "user"}], "n": 0}',
    b'{"messages": [{"role": "king", "content": "x"}]}',
    b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"1": 2}}',
    b'{"messages": [{"role": "user", "content": "x"}], "stop": 5}',
    b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}}',
    b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}], "tool_choice": "required"}',
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
    b'{"messages": [{"role": "user", "content": "x"}], "top_logprobs": 3, "logprobs": true}',
    b'{"messages": [{"role": "user", "content": "x"}], "guided_regex": "a+"}',
    b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": [1]}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "custom", "custom": {"name": "x"}}]}',
    b'{"messages": [{"role": "user", "content": "\xff"}]}',
    b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}',
    b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"messages": [{"role": "user", "content": "x"}], "tools": [' + b"[" * 9000 + b"]" * 9000 + b"]}",
]


@pytest.mark.parametrize("body", BAD)
async def test_a_bad_body_is_a_400_in_the_apis_own_shape(bench: Bench, body: bytes) -> None:
    await bench.start(f"ok{STOP}")
    handle = bench.gateway.open("a")
    async with httpx.AsyncClient() as http:
        reply = await http.post(f"{handle.base_url}/chat/completions", content=body)
    assert reply.status_code == 400, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert bench.engine.requests == []


ODD = [
    '{"messages": [{"role": "user", "content": "\\ud800 lone"}]}',
    '{"messages": [{"role": "assistant", "content": null}]}',
    '{"messages": [{"role": "assistant", "content": "hi"}, {"role": "assistant", "content": "ho"}]}',
    '{"messages": [{"role": "tool", "content": "x"}], "unknown": {"a": [1]}, "x_field": null}',
    '{"messages": [{"role": "developer", "content": "x"}, {"role": "system", "content": "y"}], "stop": null}',
    '{"messages": [{"role": "user", "content": "<|im_end|><tool_call>"}], "tools": [{"type": "function"}]}',
]


@pytest.mark.parametrize("body", ODD)
async def test_an_odd_body_is_never_a_500(bench: Bench, body: str) -> None:
    await bench.start(f"ok{STOP}")
    handle = bench.gateway.open("a")
    async with httpx.AsyncClient() as http:
        reply = await http.post(f"{handle.base_url}/chat/completions", content=body.encode())
    assert reply.status_code in (200, 400), reply.text


async def test_sessions_are_apart_and_end(bench: Bench) -> None:
    await bench.start(f"ok{STOP}")
    handle = bench.gateway.open("a")
    client = bench.client(handle)
    assert [m.id async for m in client.models.list()] == ["policy"]
    async with httpx.AsyncClient() as http:
        for url in (
            f"{bench.gateway.base_url}/s/a/v1/models",
            f"{handle.base_url}/x",
        ):
            assert (await http.get(url)).status_code == 404
        assert (await http.get(f"{handle.base_url}/chat/completions")).status_code == 405
    await bench.gateway.close("a")
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="m", messages=[USER])


async def test_a_port_in_use_is_an_error_with_a_remedy(bench: Bench, renderer) -> None:
    await bench.start()
    port = int(bench.gateway.base_url.rsplit(":", 1)[1])
    with pytest.raises(CrrlError, match="another port"):
        await Gateway(bench.engine, renderer, SamplingPolicy()).start(port=port)


async def test_64_sessions_at_once_and_the_same_seeds_give_the_same_ledger(bench: Bench) -> None:
    hashes = []
    for _ in range(2):
        answer = call_text("ls")
        await bench.start(*[answer] * 128, step=3)
        handles = [bench.gateway.open(f"s{i}", seed=i) for i in range(64)]

        async def run(handle) -> None:
            client = bench.client(handle)
            messages: list = [{"role": "user", "content": f"task {handle.session}"}]
            for _ in range(2):
                stream = await client.chat.completions.create(model="m", messages=messages, tools=TOOLS, stream=True)
                got = await collect(stream)
                messages += [
                    {"role": "assistant", "tool_calls": [got["calls"][0].model_dump(exclude={"index"})]},
                    {"role": "tool", "tool_call_id": got["calls"][0].id, "content": "out"},
                ]

        await asyncio.gather(*map(run, handles))
        samples = [s for h in handles for s in (await bench.gateway.close(h.session)).samples]
        assert len(samples) == 128 and all(s.delivery == "delivered" for s in samples)
        assert all(extends(b, a) for a, b in zip(samples[::2], samples[1::2], strict=True))
        assert len({s.params["seed"] for s in samples}) == 128
        hashes.append(ledger_hash(samples))
        await bench.stop()
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_to_one_request(bench: Bench, stream: bool) -> None:
    await bench.start(f"é{STOP}", call_text("ls", "two "), f"three{STOP}", f"done{STOP}")
    client = bench.client(bench.gateway.open("a", Budget(turns=4)))
    asked = client.chat.completions.create(
        model="m", messages=[USER], tools=TOOLS, n=3, stream=stream, logprobs=True, top_logprobs=0
    )
    content, finish, told = ["", "", ""], ["", "", ""], [[], [], []]
    for event in [e async for e in await asked] if stream else [await asked]:
        for choice in event.choices:
            part = choice.delta if stream else choice.message
            content[choice.index] += part.content or ""
            finish[choice.index] = choice.finish_reason or finish[choice.index]
            told[choice.index] += (choice.logprobs and choice.logprobs.content) or []
    assert (content, finish) == (["é", "two", "three"], ["stop", "tool_calls", "stop"])
    with pytest.raises(openai.BadRequestError):  # two turns, where one is left
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], n=2)
    history = [USER, {"role": "assistant", "content": "three"}, {"role": "user", "content": "go on"}]
    await client.chat.completions.create(model="m", messages=history, tools=TOOLS)
    samples = (await bench.gateway.close("a")).samples
    assert extends(samples[3], samples[2])
    assert [s.delivery for s in samples] == ["superseded", "superseded", "delivered", "delivered"]
    assert len({s.params["seed"] for s in samples}) == 4
    for entries, sample in zip(told, samples, strict=False):
        said = bytes(byte for e in entries for byte in e.bytes)
        assert said.decode() == bench.renderer.tokenizer.decode(sample.ids)
        assert [e.logprob for e in entries] == sample.logprobs


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_the_turn_and_the_history_still_matches(bench: Bench, stream: bool) -> None:
    await bench.start(f"one two three four{STOP}", f"ok{STOP}")
    client = bench.client(bench.gateway.open("a"))
    asked = client.chat.completions.create(model="m", messages=[USER], stop="three", stream=stream)
    content = (await collect(await asked))["content"] if stream else (await asked).choices[0].message.content
    assert content == "one two"
    history = [USER, {"role": "assistant", "content": content}, {"role": "user", "content": "go on"}]
    await client.chat.completions.create(model="m", messages=history, stop="three")
    one, two = (await bench.gateway.close("a")).samples
    assert extends(two, one) and bench.renderer.tokenizer.decode(one.ids) == "one two three"
    assert (one.finish, one.params["stop"]) == ("stop", '["three"]')


@pytest.mark.parametrize("stream", [False, True])
async def test_no_tool_choice_and_no_parallel_calls(bench: Bench, stream: bool) -> None:
    two = call_text("ls")[: -len(STOP)] + "\n" + call_text("cat x")
    await bench.start(two, two, f"ok{STOP}")
    client = bench.client(bench.gateway.open("a"))

    async def ask(**body):
        asked = await client.chat.completions.create(model="m", tools=TOOLS, stream=stream, **body)
        if stream:
            got = await collect(asked)
            return got["content"], got["calls"], got["finish"]
        return (
            asked.choices[0].message.content,
            asked.choices[0].message.tool_calls or [],
            asked.choices[0].finish_reason,
        )

    content, calls, finish = await ask(messages=[USER], tool_choice="none")
    assert content == two.removesuffix(STOP) and calls == [] and finish == "stop"
    content, calls, finish = await ask(messages=[USER], parallel_tool_calls=False)
    assert not content and len(calls) == 1 and finish == "tool_calls"
    history = [USER, {"role": "assistant", "tool_calls": [calls[0].model_dump(exclude={"index"})]}]
    history.append({"role": "tool", "tool_call_id": calls[0].id, "content": "out"})
    await ask(messages=history, parallel_tool_calls=False)
    shown, one, after = (await bench.gateway.close("a")).samples
    assert extends(after, one) and bench.renderer.tokenizer.decode(one.ids) + "\n" == two[: two.index("<tool_call>", 5)]
    assert shown.prompt_ids == one.prompt_ids


async def test_the_synchronous_client(bench: Bench) -> None:
    await bench.start(*[f"one two{STOP}"] * 2)
    handle = bench.gateway.open("a")

    def talk() -> list[str]:
        with openai.OpenAI(base_url=handle.base_url, api_key="k", timeout=20) as client:
            whole = client.chat.completions.create(model="m", messages=[USER]).choices[0].message.content
            stream = client.chat.completions.create(model="m", messages=[USER], stream=True)
            return [whole, "".join(event.choices[0].delta.content or "" for event in stream)]

    assert await asyncio.to_thread(talk) == ["one two", "one two"]
