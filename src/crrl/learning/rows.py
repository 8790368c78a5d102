"""Which tokens are trained: decided here and nowhere else.

A row is one branch of a session's tree, from root to leaf: exactly the ids that the engine saw and sampled (invariant
1). A token is trained if the policy sampled it in a sample that was used: delivered to the agent, not superseded by a
resample, and of a kind with credit (`objective.credit`; by default only the agent's main calls). Everything else in a
row is context. Where rows share a sample, only the first of them trains it, so each token is trained exactly once. All
rows of an episode together weigh as one episode. `docs/agents.md` gives the reasons.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from crrl.gateway.api import Sample, path_to
from crrl.learning.api import Row
from crrl.rollout.api import Episode

# Kind of call -> its tokens' share of the episode's advantage; 0 or missing: not trained. The schema has the same
# default (tested).
CREDIT: Mapping[str, float] = {"main": 1.0, "compaction": 0.0, "subagent": 0.0, "side": 0.0}


@dataclass
class RowCounts:
    """In tokens. `trained` + sum(`left_out`): all sampled ones; `masked`: context in the rows."""

    rows: int = 0
    trained: int = 0
    masked: int = 0
    left_out: dict[str, int] = field(default_factory=dict)  # sampled, not trained, by reason

    def add(self, other: RowCounts) -> None:
        self.rows += other.rows
        self.trained += other.trained
        self.masked += other.masked
        for reason, tokens in other.left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + tokens


def rows_of(episode: Episode, advantage: float, credit: Mapping[str, float] = CREDIT) -> tuple[list[Row], RowCounts]:
    """The rows of an episode, and counts of its tokens. Kinds with equal credit share rows; rows are ordered by credit,
    largest first, then by leaf.

    Raises:
        ValueError: the ledger is inconsistent (a sample without its parent, or a token without a log-prob).
    """
    counts = RowCounts()
    used: dict[float, list[Sample]] = {}
    for sample in episode.samples:
        reason = _left_out(sample, episode, credit)
        if not reason:
            used.setdefault(credit[sample.kind], []).append(sample)
        elif sample.ids:
            counts.left_out[reason] = counts.left_out.get(reason, 0) + len(sample.ids)
    branches = [(share, path) for share in sorted(used, reverse=True) for path in _branches(used[share])]
    trainable = {share: {sample.id for sample in samples} for share, samples in used.items()}
    rows = []
    for share, path in branches:
        row = _row(path, trainable[share], episode, advantage * share, weight=1.0 / len(branches))
        trained = sum(row.loss_mask)
        counts.add(RowCounts(rows=1, trained=trained, masked=len(row.ids) - trained))
        rows.append(row)
    return rows, counts


def _left_out(sample: Sample, episode: Episode, credit: Mapping[str, float]) -> str:
    """Why a sample's tokens are not trained; "" if they are."""
    if episode.outcome == "lost":
        return "lost"
    if not credit.get(sample.kind):
        return sample.kind
    if sample.delivery != "delivered":
        return sample.delivery
    return "" if sample.ids else "empty"


def _branches(samples: list[Sample]) -> list[list[Sample]]:
    """The paths from the root to each sample that is not an ancestor of another."""
    paths = [path_to(sample) for sample in samples]
    inner = {ancestor.id for path in paths for ancestor in path[:-1]}
    return [path for path in paths if path[-1].id not in inner]


def _row(path: list[Sample], trainable: set[str], episode: Episode, advantage: float, weight: float) -> Row:
    """Removes from `trainable` the samples that this row trains, so that no later row trains them again."""
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    versions: list[int] = []
    for sample in path:
        trained, count = sample.id in trainable, len(sample.ids)
        trainable.discard(sample.id)
        if trained and not count == len(sample.logprobs) == len(sample.versions):
            raise ValueError(f"sample {sample.id}: ids, logprobs and versions differ in length")
        context = len(sample.appended) + (0 if trained else count)
        ids += sample.appended + sample.ids
        mask += [0] * context + [1] * (count if trained else 0)
        logprobs += [0.0] * context + (sample.logprobs if trained else [])
        versions += [-1] * context + (sample.versions if trained else [])
    return Row(ids, mask, logprobs, versions, advantage, weight, episode.id, episode.group)


def row_hash(row: Row) -> str:
    """Content hash of a row: every field, log-probs as float32, advantage and weight as float64."""
    h = hashlib.blake2b(digest_size=16)
    head = f"{row.episode}\0{row.group}\0{len(row.ids)}\0".encode()
    h.update(head + struct.pack("<dd", row.advantage, row.weight))
    h.update(array("i", row.ids).tobytes() + array("b", row.loss_mask).tobytes())
    h.update(array("f", row.logprobs).tobytes() + array("i", row.versions).tobytes())
    return h.hexdigest()
