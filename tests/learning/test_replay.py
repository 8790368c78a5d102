"""Replay finds every bit that differs between the ledger and what was trained on."""

from __future__ import annotations

import dataclasses

from crrl.gateway.api import Sample
from crrl.learning.replay import replay
from crrl.learning.rows import row_hash, rows_of
from crrl.rollout.api import Episode, TrainedRow


def make(name: str, **fields) -> Episode:
    samples = [
        Sample("s0", name, None, [1, 2], [5, 6], [-0.1, -0.2], [0, 0]),
        Sample("s1", name, "s0", [1, 2, 5, 6, 9], [7], [-0.3], [1]),
        Sample("s2", name, "s0", [1, 2, 5, 6, 9], [8], [-0.3], [1], delivery="dropped"),
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
