"""Invariant 8: an episode that a worker hands over twice is kept once. The worker is a real one that was given one
attempt twice, as when the list of missing attempts crosses a finished episode on its way."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rollout_kit import attempt, rollout_config

from crrl.engines.scripted import ScriptedEngine
from crrl.engines.wire import EngineServer
from crrl.rollout.api import Episode
from crrl.rollout.client import RolloutClient


def test_an_episode_that_is_handed_over_twice_is_kept_once(
    state_dir: Path, engine: ScriptedEngine, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory() as short:  # the path of a socket is limited to 107 characters
        server = EngineServer(engine, Path(short) / "engine.sock")
        config = rollout_config(state_dir, server.address, "rollout.concurrency=1")  # in the order of their start
        client = RolloutClient(config, tmp_path / "log.txt", lambda *_: None)
        kept: list[Episode] = []
        try:
            client.start([attempt(0)], kept.append)
            client._send([attempt(0)])
            client.run([attempt(1)], kept.append)  # comes third
        finally:
            client.close()
            server.close()
    assert [episode.id for episode in kept] == ["a0", "a1"]
    assert {episode.outcome for episode in kept} == {"scored"}
