"""False positives and coverage on real 0/1 tables: which tasks of SWE-bench Lite published submissions resolved.

CRRL_TEST_PREDICTIONS is a folder with reports of SWE-bench's harness (*.json). Real tables are not like drawn ones:
most tasks are solved by all or by none, and tasks of one repository are alike. As truth we take the tables themselves:
sides exchanged at random (no difference), and tasks drawn from them with replacement (their difference).
"""

from __future__ import annotations

import math
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from crrl.evaluation import samples
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.compare import Comparison, compare
from crrl.evaluation.results import read

pytestmark = [pytest.mark.simulations, pytest.mark.timeout(1200)]
DRAWS = 300
THREE_SD = 3 * math.sqrt(0.05 * 0.95 / DRAWS)
Table = dict[str, float]  # instance -> 1.0 resolved, 0.0 not


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "RESAMPLES", 999)


@pytest.fixture
def tables() -> list[Table]:
    """On the tasks that all of them judged."""
    files = sorted(Path(os.environ.get("CRRL_TEST_PREDICTIONS", "/nowhere")).glob("*.json"))
    if len(files) < 2:
        pytest.skip("no published reports (CRRL_TEST_PREDICTIONS)")
    cells = [read(str(file)).cells[""].scores for file in files]
    common = sorted(set.intersection(*(set(scores) for scores in cells)))
    assert len(common) > 100
    return [{id: scores[id][0] for id in common} for scores in cells]


def compared(before: dict[str, list[float]], after: dict[str, list[float]]) -> Comparison:
    return compare([Results("a", {"": Cell(before)}), Results("b", {"": Cell(after)})]).comparisons[0]


def test_exchanged_sides_are_no_difference(tables: list[Table]) -> None:
    rng = np.random.default_rng(0)
    for a, b in combinations(tables, 2):
        rejected = 0
        for _ in range(DRAWS):
            sides: tuple[dict[str, list[float]], dict[str, list[float]]] = {}, {}
            for id in a:
                first = rng.integers(2)
                sides[first][id], sides[1 - first][id] = [a[id]], [b[id]]
            rejected += compared(*sides).p <= 0.05
        assert rejected / DRAWS <= 0.05 + THREE_SD


@pytest.mark.parametrize("n", [40, 200, 500])
def test_the_interval_covers_the_difference_of_the_table(tables: list[Table], n: int) -> None:
    """Tasks drawn with replacement, one sample each."""
    rng = np.random.default_rng(n)
    for a, b in combinations(tables, 2):
        ids = list(a)
        true = 100 * (sum(b.values()) - sum(a.values())) / len(ids)
        held = 0
        for _ in range(DRAWS):
            drawn = {f"{i}": ids[j] for i, j in enumerate(rng.integers(len(ids), size=n))}
            low, high = compared({i: [a[id]] for i, id in drawn.items()}, {i: [b[id]] for i, id in drawn.items()}).ci95
            held += low <= true <= high
        assert held / DRAWS >= 0.95 - THREE_SD


@pytest.mark.parametrize("n", [40, 200, 500])
def test_several_samples_at_the_rates_that_runs_had(tables: list[Table], n: int) -> None:
    """The tables as so many runs of one policy: of each task a rate, often 0 or 1, from which both sides draw four
    samples; no difference, and the interval holds 0."""
    rng = np.random.default_rng(n)
    rates = np.array([[table[id] for table in tables] for id in tables[0]]).mean(axis=1)
    rejected = held = 0
    for _ in range(DRAWS):
        true = rng.choice(rates, n)
        sides = [{f"{i}": list(rng.binomial(1, p, 4).astype(float)) for i, p in enumerate(true)} for _ in range(2)]
        found = compared(*sides)
        rejected += found.p <= 0.05
        held += found.ci95[0] <= 0 <= found.ci95[1]
    assert rejected / DRAWS <= 0.05 + THREE_SD
    assert held / DRAWS >= 0.95 - THREE_SD - (0.01 if n == 40 else 0)
