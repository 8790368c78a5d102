"""Which tokens are trained, under any interleaving of appends, retries, drops and rewrites."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_kit import OPS, play

from crrl.gateway.api import Sample
from crrl.learning.api import Row
from crrl.learning.replay import replay
from crrl.learning.rows import RowCounts, row_hash, rows_of
from crrl.rollout.api import Episode, TrainedRow


def episode(samples: list[Sample], **fields) -> Episode:
    return Episode("e", "g", "t", 0, 0, **{"outcome": "scored", "samples": samples, **fields})


def check_rows(rows: list[Row], counts: RowCounts, samples: list[Sample]) -> dict[int, list[int]]:
    """The trained tokens by version, of which every sample of a `TreeAgent` has its own."""
    trained: dict[int, list[int]] = {}
    by_id = {sample.id: sample for sample in samples}
    for row in rows:
        assert len(row.ids) == len(row.loss_mask) == len(row.logprobs) == len(row.versions)
        assert row.weight == 1 / len(rows)
        leaf = next(s for s in samples if row.ids == s.prompt_ids + s.ids)
        while leaf.parent is not None:  # a row begins with all of each ancestor
            leaf = by_id[leaf.parent]
            assert row.ids[: len(leaf.prompt_ids) + len(leaf.ids)] == leaf.prompt_ids + leaf.ids
        here: dict[int, list[int]] = {}
        for token, mask, logprob, version in zip(row.ids, row.loss_mask, row.logprobs, row.versions, strict=True):
            assert (mask, logprob) == ((1, -1.0) if version >= 0 else (0, 0.0))
            if mask:
                here.setdefault(version, []).append(token)
        assert not here.keys() & trained.keys(), "a token is trained twice"
        trained |= here
    assert counts.trained == sum(map(len, trained.values()))
    assert counts.trained + sum(counts.left_out.values()) == sum(len(s.ids) for s in samples)
    assert counts.masked == sum(len(r.ids) for r in rows) - counts.trained
    return trained


KINDS = st.fixed_dictionaries({kind: st.sampled_from([0.0, 0.5, 1.0]) for kind in ("main", "compaction", "side")})


@given(st.lists(st.sampled_from(OPS), max_size=16), KINDS)
@settings(max_examples=150, deadline=None)
def test_trained_are_exactly_the_sampled_and_used_tokens_each_once(ops: list[str], credit: dict[str, float]) -> None:
    async def run() -> None:
        agent = await play(ops)
        samples = await agent.close()
        assert {s.versions[0]: s.kind for s in samples if s.ids} == agent.kinds
        rows, counts = rows_of(episode(samples), 0.5, credit)
        trained = check_rows(rows, counts, samples)
        assert trained == {v: ids for v, ids in agent.used().items() if credit[agent.kinds[v]]}
        for row in rows:
            shares = {credit[agent.kinds[version]] for version in row.versions if version >= 0}
            assert shares == {row.advantage / 0.5}

    asyncio.run(run())


def chain(*ids: list[int], **last) -> list[Sample]:
    """Samples that extend each other; `last` changes the last."""
    samples: list[Sample] = []
    for i, sampled in enumerate(ids):
        fields = last if i == len(ids) - 1 else {}
        parent = samples[-1].id if samples else None
        values = {"parent": parent, "appended": [9] if samples else [1, 2], "ids": sampled, **fields}
        values = {"logprobs": [-0.5] * len(sampled), "versions": [3] * len(sampled), **values}
        samples.append(Sample(f"s{i}", "e", **values))
    return samples


def test_one_conversation_is_one_row() -> None:
    rows, counts = rows_of(episode(chain([5, 6], [7])), 1.0)
    assert [r.ids for r in rows] == [[1, 2, 5, 6, 9, 7]]
    assert rows[0].loss_mask == [0, 0, 1, 1, 0, 1] and rows[0].versions == [-1, -1, 3, 3, -1, 3]
    assert (counts.rows, counts.trained, counts.masked, counts.left_out) == (1, 3, 3, {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"delivery": "superseded"}, "superseded"),
        ({"delivery": "dropped"}, "dropped"),
        ({"kind": "side"}, "side"),
    ],
)
def test_what_was_not_used_is_left_out_and_counted(change: dict, reason: str) -> None:
    rows, counts = rows_of(episode(chain([5, 6], [7], **change)), 1.0)
    assert [r.ids for r in rows] == [[1, 2, 5, 6]]
    assert counts.left_out == {reason: 1}


def test_each_kind_is_trained_with_its_share_of_the_advantage() -> None:
    """A main call, a summary that goes on from it, the main call after it, and a title."""
    summary = Sample("c", "e", "s0", [8], [7], [-0.5], [3], kind="compaction")
    after = Sample("d", "e", None, [4, 4], [5], [-0.5], [3], branch="compacted")
    title = Sample("t", "e", None, [3], [2], [-0.5], [3], kind="side")
    samples = [*chain([5, 6]), summary, after, title]

    rows, counts = rows_of(episode(samples), 0.5)
    assert [(r.ids, r.advantage, r.weight) for r in rows] == [([1, 2, 5, 6], 0.5, 0.5), ([4, 4, 5], 0.5, 0.5)]
    assert counts.left_out == {"compaction": 1, "side": 1}

    rows, counts = rows_of(episode(samples), 0.5, {"main": 1.0, "compaction": 0.5})  # its context is trained elsewhere
    assert [(r.ids, r.advantage) for r in rows] == [
        ([1, 2, 5, 6], 0.5),
        ([4, 4, 5], 0.5),
        ([1, 2, 5, 6, 8, 7], 0.25),
    ]
    assert [sum(r.loss_mask) for r in rows] == [2, 1, 1] and {r.weight for r in rows} == {1 / 3}

    rows, counts = rows_of(episode(samples), 0.5, {"main": 1.0, "compaction": 1.0})  # of one share: one path, one row
    assert [(r.ids, r.loss_mask) for r in rows] == [([1, 2, 5, 6, 8, 7], [0, 0, 1, 1, 0, 1]), ([4, 4, 5], [0, 0, 1])]
    assert counts.trained == 4 and counts.left_out == {"side": 1}


def test_a_lost_episode_gives_no_rows() -> None:
    rows, counts = rows_of(episode(chain([5, 6]), outcome="lost"), 1.0)
    assert rows == [] and counts.left_out == {"lost": 2}


def test_a_ledger_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the ledger"):
        rows_of(episode(chain([5, 6], [7], parent="nobody")), 1.0)
    with pytest.raises(ValueError, match="not in the ledger"):
        rows_of(episode(chain([5, 6], [7])[::-1]), 1.0)  # a child before its parent
    with pytest.raises(ValueError, match="not in the ledger"):
        rows_of(episode(chain([5, 6], [7], parent="s1")), 1.0)  # its own parent
    with pytest.raises(ValueError, match="differ in length"):
        rows_of(episode(chain([5, 6], [7], logprobs=[])), 1.0)


def test_the_hash_covers_every_field() -> None:
    (row,), _ = rows_of(episode(chain([5, 6], [7])), 1.0)
    changes = {"ids": [1, 2, 5, 6, 9, 8], "loss_mask": [0] * 6, "logprobs": [0.0] * 6, "versions": [4] * 6}
    changes |= {"advantage": 0.9, "weight": 0.5, "episode": "x", "group": "x"}
    hashes = {row_hash(row)} | {row_hash(type(row)(**{**row.__dict__, k: v})) for k, v in changes.items()}
    assert len(hashes) == 1 + len(changes)


def test_replay_is_exact_over_any_branching() -> None:
    agent = asyncio.run(play(["append", "again", "append", "rewrite", "edit", "append", "drop", "compact", "side"]))
    one = episode(asyncio.run(agent.close()))
    credit = {"main": 1.0, "compaction": 0.5}
    rows, counts = rows_of(one, 0.25, credit)
    assert len(rows) > 1 and counts.left_out["side"] > 0
    report = replay([one], [TrainedRow("e", i, row_hash(r), 0.25) for i, r in enumerate(rows)], credit)
    assert report.exact and report.rebuilt == len(rows) and report.counts == counts
