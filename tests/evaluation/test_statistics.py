"""The formulas against scipy and against numbers printed in the papers they come from."""

import math
import random

import numpy as np
import pytest
from scipy.stats import binomtest

from crrl.evaluation.statistics import (
    Paired,
    detectable_difference,
    mcnemar_exact,
    mcnemar_mid_p,
    newcombe_paired,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 17), (81, 263), (400, 400), (1, 1)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_observations_and_with_impossible_ones() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"0\.\.total"):
        wilson(3, 2)


@pytest.mark.parametrize(("gained", "fell"), [(7, 1), (1, 7), (0, 0), (5, 5), (0, 6), (300, 260)])
def test_mcnemar_equals_the_exact_binomial_test(gained: int, fell: int) -> None:
    expected = binomtest(gained, gained + fell).pvalue if gained + fell else 1.0
    assert mcnemar_exact(Paired(50, gained, fell, 20)) == pytest.approx(expected, abs=1e-12)


def test_newcombe_equals_the_published_interval() -> None:
    # Bentur et al. 2009 as analysed by Fagerland, Lydersen & Laake 2014 (Stat. Med. 33:2850): −0.507 to
    # −0.026.
    low, high = newcombe_paired(Paired(both=1, gained=1, fell=7, neither=12))
    assert (round(low, 3), round(high, 3)) == (-0.507, -0.026)
    mirrored = newcombe_paired(Paired(both=1, gained=7, fell=1, neither=12))
    assert mirrored == pytest.approx((-high, -low))


def test_newcombe_has_width_where_nothing_changed() -> None:
    low, high = newcombe_paired(Paired(100, 0, 0, 0))
    assert low < 0 < high
    assert newcombe_paired(Paired(0, 0, 0, 0)) == (-1.0, 1.0)


def test_newcombe_covers() -> None:
    rng, true, hits = random.Random(1), 0.3 - 0.05, 0
    for _ in range(400):
        draw = rng.choices(["both", "gained", "fell", "neither"], [0.2, 0.3, 0.05, 0.45], k=100)
        low, high = newcombe_paired(Paired(*(draw.count(c) for c in ("both", "gained", "fell", "neither"))))
        hits += low <= true <= high
    assert 0.92 <= hits / 400 <= 0.985


def test_detectable_difference_has_the_power_it_says() -> None:
    d = detectable_difference(400, 0.3)
    rng, seen = random.Random(2), 0
    for _ in range(400):
        draw = rng.choices("gfn", [(0.3 + d) / 2, (0.3 - d) / 2, 0.7], k=400)
        seen += mcnemar_exact(Paired(0, draw.count("g"), draw.count("f"), draw.count("n"))) < 0.05
    assert 0.70 <= seen / 400 <= 0.87  # exact McNemar is a little conservative against the formula's 0.80
    assert detectable_difference(1600, 0.3) == pytest.approx(d / 2, rel=0.05)
    assert detectable_difference(0, 0.3) == math.inf
    assert detectable_difference(3, 0.01) == math.inf


def test_outcomes_of_numpy_do_not_overflow() -> None:
    before, after = np.arange(200) < 100, np.arange(200) % 2 == 0
    table = Paired.of(list(before), list(after))
    assert (table.gained, table.fell) == (50, 50) and type(table.gained) is int
    assert 0 <= mcnemar_mid_p(table) <= 1 and mcnemar_exact(table) == 1.0
