"""What is streamed and the rest, put together, are the answer; and no mark shows in it."""

from __future__ import annotations

import pytest
from gateway_kit import STOP, call_text, make_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from template_kit import every_family

from crrl.gateway.api import Ask
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.gateway.stream import Delta, TextStream

RENDERER = load_renderer(make_tokenizer(), "qwen3")
LENIENT = load_renderer(make_tokenizer(), "qwen3", "lenient")
PIECES = [
    "a b",
    "\n\n",
    " ",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "é你",
    "<",
    "</th",
    "ink>",
    "\ufffd",
    STOP,
]
PIECES += ['{"name": "f", ', '"arguments": {}}', "<|endoftext|>", "<|im_start|>assistant\n", '{"name": "g"}']
TEXTS = st.lists(st.sampled_from(PIECES), max_size=10).map("".join)
STOPS = st.lists(st.sampled_from(["b", "a b", "\n", "éé", "<", "ink>", "name"]), max_size=2)


def played(text: str, ask: Ask, chunk: int = 1, renderer: Renderer = RENDERER) -> tuple[TextStream, list[Delta]]:
    ids = RENDERER.tokenizer.encode(text)
    at = next((i for i, t in enumerate(ids) if t in RENDERER.stop_ids), len(ids))
    ids = ids[: at + 1]
    stream = TextStream(renderer, ask, [])
    deltas = [d for i in range(0, len(ids), chunk) for d in stream.feed(ids[i : i + chunk])]
    return stream, deltas


def joined(deltas: list[Delta], kind: str) -> str:
    return "".join(d.text for d in deltas if d.kind == kind)


TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg"]
LOOSE = [*PIECES, "```json\n", "\n```", '{"name": "g", "arguments": {"a": "b', '"}}', "{", "[", "say: "]


@given(
    st.lists(st.sampled_from(LOOSE), max_size=10).map("".join),
    STOPS,
    st.sampled_from(["auto", "none"]),
    st.booleans(),
    st.integers(1, 5),
)
@settings(max_examples=400, deadline=None)
def test_the_deltas_are_the_answer_where_calls_need_no_mark(
    text: str, stop: list[str], choice: str, parallel: bool, chunk: int
) -> None:
    ask = Ask(stop=stop, tool_choice=choice, parallel_calls=parallel, tools=TOOLS)
    stream, deltas = played(text, ask, chunk, LENIENT)
    parsed, rest = stream.finish()
    deltas += rest
    assert joined(deltas, "content") == parsed.content and joined(deltas, "reasoning") == parsed.reasoning
    assert [d.call for d in deltas if d.kind == "call"] == parsed.calls
    assert choice == "auto" or not parsed.calls


@given(TEXTS, STOPS, st.sampled_from(["auto", "none"]), st.booleans(), st.integers(1, 5))
@example("\ufffd<think></think>x", [], "auto", True, 1)  # half characters are content, though they do not show yet
@settings(max_examples=400, deadline=None)
def test_the_deltas_are_the_answer(text: str, stop: list[str], choice: str, parallel: bool, chunk: int) -> None:
    stream, deltas = played(text, Ask(stop=stop, tool_choice=choice, parallel_calls=parallel), chunk)
    early = joined(deltas, "content")
    assert "<tool_call>" not in early and not early.lstrip().startswith("<think>")
    parsed, rest = stream.finish()
    deltas += rest
    assert joined(deltas, "content") == parsed.content and joined(deltas, "reasoning") == parsed.reasoning
    assert [d.call for d in deltas if d.kind == "call"] == parsed.calls
    assert [d.index for d in deltas if d.kind == "call"] == list(range(len(parsed.calls)))
    assert not any(s in parsed.content for s in stop)
    assert not (choice == "none" and parsed.calls) and (parallel or len(parsed.calls) < 2)
    assert [d.upto for d in deltas] == sorted(d.upto for d in deltas)


@given(TEXTS, STOPS, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_raw_text_is_shown_as_it_is(text: str, stop: list[str], chunk: int) -> None:
    stream, deltas = played(text, Ask(prompt="x", stop=stop), chunk)
    parsed, rest = stream.finish()
    assert joined(deltas + rest, "content") == parsed.content
    whole = text.split(STOP)[0].split("<|endoftext|>")[0]
    cut = min((whole.find(s) for s in stop if s in whole), default=len(whole))
    assert parsed.content == whole[:cut]


def test_reasoning_content_and_calls_come_as_they_are_sampled() -> None:
    text = f"<think>\none two\n</think>\n\nthree four\n{call_text('ls')[: -len(STOP)]}\n{call_text('cat x')}"
    stream, deltas = played(text, Ask())
    kinds = list(dict.fromkeys((d.kind, d.index) for d in deltas))
    assert kinds == [("reasoning", 0), ("content", 0), ("call", 0), ("call", 1)]
    assert sum(d.kind == "content" for d in deltas) > 3 and sum(d.kind == "reasoning" for d in deltas) > 3
    closes = [i for i, t in enumerate(stream.ids, 1) if t == RENDERER.tokenizer.convert_tokens_to_ids("</tool_call>")]
    assert [d.upto for d in deltas if d.kind == "call"] == closes
    assert stream.finish()[1] == []


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_a_stop_string_ends_the_sample_at_its_token(chunk: int) -> None:
    stream, deltas = played(f"one two three four{STOP}", Ask(stop=["two t", "zzz"]), chunk)
    assert stream.stopped and RENDERER.tokenizer.decode(stream.ids).startswith("one two t")
    assert not RENDERER.tokenizer.decode(stream.ids[:-1]).startswith("one two t")
    assert stream.finish()[0].content == "one" and joined(deltas, "content") == "one"
    assert not any("two" in d.text for d in deltas)


def test_the_only_call_that_is_allowed_ends_the_turn() -> None:
    two = call_text("ls")[: -len(STOP)] + "\n" + call_text("cat x")
    stream, _ = played(two, Ask(parallel_calls=False))
    assert stream.stopped and len(stream.finish()[0].calls) == 1
    assert RENDERER.tokenizer.decode(stream.ids).endswith("</tool_call>")
    assert len(played(two, Ask())[0].finish()[0].calls) == 2


def test_babbled_marks_do_not_cost_quadratic_time() -> None:
    many = "".join('<tool_call>{"name": "f", "arguments": {}}</tool_call>' for _ in range(60))
    stream, deltas = played(many, Ask())
    _, rest = stream.finish()
    assert 20 < len(deltas) < 60 and len(deltas + rest) == 60


@pytest.mark.parametrize("key", ["deepseek-v4", "deepseek-v4-thinking"])
@pytest.mark.parametrize("content", ["Look.", "", "a < b", "<"])
def test_what_stands_in_front_of_a_calls_mark_is_never_shown(key: str, content: str) -> None:
    renderer = load_renderer(every_family(), key)
    ids = renderer.assistant(Message("assistant", content, [Call("f", '{"a":"b"}')]))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    stream = TextStream(renderer, Ask(tools=tools), renderer.prompt([Message("user", "x")], tools))
    deltas = [delta for token in ids for delta in stream.feed([token])]
    parsed, rest = stream.finish()
    assert joined([*deltas, *rest], "content") == parsed.content == content
    assert [(call.name, call.arguments) for call in parsed.calls] == [("f", '{"a":"b"}')]
