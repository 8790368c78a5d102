"""Replay: rebuilds every trained row from the ledger and compares it bit for bit (invariant 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crrl.gateway.ledger import damaged
from crrl.learning.rows import CREDIT, RowCounts, row_hash, rows_of
from crrl.rollout.api import Episode, TrainedRow


@dataclass
class ReplayReport:
    """`rebuilt` of `trained_rows` are equal bit for bit; `differing` describes the others. `counts`: of the episodes
    trained on; `unused`: sampled tokens of the others, by reason."""

    episodes: int = 0
    trained_rows: int = 0
    rebuilt: int = 0
    counts: RowCounts = field(default_factory=RowCounts)
    unused: dict[str, int] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return not self.differing and self.rebuilt == self.trained_rows


def replay(
    episodes: Iterable[Episode], trained: Iterable[TrainedRow], credit: Mapping[str, float] = CREDIT
) -> ReplayReport:
    """Rebuild each trained row from its episode, under the run's credit rule. Streams the episodes, keeping only hashes
    in memory."""
    report = ReplayReport()
    by_episode: dict[str, list[TrainedRow]] = {}
    for row in trained:
        by_episode.setdefault(row.episode, []).append(row)
        report.trained_rows += 1
    for episode in episodes:
        report.episodes += 1
        report.differing += [f"{episode.id}: {what}" for what in damaged(episode.samples)]
        stored = by_episode.pop(episode.id, [])
        if stored:
            _compare(episode, stored, report, credit)
        else:
            reason = "lost" if episode.outcome == "lost" else "not trained on"
            tokens = sum(len(sample.ids) for sample in episode.samples)
            report.unused[reason] = report.unused.get(reason, 0) + tokens
    for missing, stored in by_episode.items():
        report.differing += [f"{missing} row {row.index}: its episode is not in the journal" for row in stored]
    return report


def _compare(episode: Episode, stored: list[TrainedRow], report: ReplayReport, credit: Mapping[str, float]) -> None:
    """An episode may be trained on more than once (epochs); its tokens count once."""
    rebuilt: dict[float, list[str]] = {}
    for trained in stored:
        if trained.advantage not in rebuilt:
            try:
                rows, counts = rows_of(episode, trained.advantage, credit)
            except ValueError as error:
                report.differing.append(f"{episode.id} row {trained.index}: {error}")
                continue
            if not rebuilt:
                report.counts.add(counts)
            rebuilt[trained.advantage] = [row_hash(row) for row in rows]
        hashes = rebuilt[trained.advantage]
        if trained.index >= len(hashes):
            report.differing.append(f"{episode.id} row {trained.index}: the ledger gives {len(hashes)} rows")
        elif hashes[trained.index] != trained.hash:
            report.differing.append(f"{episode.id} row {trained.index}: the rebuilt row differs")
        else:
            report.rebuilt += 1
