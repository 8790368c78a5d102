"""`crrl curate tasks=... policy=...`: episodes are made, kept over an interruption, and become a data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.rollout.journal import Journal


@pytest.mark.timeout(300)  # workers, boxes and a judge, four times, also on a machine that is busy
def test_episodes_are_made_once(tmp_path: Path, state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    words = [
        "curate",
        "tasks=generated",
        "limit=2",
        "policy=tiny",
        "samples=2",
        "keep=judged",
        "per_task=0",
        f"out={out}",
    ]
    words += [f"sandbox.state_dir={state_dir}", "engine.threads=1"]
    assert main([*words, "--dry-run"]) == 0
    assert "2 tasks, 2 episodes each" in capsys.readouterr().out and not list(tmp_path.iterdir())
    assert main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["tasks"] <= 2 and first["language"] == {"python": first["trajectories"]}
    with Journal.open(tmp_path / "set.episodes", read_only=True) as journal:
        assert journal.phases() == {"eval": 4}
        episodes = journal.ledger_hash()
    shutil.rmtree(out)  # killed after the episodes, before the data set
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    with Journal.open(tmp_path / "set.episodes", read_only=True) as journal:
        assert journal.ledger_hash() == episodes, "none was made again"
    shutil.rmtree(out)
    assert main([word.replace("samples=2", "samples=3") for word in words]) == 2
    assert "was begun with another evaluation.samples" in capsys.readouterr().err
    assert main([word.replace("limit=2", "limit=3") for word in words]) == 2
    assert "was begun with another tasks" in capsys.readouterr().err
