"""Replay finds every bit that differs between the ledger and what was trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.gateway.api import Sample
from crrl.gateway.ledger import addressed
from crrl.learning.replay import replay
from crrl.learning.rows import row_hash, rows_of
from crrl.rollout.api import Episode, TrainedRow
from crrl.rollout.journal import TRAIN, Journal


def make(name: str, **fields) -> Episode:
    samples = [
        Sample("s0", name, None, [1, 2], [5, 6], [-0.1, -0.2], [0, 0]),
        Sample("s1", name, "s0", [9], [7], [-0.3], [1]),
        Sample("s2", name, "s0", [9], [8], [-0.3], [1], delivery="dropped"),
    ]
    return Episode(name, "g", "t", 0, 0, **{"outcome": "scored", "samples": samples, **fields})


def trained(episode: Episode, advantage: float = 0.5) -> list[TrainedRow]:
    rows, _ = rows_of(episode, advantage)
    return [TrainedRow(episode.id, i, row_hash(row), advantage) for i, row in enumerate(rows)]


def test_an_honest_journal_replays() -> None:
    a, b, lost = make("a"), make("b"), make("c", outcome="lost")
    report = replay([a, b, lost, make("d")], trained(a) + trained(b, -0.5) + trained(b, -0.5))
    assert report.exact and (report.episodes, report.trained_rows, report.rebuilt) == (4, 3, 3)
    assert (report.counts.trained, report.counts.masked, report.counts.left_out) == (6, 6, {"dropped": 2})
    assert report.unused == {"lost": 4, "not trained on": 4}


def test_any_change_is_found() -> None:
    honest = make("a")
    stored = trained(honest)
    first = honest.samples[0]
    for change in (
        {"ids": [5, 7]},
        {"logprobs": [-0.1, -0.25]},
        {"versions": [0, 1]},
        {"delivery": "superseded"},
    ):
        changed = dataclasses.replace(honest, samples=[dataclasses.replace(first, **change), *honest.samples[1:]])
        assert not replay([changed], stored).exact, change
    assert not replay([], stored).exact
    assert not replay([honest], [dataclasses.replace(stored[0], index=1)]).exact
    assert not replay([honest], [dataclasses.replace(stored[0], advantage=0.4)]).exact


def test_a_sample_that_is_not_what_its_address_says_is_found() -> None:
    """Also in an episode that was not trained on, and in a field that no row holds."""
    unused = make("u")
    unused = dataclasses.replace(unused, samples=addressed(unused.samples))
    assert replay([unused], []).exact
    first, *rest = unused.samples
    changed = dataclasses.replace(unused, samples=[dataclasses.replace(first, finish="length"), *rest])
    report = replay([changed], [])
    assert not report.exact  # it, and all that stands on it
    assert report.differing == [f"u: sample s{i} is not what its address says" for i in range(3)]


@pytest.mark.parametrize("credit", [None, {"main": 1.0}, {"main": 1.0, "compaction": 0.5}])
def test_the_command_replays_under_the_runs_own_credit_rule(
    credit: dict[str, float] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episode = make("a")
    summary = Sample("s3", "a", "s1", [4], [3, 3], [-0.1, -0.1], [1, 1], kind="compaction")
    episode = dataclasses.replace(episode, samples=addressed([*episode.samples, summary]))
    rows, _ = rows_of(episode, 0.5, *([credit] if credit else []))
    with Journal.create(tmp_path / "run", {"credit": credit} if credit else {}) as journal:
        journal.add_episode(TRAIN, episode)
        journal.plan_step(0, ["g"], version=0)
        stored = [TrainedRow("a", i, row_hash(row), 0.5) for i, row in enumerate(rows)]
        journal.step_trained(0, {}, stored)
    assert main(["replay", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    trained = 5 if credit and "compaction" in credit else 3
    assert (found["exact"], found["counts"]["trained"], found["rebuilt"]) == (True, trained, len(rows))
    assert found["counts"]["left_out"] == ({"dropped": 1} if trained == 5 else {"dropped": 1, "compaction": 2})
