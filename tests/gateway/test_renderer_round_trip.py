"""Rendered, sampled, parsed and rendered again, a turn has the same bytes; cut anywhere, a stream says the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_kit import TOOLS as SHELL
from hypothesis import given, settings
from hypothesis import strategies as st
from template_kit import every_key

from crrl.gateway.api import Ask
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer, habits
from crrl.gateway.renderer.api import arguments_text
from crrl.gateway.stream import Delta, TextStream

RENDERERS = every_key()
TOOLS: list[dict[str, Any]] = [*(habits.TOOLS or []), *SHELL]
PROMPT = [Message("user", "Go.")]

TEXT = st.text(alphabet="abc xyz\n\t'\"\\,=()[]{}<>/:.#09é漢", max_size=24)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT, lambda v: st.lists(v, max_size=2), max_leaves=4
)
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "edges": TEXT,
    "number_as_text": st.sampled_from(["0", "1e5", "-3", "[1]", "{}", '"x"', "null", "true", "True", "None", ""]),
    "flag": st.booleans(),
    "zero": st.integers(-(2**40), 2**40),
    "nothing": st.none() | st.integers(0, 9),
    "list": st.lists(JSON, max_size=3),
    "object": st.dictionaries(st.sampled_from(["a", "b c", "é"]), JSON, max_size=2),
}
ARGUMENTS = st.fixed_dictionaries({}, optional=OF_TYPE)
CALLS = ARGUMENTS.map(lambda given: Call("edit", arguments_text(given)))
TURNS = st.builds(
    Message,
    st.just("assistant"),
    TEXT.map(str.strip),
    st.lists(CALLS, max_size=2),
    st.one_of(st.just(""), TEXT.map(str.strip)),
)


def streamed(renderer: Renderer, prompt: list[int], ids: list[int], size: int) -> tuple[Any, list[Delta]]:
    stream = TextStream(renderer, Ask(PROMPT, TOOLS), prompt)
    deltas = [d for at in range(0, len(ids), size) for d in stream.feed(ids[at : at + size])]
    parsed, rest = stream.finish()
    return parsed, [*deltas, *rest]


def made(deltas: list[Delta], kind: str) -> str:
    return "".join(d.text for d in deltas if d.kind == kind)


@pytest.mark.parametrize("key", RENDERERS)
@given(turn=TURNS)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_turn_is_the_same_when_it_comes_back(key: str, turn: Message) -> None:
    renderer = RENDERERS[key]
    calls = turn.calls if takes_two(renderer) else turn.calls[:1]
    turn = Message("assistant", turn.content, calls if renderer.tools else [], turn.reasoning)
    prompt = renderer.prompt(PROMPT, TOOLS if renderer.tools else None)
    ids = renderer.assistant(turn)
    first = renderer.parse(ids, TOOLS, prompt)
    assert [(c.name, json.loads(c.arguments)) for c in first.calls] == [
        (c.name, json.loads(c.arguments)) for c in turn.calls
    ]
    again = renderer.assistant(Message("assistant", first.content, first.calls, first.reasoning))
    assert renderer.tokenizer.decode(again) == renderer.tokenizer.decode(ids)
    for size in (1, 5, 1000):
        parsed, deltas = streamed(renderer, prompt, ids, size)
        assert parsed == first
        assert (made(deltas, "content"), made(deltas, "reasoning")) == (first.content, first.reasoning)
        assert [d.call for d in deltas if d.kind == "call"] == first.calls


def takes_two(renderer: Renderer) -> bool:
    return renderer.call_start != "{" and getattr(renderer, "several_calls", True)
