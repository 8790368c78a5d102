"""False positives and coverage of what `crrl compare` says, at their nominal levels: its own functions, end to end, on
policies whose true difference is known. `make test-simulations`.

Each cell: `DRAWS` benchmarks of n tasks with k samples; the bounds are those of a binomial at the nominal level, at
three standard deviations (and exact tests may be conservative).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from crrl.evaluation import samples
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.compare import Comparison, compare, halves

pytestmark = [pytest.mark.simulations, pytest.mark.timeout(1200)]
DRAWS = 300
THREE_SD = 3 * math.sqrt(0.05 * 0.95 / DRAWS)
BENCHMARKS = [(40, 1), (200, 1), (500, 1), (40, 4), (200, 4), (500, 4)]


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "RESAMPLES", 999)


def drawn(rng: np.random.Generator, true: np.ndarray, k: int, ids: list[str]) -> Cell:
    return Cell({id: list(rng.binomial(1, p, k).astype(float)) for id, p in zip(ids, true, strict=True)})


def compared(rng: np.random.Generator, n: int, k: int, gain: float) -> tuple[Comparison, float]:
    """And the true difference in points, of these tasks."""
    before = rng.beta(0.6, 1.2, n)  # many hard tasks, some easy ones, as benchmarks are
    after = np.clip(before + gain * rng.random(n) * 2, 0, 1)
    ids = [f"t{i}" for i in range(n)]
    sides = [Results(name, {"": drawn(rng, true, k, ids)}) for name, true in (("a", before), ("b", after))]
    return compare(sides).comparisons[0], 100 * float((after - before).mean())


@pytest.mark.parametrize(("n", "k"), BENCHMARKS)
def test_without_a_difference_no_more_than_five_in_a_hundred_are_called_one(n: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    found = [compared(rng, n, k, 0.0)[0] for _ in range(DRAWS)]
    significant = sum(c.p <= 0.05 for c in found) / DRAWS
    called = sum("not distinguishable" not in c.verdict for c in found) / DRAWS
    assert significant <= 0.05 + THREE_SD and called <= 0.05 + THREE_SD
    if k > 1:
        assert significant >= 0.05 - THREE_SD


@pytest.mark.parametrize(("n", "k"), BENCHMARKS)
def test_the_interval_holds_the_true_difference(n: int, k: int) -> None:
    """Of the very tasks, which are fixed: their own spread makes the interval of several samples wide, not narrow."""
    rng = np.random.default_rng(100 + n + k)
    held = sum(c.ci95[0] <= true <= c.ci95[1] for c, true in (compared(rng, n, k, 0.08) for _ in range(DRAWS))) / DRAWS
    assert held >= 0.95 - THREE_SD - (0.01 if n == 40 else 0)


def test_one_policy_against_itself_differs_in_no_more_than_five_of_a_hundred() -> None:
    rng = np.random.default_rng(5)
    ids = [f"t{i}" for i in range(100)]
    rejected = 0
    for _ in range(DRAWS):
        cell = drawn(rng, rng.beta(0.6, 1.2, 100), 4, ids)
        rejected += compare(halves(Results("a", {"": cell}))).comparisons[0].p <= 0.05
    assert rejected / DRAWS <= 0.05 + THREE_SD


def test_with_repositories_that_are_alike_only_the_clustered_interval_covers() -> None:
    """The effect differs from repository to repository; the interval over tasks is then too narrow for new ones."""
    rng = np.random.default_rng(6)
    held = {"tasks": 0, "clustered": 0}
    for _ in range(DRAWS):
        each, cluster = {}, {}
        for repository in range(30):
            effect = 0.1 + rng.normal(0, 0.25)
            for task in range(8):
                each[f"{repository}-{task}"] = float(np.clip(effect + rng.normal(0, 0.4), -1, 1))
                cluster[f"{repository}-{task}"] = str(repository)
        low, high = samples.bootstrap(np.array(list(each.values())))
        held["tasks"] += low <= 0.1 <= high
        interval = samples.clustered(each, cluster)
        assert interval is not None
        held["clustered"] += interval[0] <= 0.1 <= interval[1]
    assert held["tasks"] / DRAWS < 0.85 and held["clustered"] / DRAWS >= 0.95 - THREE_SD
