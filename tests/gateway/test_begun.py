"""Prefill: the answer goes on from what the client wrote, and the turn that comes back is one turn."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from gateway_kit import STOP, TOOLS, Bench, call_text
from template_kit import every_family

from crrl.gateway.api import Ask
from crrl.gateway.canonical import Message
from crrl.gateway.kinds import Signs
from crrl.gateway.renderer import load_renderer
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.session import TextStream
from crrl.gateway.tree import Tree, Turn
from crrl.learning.rows import rows_of
from crrl.rollout.api import Episode

USER = {"role": "user", "content": "What is 6 * 7?"}
BEGUN = {"role": "assistant", "content": "The answer"}
MORE = {"role": "user", "content": "And 6 * 8?"}


async def answer(bench: Bench, handle: Any, api: str, messages: list[dict], stream: bool = False, **more: Any) -> str:
    """What the policy adds, by the official clients."""
    body: dict[str, Any] = {"model": "m", "messages": messages, **more}
    if api == "chat" and stream:
        parts = await bench.client(handle).chat.completions.create(**body, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in parts])
    if api == "chat":
        return (await bench.client(handle).chat.completions.create(**body)).choices[0].message.content or ""
    body.setdefault("max_tokens", 99)
    if api == "messages" and stream:
        async with bench.anthropic(handle).messages.stream(**body) as events:
            return await events.get_final_text()
    if api == "messages":
        return (await bench.anthropic(handle).messages.create(**body)).content[0].text
    del body["messages"], body["max_tokens"]
    return (await bench.client(handle).responses.create(**body, input=messages)).output_text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
async def test_the_answer_goes_on_from_its_beginning(bench: Bench, api: str, stream: bool) -> None:
    await bench.start(f" is  42.{STOP}", f"48{STOP}")
    handle = bench.gateway.open("a")
    rest = await answer(bench, handle, api, [USER, BEGUN], stream)
    assert rest == " is  42."
    whole = {"role": "assistant", "content": BEGUN["content"] + rest}
    await answer(bench, handle, api, [USER, whole, MORE], stream)
    first, second = (await bench.gateway.close("a")).samples
    assert bench.renderer.tokenizer.decode(first.prompt_ids).endswith("The answer")
    assert bench.renderer.tokenizer.decode(first.ids) == f" is  42.{STOP}"
    assert (second.parent, second.branch, first.delivery) == (first.id, "", "delivered")
    assert second.prompt_ids[: len(first.prompt_ids + first.ids)] == first.prompt_ids + first.ids
    rows, counts = rows_of(Episode("e", "t", "g", 0, 0, "scored", [first, second]), 1.0)
    assert counts.trained == len(first.ids) + len(second.ids) and len(rows) == 1  # the beginning is context


async def test_the_turn_may_come_back_as_two_messages(bench: Bench) -> None:
    await bench.start(f" is 42.{STOP}", f"48{STOP}")
    handle = bench.gateway.open("a")
    rest = await answer(bench, handle, "messages", [USER, BEGUN])
    await answer(bench, handle, "messages", [USER, BEGUN, {"role": "assistant", "content": rest}, MORE])
    first, second = (await bench.gateway.close("a")).samples
    assert second.parent == first.id and second.branch == ""


@pytest.mark.parametrize("edge", [" ", "\n\n", ""])
@pytest.mark.parametrize("rest", ["42", "", " 42 "])
async def test_white_space_at_the_seam(bench: Bench, edge: str, rest: str) -> None:
    await bench.start(f"{rest}{STOP}", f"ok{STOP}")
    handle = bench.gateway.open("a")
    begun = {"role": "assistant", "content": f"It is{edge}"}
    got = await answer(bench, handle, "chat", [USER, begun])
    assert got == rest.rstrip()
    whole = {"role": "assistant", "content": begun["content"] + got}
    await answer(bench, handle, "chat", [USER, whole, MORE])
    first, second = (await bench.gateway.close("a")).samples
    assert bench.renderer.tokenizer.decode(first.prompt_ids).endswith(f"It is{edge}")
    assert (second.parent, second.branch) == (first.id, "")


async def test_a_call_behind_the_beginning(bench: Bench) -> None:
    await bench.start(call_text("ls", " look.\n"), f"ok{STOP}")
    handle = bench.gateway.open("a")
    client = bench.client(handle)
    begun = {"role": "assistant", "content": "I"}
    said = (await client.chat.completions.create(model="m", messages=[USER, begun], tools=TOOLS)).choices[0].message
    assert said.content == " look." and said.tool_calls[0].function.name == "shell"
    call = said.tool_calls[0].model_dump()
    back = {"role": "assistant", "content": "I look.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "a b"}
    await client.chat.completions.create(model="m", messages=[USER, back, result], tools=TOOLS)
    first, second = (await bench.gateway.close("a")).samples
    assert second.parent == first.id and second.branch == ""


async def test_a_stop_string_is_looked_for_in_what_is_sampled_alone(bench: Bench) -> None:
    await bench.start(f" is 42. The answer stands.{STOP}")
    got = await answer(bench, bench.gateway.open("a"), "chat", [USER, BEGUN], stop=["answer"])
    assert got == " is 42. The"


async def test_a_turn_that_was_cut_goes_on_token_for_token(bench: Bench) -> None:
    await bench.start(f"one two three four{STOP}", f" three four{STOP}", f"ok{STOP}")
    handle = bench.gateway.open("a")
    cut = len(bench.ids("one two"))
    begun = await answer(bench, handle, "messages", [USER], max_tokens=cut)
    rest = await answer(bench, handle, "messages", [USER, {"role": "assistant", "content": begun}])
    assert (begun, rest) == ("one two", " three four")
    await answer(bench, handle, "messages", [USER, {"role": "assistant", "content": begun + rest}, MORE])
    samples = (await bench.gateway.close("a")).samples
    assert [s.parent for s in samples] == [None, samples[0].id, samples[1].id]
    assert samples[1].appended == [] and not any(s.branch for s in samples[1:])
    rows, counts = rows_of(Episode("e", "t", "g", 0, 0, "scored", samples), 1.0)
    assert len(rows) == 1 and counts.trained == sum(len(s.ids) for s in samples)


async def test_a_turn_that_had_ended_is_taken_up_again(bench: Bench) -> None:
    await bench.start(f"It is 42.{STOP}", f" Surely.{STOP}", f"ok{STOP}")
    handle = bench.gateway.open("a")
    said = await answer(bench, handle, "chat", [USER])
    rest = await answer(bench, handle, "chat", [USER, {"role": "assistant", "content": said}])
    await answer(bench, handle, "chat", [USER, {"role": "assistant", "content": said + rest}, MORE])
    first, second, third = (await bench.gateway.close("a")).samples
    assert second.prompt_ids == first.prompt_ids + first.ids[:-1]  # the sampled ids, without their end
    assert (second.parent, second.branch, third.parent) == (None, "rewritten", second.id)
    assert first.delivery == second.delivery == "delivered"


async def test_a_turn_that_waits_for_results_cannot_be_begun(bench: Bench) -> None:
    await bench.start(f"ok{STOP}")
    call = {"id": "c", "type": "function", "function": {"name": "shell", "arguments": "{}"}}
    with pytest.raises(openai.BadRequestError, match="results"):
        await answer(bench, bench.gateway.open("a"), "chat", [USER, {"role": "assistant", "tool_calls": [call]}])


async def test_the_same_beginning_again_is_the_same_request(bench: Bench) -> None:
    await bench.start(f" a{STOP}", f" b{STOP}", f" c{STOP}")
    handle = bench.gateway.open("a")
    for begun, said in ((BEGUN, " a"), (BEGUN, " b"), ({**BEGUN, "content": "It"}, " c")):
        assert await answer(bench, handle, "chat", [USER, begun]) == said
    assert [s.branch for s in (await bench.gateway.close("a")).samples] == ["first", "resampled", "rewritten"]


async def test_count_tokens_counts_the_beginning(bench: Bench) -> None:
    await bench.start(f"ok{STOP}")
    handle = bench.gateway.open("a")
    counted = await bench.anthropic(handle).messages.count_tokens(model="m", messages=[USER, BEGUN])
    await answer(bench, handle, "messages", [USER, BEGUN])
    (sample,) = (await bench.gateway.close("a")).samples
    assert counted.input_tokens == len(sample.prompt_ids)


def test_a_side_call_with_a_beginning_is_known_by_its_words() -> None:
    title = Message("user", "Tell whether this indicates a new conversation topic.")
    assert Signs.of(Ask([title, Message("assistant", "{")])).says == "side"


RENDERERS = {key: load_renderer(every_family(), key) for key in {*FAMILIES} - {"gpt-oss"}}  # whose file is not here


@pytest.mark.parametrize("reasoning", ["", "Six sevens."])
@pytest.mark.parametrize("key", sorted(RENDERERS))
def test_every_family_goes_on_and_knows_the_turn_again(key: str, reasoning: str) -> None:
    renderer = RENDERERS[key]
    tree = Tree(renderer)
    user, begun = Message("user", "What is 6 * 7?"), Message("assistant", "The answer", [], reasoning)
    ask = Ask([user, begun])
    turn = Turn("t", tree.place(ask))
    prompt = tree.prompt_ids(turn)
    tree.add(turn)
    assert renderer.tokenizer.decode(prompt).endswith("The answer")
    turn.ids = [*renderer.tokenizer.encode(" is 42."), renderer.stop_ids[0]]
    stream = TextStream(renderer, ask, prompt[: -len(turn.place.begun)], turn.place.begun)
    shown = stream.feed(turn.ids)
    turn.parsed, rest = stream.finish()
    turn.said, turn.finish = stream.said, "stop"
    assert "".join(d.text for d in [*shown, *rest]) == turn.parsed.content == " is 42."
    assert turn.parsed.reasoning == "" and turn.answer.content == "The answer is 42."
    tree.complete(turn)
    place = tree.place(Ask([user, Message("assistant", "The answer is 42."), Message("user", "Thanks.")]))
    assert place.parent is turn and not place.changed
