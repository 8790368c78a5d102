"""The plan of a step for several ranks: a pure function."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_kit import make_row

from crrl.learning.api import Row
from crrl.learning.batches import MicroBatch, micro_batches, plan, trim
from crrl.learning.losses import Mean


def some_rows(seed: int, count: int) -> list[Row]:
    """Groups that begin alike, of several weights; some rows have nothing to train."""
    rng = random.Random(seed)
    beginning = [rng.randrange(60) for _ in range(7)]
    rows = []
    for _ in range(count):
        row = make_row(rng, weight=rng.choice([1.0, 0.5, 0.25]))
        ids = beginning + row.ids[7:] if rng.random() < 0.5 else row.ids
        mask = [0] * len(ids) if rng.random() < 0.1 else row.loss_mask
        rows.append(Row(ids, mask, row.logprobs, row.versions, row.advantage, row.weight, row.episode, row.group))
    return rows


def key(row: Row) -> tuple[object, ...]:
    return (row.episode, tuple(row.ids), tuple(row.loss_mask), row.weight)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 25),
    ranks=st.integers(1, 8),
    budget=st.integers(20, 400),
    sharing=st.booleans(),
    mean=st.sampled_from(["rows", "tokens", "step"]),
)
def test_every_round_fits_all_ranks(seed: int, count: int, ranks: int, budget: int, sharing: bool, mean: Mean) -> None:
    rows = some_rows(seed, count)
    rounds = plan(rows, mean, 40, budget, sharing=sharing, ranks=ranks)
    kept = [row for row in map(trim, rows) if row is not None]
    trained: Counter[tuple[object, ...]] = Counter()
    for each in rounds:
        assert len(each) == ranks
        assert len({len(micro.rows) for micro in each}) == 1 and each[0].rows, "ranks gather together"
        assert {micro.trained for micro in each} == {sum(sum(r.loss_mask[1:]) for m in each for r in m.rows)}
        for micro in each:
            assert len({row.weight for row in micro.rows}) == 1
            real = [row for row in micro.rows if any(row.loss_mask)]
            assert micro.tokens <= budget or len(real) == 1, "over the budget, and not alone"
            assert all(len(row.ids) == 3 for row in micro.rows if not any(row.loss_mask))
            trained.update(key(row) for row in real)
    assert trained == Counter(map(key, kept)), "every row once"
    assert rounds == plan(rows, mean, 40, budget, sharing=sharing, ranks=ranks)


def total(micros: list[MicroBatch], mean: Mean, ranks: int) -> float:
    """The step's loss where every token's is its advantage, with the divisions of TRL's losses of such a mean, and
    gradients averaged over ranks."""
    found = 0.0
    for micro in micros:
        of_rows = [(row.advantage * sum(row.loss_mask[1:]), sum(row.loss_mask[1:])) for row in micro.rows]
        if mean == "rows":
            loss = sum(value / max(n, 1) for value, n in of_rows) / len(of_rows)
        elif mean == "tokens":
            loss = sum(value for value, _ in of_rows) / max(sum(n for _, n in of_rows), 1)
        else:
            loss = sum(value for value, _ in of_rows) / (micro.items / ranks)
        found += loss * micro.scale / ranks
    return found


@pytest.mark.parametrize("mean", ["rows", "tokens", "step"])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_the_scales_add_up_to_the_loss_of_one_rank(mean: Mean, ranks: int) -> None:
    for seed in range(20):
        rows = some_rows(seed, 13)
        alone = total(micro_batches(rows, mean, 20, 150, sharing=True), mean, 1)
        rounds = plan(rows, mean, 20, 150, sharing=True, ranks=ranks)
        together = total([micro for each in rounds for micro in each], mean, ranks)
        assert together == pytest.approx(alone, rel=1e-9)


def test_the_work_is_divided() -> None:
    """One micro-batch's worth of rows is shared out, and long ones go with long ones."""
    rng = random.Random(0)
    rows = [make_row(rng, n=100) for _ in range(8)]
    (only,) = plan(rows, "rows", 8, 10_000, sharing=True, ranks=1)
    rounds = plan(rows, "rows", 8, 10_000, sharing=True, ranks=4)
    assert sum(max(micro.tokens for micro in each) for each in rounds) <= only[0].tokens / 4 * 1.2
    lengths = [10, 11, 12, 90, 95, 100]
    rows = [make_row(rng, n=n) for n in lengths]
    rounds = plan(rows, "rows", 8, 100, sharing=False, ranks=3)
    longest = [sorted(len(row.ids) for micro in each for row in micro.rows if any(row.loss_mask)) for each in rounds]
    assert longest[0] == [88, 93, 98]  # without their last two tokens, which are not trained


def test_a_step_without_rows_has_no_rounds() -> None:
    assert plan([], "rows", 4, 100, sharing=True, ranks=4) == []
    nothing = [Row([1, 2, 3], [0, 0, 0], [0.0] * 3, [-1] * 3, 1.0, 1.0, "e", "g")]
    assert plan(nothing, "tokens", 4, 100, sharing=True, ranks=2) == []
