"""95% intervals of statistics of attempts that come in clusters: several at one task, several tasks of a repository.

Whole clusters are drawn (Field & Welsh 2007, J. R. Stat. Soc. B 69:369), so attempts at one task never count as
independent. A statistic is a function of the clusters' weights, all resamples at once: how often each was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import norm

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights of the clusters, shape (resamples, clusters) -> its value in each resample; NaN where it has none."""
RESAMPLES = 2000
SEED = 0  # the same data give the same numbers
AT_ONCE = 4_000_000  # weights of attempts in memory
UNDEFINED = 0.05  # share of resamples without a value, from which on there is no interval


def value(statistic: Statistic, clusters: int) -> float | None:
    """Of the data themselves; None where it is not defined."""
    found = float(statistic(np.ones((1, clusters)))[0])
    return None if np.isnan(found) else found


def bca(statistic: Statistic, clusters: int, attempts: int = 0) -> tuple[float, float] | None:
    """Bias-corrected and accelerated (Efron 1987, JASA 82:171). None where it would say nothing: fewer than two
    clusters, a statistic that many resamples leave undefined, or that is the same in all.

    Args:
        attempts: how many numbers the statistic holds for each resample, where that is more than the clusters.
    """
    seen = value(statistic, clusters)
    if clusters < 2 or seen is None:
        return None
    rows = max(1, AT_ONCE // max(clusters, attempts))
    drawn = np.concatenate([statistic(w) for w in _resamples(clusters, rows)])
    usable = drawn[~np.isnan(drawn)]
    if len(usable) < (1 - UNDEFINED) * len(drawn) or np.ptp(usable) == 0:
        return None
    below = (usable < seen).mean() + (usable == seen).mean() / 2
    bias = norm.ppf(np.clip(below, 0.5 / len(usable), 1 - 0.5 / len(usable)))
    speed = _acceleration(np.concatenate([statistic(w) for w in _without_one(clusters, rows)]))
    ends = []
    for z in norm.ppf([0.025, 0.975]):
        shifted = bias + z
        ends.append(float(np.quantile(usable, norm.cdf(bias + shifted / (1 - speed * shifted)))))
    return ends[0], ends[1]


def _resamples(clusters: int, rows: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(SEED)
    for start in range(0, RESAMPLES, rows):
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), min(rows, RESAMPLES - start)).astype(float)


def _without_one(clusters: int, rows: int) -> Iterator[np.ndarray]:
    """The jackknife's weights: each cluster left out once."""
    for start in range(0, clusters, rows):
        weights = np.ones((min(rows, clusters - start), clusters))
        weights[np.arange(len(weights)), start + np.arange(len(weights))] = 0.0
        yield weights


def _acceleration(left_out: np.ndarray) -> float:
    usable = left_out[~np.isnan(left_out)]
    if not len(usable):
        return 0.0
    apart = usable.mean() - usable
    scale = float((apart**2).sum()) ** 1.5
    return float((apart**3).sum()) / (6 * scale) if scale else 0.0
