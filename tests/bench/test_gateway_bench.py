"""The gateway's benchmark, small: the load generator is a process and its answers are what the engine gave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crrl.bench import gateway as bench
from crrl.bench.session_size import measure


async def test_the_load_plays_whole_conversations_and_counts_every_request() -> None:
    async with bench._serving(0.0) as server:
        for stream in (False, True):
            done = await server.load(sessions=3, turns=4, stream=stream)
            turns = sorted(turn for turn, _, _ in done["samples"])
            assert turns == sorted([1, 2, 3, 4] * 3)
            prompts = {turn: tokens for turn, _, tokens in done["samples"]}
            grown = [prompts[turn + 1] - prompts[turn] for turn in (1, 2, 3)]
            assert len(set(grown)) == 1 and grown[0] > bench.SAMPLED  # its answer and a result, each turn
        assert not server._gateway._sessions  # each was given back
        seconds, cpu = await server.engine_alone(2)
        assert seconds > 0 and cpu > 0


async def test_a_soak_measures_memory_over_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SOAK_SESSIONS": 4, "SOAK_TURNS": 2, "TOKEN_S": 0.001}.items():
        monkeypatch.setattr(bench, name, value)
    soaked = await bench._soak(1.0)
    assert len(soaked.rss_mb) == 10 and min(soaked.rss_mb) > 10
    assert soaked.requests >= 8 and soaked.seconds >= 1
    assert replace(soaked, rss_mb=[50.0, 100.0, 120.0, 150.0]).growth == 0.5
    assert any("growth" in line for line in soaked.lines())


async def test_what_a_session_takes_grows_with_its_length_and_not_with_its_square() -> None:
    episode, double = await measure(60, 32_000), await measure(120, 64_000)
    assert episode.turns == 60 and 32_000 < episode.tokens < 33_000 and double.tokens > 1.9 * episode.tokens
    assert episode.pipe_mb <= bench.PIPE_TARGET_MB and episode.disk_mb <= episode.pipe_mb
    assert episode.tree_mb < 2 and episode.trainer_mb < 2
    for name in ("tree_mb", "pipe_mb", "disk_mb", "trainer_mb"):
        assert 1.8 < getattr(double, name) / getattr(episode, name) < 2.2, name
