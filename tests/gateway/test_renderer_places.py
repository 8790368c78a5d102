"""System and developer messages, users and results anywhere: shown once, in their order, under every key."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from renderer_kit import MERGED, SHAPES, Shape, check_places, shown_once
from template_kit import every_key

from crrl.gateway.canonical import Message
from crrl.gateway.renderer.places import REMINDER

RENDERERS = every_key()


@pytest.mark.parametrize("key", RENDERERS)
@given(shape=SHAPES)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_every_text_is_shown_once_in_its_place(key: str, shape: Shape) -> None:
    check_places(RENDERERS[key], shape)


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
        assert rule == "merged; user's message"


@pytest.mark.parametrize("key", RENDERERS)
def test_an_empty_system_message_does_no_harm(key: str) -> None:
    renderer = RENDERERS[key]
    for messages in (
        [Message("system", ""), Message("system", "Two."), Message("user", "Go.")],
        [Message("system", "One."), Message("user", "Go."), Message("system", "")],
    ):
        text = renderer.tokenizer.decode(renderer.prompt(messages, None))
        shown_once(text, [m for m in messages if m.content])
