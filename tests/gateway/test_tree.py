"""Where requests belong: what is spliced, what is rendered, and what each turn was in the end. Any interleaving of
these is in `tests/learning/test_rows.py`."""

from __future__ import annotations

import httpx
import pytest
from gateway_kit import STOP, TOOLS, Bench, call_text

from crrl.gateway import Budget
from crrl.gateway.api import Sample
from crrl.gateway.canonical import Call, Message, canonical, same_reasoning

SYSTEM, GO, AND = (
    {"role": "system", "content": "s"},
    {"role": "user", "content": "go"},
    {"role": "user", "content": "and?"},
)
ODD = call_text("ls", "Hm. ")  # with white space that no template writes
ECHO = {
    "role": "assistant",
    "content": "Hm.",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "shell", "arguments": '{"cmd": "ls"}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "a.py"}


class Talk:
    """One session of `bench`, asked with plain HTTP."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.base_url = bench.gateway.open("a", Budget(turns=100, tokens=1 << 20)).base_url

    async def ask(self, *messages: dict, path: str = "chat/completions", tools: list | None = TOOLS, **body) -> dict:
        async with httpx.AsyncClient(verify=False) as http:
            if messages:
                body |= {"messages": list(messages), "tools": tools}
            reply = await http.post(f"{self.base_url}/{path}", json={"model": "m", **body})
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]

    async def end(self) -> list[Sample]:
        return (await self.bench.gateway.close("a")).samples

    def holds(self, sample: Sample, text: str) -> bool:
        """Do the tokens of `text` stand in the sample's prompt?"""
        part = self.bench.ids(text)
        return any(sample.prompt_ids[i : i + len(part)] == part for i in range(len(sample.prompt_ids)))


@pytest.fixture
async def talk(bench: Bench) -> Talk:
    await bench.start(ODD, *[f"answer {i}{STOP}" for i in range(9)])
    return Talk(bench)


@pytest.mark.parametrize(
    "behind",
    [
        {"messages": [{"role": "system", "content": "s, Tuesday"}, GO]},
        {"messages": [SYSTEM, {"role": "user", "content": "go, please"}]},
        {"messages": [SYSTEM, GO], "tools": None},
        {"messages": [SYSTEM, GO], "tools": [*TOOLS, {"type": "function", "function": {"name": "more"}}]},
        {"messages": [SYSTEM, GO, {"role": "assistant", "content": "my own words"}, AND]},
    ],
)
async def test_a_sampled_turn_comes_back_elsewhere_as_it_was_sampled(talk: Talk, behind: dict) -> None:
    await talk.ask(SYSTEM, GO)
    await talk.ask(*behind["messages"], ECHO, RESULT, tools=behind.get("tools", TOOLS))
    first, second = await talk.end()
    assert second.parent is None and not talk.holds(first, ODD)
    assert talk.holds(second, ODD)
    assert first.delivery == "delivered"


async def test_the_agents_own_words_are_rendered_and_a_branch(talk: Talk) -> None:
    await talk.ask(SYSTEM, GO)
    changed = {**ECHO, "tool_calls": [{**ECHO["tool_calls"][0], "function": {"name": "shell", "arguments": "{}"}}]}
    await talk.ask(SYSTEM, GO, changed, RESULT)
    first, second = await talk.end()
    assert not talk.holds(second, ODD)
    assert (second.kind, second.branch) == ("main", "rewritten")
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids  # up to where it differs
    assert first.delivery == second.delivery == "delivered"


async def test_a_call_that_is_no_json_comes_back_as_the_text_it_was(bench: Bench) -> None:
    raw = '{"cmd": "ls", "t'
    odd = f'x\n<tool_call>\n{{"name": "shell", "arguments": {raw}}}\n</tool_call>{STOP}'
    await bench.start(odd, f"ok{STOP}")
    talk = Talk(bench)
    await talk.ask(GO)
    function = {"name": "shell", "arguments": raw}
    back = {"role": "assistant", "content": "x", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    await talk.ask(GO, back, RESULT)
    first, second = await talk.end()
    assert second.parent == first.id and second.branch == ""


async def test_compaction_with_the_summary_as_a_message_of_the_model(talk: Talk) -> None:
    """As opencode does it: the summary is asked for without tools, and comes back as an assistant message."""
    await talk.ask(SYSTEM, GO)
    await talk.ask(SYSTEM, GO, ECHO, RESULT)
    ask = {"role": "user", "content": "You are performing a CONTEXT CHECKPOINT COMPACTION."}
    summary = (await talk.ask(SYSTEM, GO, ECHO, RESULT, ask, tools=None))["message"]
    await talk.ask(SYSTEM, {"role": "user", "content": "What did we do?"}, summary, AND)
    samples = await talk.end()
    assert [(s.kind, s.branch) for s in samples] == [
        ("main", "first"),
        ("main", ""),
        ("compaction", "new"),
        ("main", "compacted"),
    ]
    assert talk.holds(samples[2], ODD) and talk.holds(samples[3], f"answer 1{STOP}")


async def test_a_call_on_the_side_does_not_make_the_main_one_a_branch(talk: Talk) -> None:
    await talk.ask(SYSTEM, GO)
    title = {"role": "system", "content": "You are a title generator."}
    await talk.ask(title, GO, tools=None)
    await talk.ask(SYSTEM, GO, ECHO, {"role": "user", "content": "Who should logically speak next?"}, tools=None)
    await talk.ask(SYSTEM, GO, ECHO, RESULT)
    kinds = [(s.kind, s.branch) for s in await talk.end()]
    assert kinds == [("main", "first"), ("side", "new"), ("side", "new"), ("main", "")]


async def test_an_answer_that_is_thrown_away_is_superseded(talk: Talk) -> None:
    """As mini-swe-agent and qwen-code do it: with a remark, and without."""
    await talk.ask(SYSTEM, GO)
    await talk.ask(SYSTEM, GO)
    await talk.ask(SYSTEM, GO, {"role": "user", "content": "No tool call found."})
    samples = await talk.end()
    assert [s.branch for s in samples] == ["first", "resampled", "resampled"]
    assert [s.delivery for s in samples] == ["superseded", "superseded", "delivered"]


async def test_of_several_choices_those_are_used_that_the_agent_went_on_from(talk: Talk) -> None:
    await talk.ask(SYSTEM, GO, n=3)
    await talk.ask(SYSTEM, GO, {"role": "assistant", "content": "answer 0"}, AND)
    samples = await talk.end()
    assert [s.delivery for s in samples] == ["superseded", "delivered", "superseded", "delivered"]
    assert [s.branch for s in samples] == ["first", "resampled", "resampled", ""]
    assert samples[3].parent == samples[1].id


@pytest.mark.parametrize("as_ids", [False, True])
async def test_raw_prompts_that_go_on_from_an_answer_extend_its_tokens(bench: Bench, as_ids: bool) -> None:
    await bench.start(f"one  two{STOP}", f"three{STOP}", f"four{STOP}")
    talk = Talk(bench)
    prompt = "Count: "
    text = (await talk.ask(path="completions", prompt=bench.ids(prompt) if as_ids else prompt))["text"]
    more = bench.ids(f"{prompt}{text}{STOP} and ") if as_ids else f"{prompt}{text} and "
    await talk.ask(path="completions", prompt=more)
    await talk.ask(path="completions", prompt="Something else")
    first, second, third = await talk.end()
    assert (second.parent, third.parent) == (first.id, None)
    assert second.prompt_ids[: len(first.prompt_ids) + len(first.ids)] == first.prompt_ids + first.ids


SAME = [
    (Message("user", "a"), Message("user", " a\n")),
    (Message("assistant", "", [Call("f", "{}")]), Message("assistant", " ", [Call("f", "", "id")])),
    (
        Message("assistant", "", [Call("f", '{"a": 1.0, "b": ["\\u00e9"]}')]),
        Message("assistant", "", [Call("f", '{"b":["é"],"a":1}')]),
    ),
    (Message("assistant", "a", [], "r"), Message("assistant", "<think>r</think>\n\na")),
    (Message("assistant", "a", [], "r"), Message("assistant", "a")),
    (
        Message("assistant", "<think>b</think>a", [], "r"),
        Message("assistant", "<think>r</think>\n<think>b</think>\na"),
    ),
    (Message("assistant", "<think>b</think>a", [], "r"), Message("assistant", "a", [], "r\n\nb")),
]
DIFFERENT = [
    (Message("user", "a"), Message("assistant", "a")),
    (Message("user", "a b"), Message("user", "a  b")),
    (Message("user", "<think>r</think>a"), Message("user", "a")),
    (Message("assistant", "", [Call("f", '{"a": 1}')]), Message("assistant", "", [Call("f", '{"a": "1"}')])),
    (Message("assistant", "", [Call("f", '{"a": tru')]), Message("assistant", "", [Call("f", '{"a": true}')])),
    (Message("assistant", "", [Call("f", "{}"), Call("g", "{}")]), Message("assistant", "", [Call("g", "{}")])),
    (Message("assistant", "ab"), Message("assistant", "a", [Call("b", "")])),
]


@pytest.mark.parametrize(("sampled", "sent"), SAME)
def test_what_agents_change_without_meaning_it(sampled: Message, sent: Message) -> None:
    assert canonical(sampled) == canonical(sent) and same_reasoning(sent, sampled)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_is_a_change(one: Message, other: Message) -> None:
    assert canonical(one) != canonical(other)


def test_other_reasoning_is_a_change() -> None:
    assert not same_reasoning(Message("assistant", "a", [], "other"), Message("assistant", "a", [], "r"))
    assert not same_reasoning(Message("assistant", "<think>x</think>a"), Message("assistant", "a", [], "r"))
