"""What every renderer must do with whatever is sampled, and with whatever agents append: two properties."""

from __future__ import annotations

import json
import re
from typing import Any

from gateway_kit import TOOLS as SHELL
from hypothesis import strategies as st

from crrl.gateway.api import Ask
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer, habits
from crrl.gateway.renderer.api import arguments_text
from crrl.gateway.renderer.places import REMINDER
from crrl.gateway.stream import Delta, TextStream

MERGED = {"qwen3.5", "qwen3.6", "qwen3.8", "qwen3-vl", "nemotron-3", "nemotron-3-ultra", "nemotron-3.5", "minimax-m2"}
"""Keys that show one system message, and that first."""

COUNTED = re.compile(r"(?<=functions.edit:)\d+")
CALL = Call("edit", '{"edges":"x"}')

Shape = tuple[str, list[tuple[str, str]]]  # roles of a stretch, then answers ("said" or "called") each with a stretch
TALK = st.text("us", min_size=1, max_size=3)
SHAPES = st.tuples(
    st.text("s", max_size=3).map(lambda system: system + "u") | st.tuples(st.text("s", max_size=2), TALK).map("".join),
    st.lists(
        st.one_of(
            st.tuples(st.just("said"), TALK),
            st.tuples(st.just("called"), st.text("us", max_size=2).map(lambda more: "t" + more)),
            st.tuples(st.just("called"), st.sampled_from(["st", "ut", "u", "s"])),
        ),
        max_size=3,
    ),
)
ROLES = {"u": "user", "s": "system", "t": "tool"}


def stretches(shape: Shape) -> list[tuple[Message | None, list[Message]]]:
    """An answer (or none) and what follows it, each text different."""
    count = iter(range(99))
    first, rest = shape
    found: list[tuple[Message | None, list[Message]]] = []
    for kind, roles in [("", first), *rest]:
        answer = {"": None, "said": Message("assistant", f"Told {next(count)}."), "called": called()}[kind]
        found.append((answer, [Message(ROLES[role], f"Item {next(count)}.") for role in roles]))
    return found


def called() -> Message:
    return Message("assistant", "", [CALL])


def in_order(messages: list[Message]) -> list[Message]:
    return sorted(messages, key=lambda m: m.role != "tool")


def shown_once(text: str, messages: list[Message]) -> None:
    at = [text.find(m.content) for m in messages]
    assert at == sorted(at) and -1 not in at
    assert all(text.count(m.content) == 1 for m in messages)


def check_places(renderer: Renderer, shape: Shape) -> None:
    """In one prompt, and appended turn by turn, where nothing before may change."""
    parts = stretches(shape) if renderer.tools else [p for p in stretches(shape) if not p[0] or not p[0].calls]
    whole = [m for answer, behind in parts for m in ([answer] if answer else []) + in_order(behind)]
    sent = [m for answer, behind in parts for m in ([answer] if answer else []) + behind]
    text = ""
    for tools in (None, habits.TOOLS) if renderer.tools else (None,):
        text = renderer.tokenizer.decode(renderer.prompt(sent, tools))
        shown_once(text, [m for m in whole if m.content])
    ids = renderer.prompt(parts[0][1], habits.TOOLS if renderer.tools else None)
    for answer, behind in parts[1:]:
        assert answer is not None
        sampled = renderer.assistant(answer)
        before = [*ids, *sampled]
        ids = renderer.bridge(ids, sampled, behind)
        assert ids[: len(before)] == before
        tail = renderer.tokenizer.decode(ids[len(before) :])
        shown_once(tail, in_order(behind))
        if answer is parts[-1][0]:  # as in one prompt, where Kimi counts calls on
            assert COUNTED.sub("", text).endswith(COUNTED.sub("", tail))
        late = [m for m in behind if m.role == "system"]
        if renderer.key.removesuffix("-thinking") in MERGED and behind[0].role != "tool":
            assert all(REMINDER.format(m.content) in tail for m in late)


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


def check_round_trip(renderer: Renderer, turn: Message) -> None:
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
    return renderer.call_start != "{" and renderer.key != "gpt-oss" and getattr(renderer, "several_calls", True)
