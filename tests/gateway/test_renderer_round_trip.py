"""Rendered, sampled, parsed and rendered again, a turn has the same bytes; cut anywhere, a stream says the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from renderer_kit import TURNS, check_round_trip
from template_kit import every_key

from crrl.gateway.canonical import Message

RENDERERS = every_key()


@pytest.mark.parametrize("key", RENDERERS)
@given(turn=TURNS)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_turn_is_the_same_when_it_comes_back(key: str, turn: Message) -> None:
    check_round_trip(RENDERERS[key], turn)
