"""System and developer messages, users and results anywhere: shown once, in their order, under every key."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_kit import every_key

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import habits
from crrl.gateway.renderer.places import REMINDER

RENDERERS = every_key()
MERGED = {"qwen3.5", "qwen3.6", "qwen3.8", "qwen3-vl", "nemotron-3", "nemotron-3-ultra", "nemotron-3.5", "minimax-m2"}
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


@pytest.mark.parametrize("key", RENDERERS)
@given(shape=SHAPES)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_every_text_is_shown_once_in_its_place(key: str, shape: Shape) -> None:
    """In one prompt, and appended turn by turn, where nothing before may change."""
    renderer = RENDERERS[key]
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
        if key.removesuffix("-thinking") in MERGED and behind[0].role != "tool":
            assert all(REMINDER.format(m.content) in tail for m in late)


@pytest.mark.parametrize("key", RENDERERS)
def test_the_rule_of_every_key(key: str) -> None:
    """Claude Code's system, user, system; Codex' two developer messages."""
    renderer = RENDERERS[key]
    first, second, user = Message("system", "One."), Message("system", "Two."), Message("user", "Go.")
    two = renderer.tokenizer.decode(renderer.prompt([first, second, user], None))
    late = renderer.tokenizer.decode(renderer.prompt([first, user, second], None))
    rule = renderer.systems  # type: ignore[attr-defined]
    assert ("One.\n\nTwo." in two) == ("merged" in rule) or key.startswith("deepseek")
    assert (REMINDER.format("Two.") in late) == ("user's message" in rule)
    if key.removesuffix("-thinking") in MERGED:
        assert rule == "first: merged; later: user's message"


@pytest.mark.parametrize("key", RENDERERS)
def test_an_empty_system_message_does_no_harm(key: str) -> None:
    renderer = RENDERERS[key]
    for messages in (
        [Message("system", ""), Message("system", "Two."), Message("user", "Go.")],
        [Message("system", "One."), Message("user", "Go."), Message("system", "")],
    ):
        text = renderer.tokenizer.decode(renderer.prompt(messages, None))
        shown_once(text, [m for m in messages if m.content])
