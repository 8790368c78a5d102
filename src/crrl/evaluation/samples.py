"""Statistics of several samples a task: rates over tasks, their noise, and paired differences of means.

A task's score is the mean of its samples; tasks are the units, since samples of one task are alike (Miller 2024,
arXiv:2411.00640). McNemar's test does not apply here. As everywhere, lost episodes were left out (invariant 2), so
tasks may have different numbers of samples. Both versions of a function are one unit, too (`joined`): who calls one
vulnerable is likely to call the other so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from crrl.evaluation.statistics import Paired, newcombe_paired

Scores = Mapping[str, Sequence[float]]
"""task -> the scores of its samples, 0 to 1."""
Pairs = Mapping[str, str]
"""task -> the pair it is of (`tasks.classification.pairs_of`); tasks that stand alone are not in it."""
RESAMPLES = 9999
SEED = 0  # of the resampling: the same data give the same numbers


def pass_at_k(solved: int, samples: int, k: int) -> float:
    """The chance that at least one of `k` samples solves a task, unbiased: 1 − C(n−c, k) / C(n, k) (Chen et al. 2021,
    arXiv:2107.03374). Raises ValueError: fewer than `k` samples."""
    _enough(solved, samples, k)
    return 1.0 - math.comb(samples - solved, k) / math.comb(samples, k)


def pass_hat_k(solved: int, samples: int, k: int) -> float:
    """The chance that all of `k` samples solve a task, unbiased: C(c, k) / C(n, k) (Yao et al. 2024,
    arXiv:2406.12045). Raises ValueError: fewer than `k` samples."""
    _enough(solved, samples, k)
    return math.comb(solved, k) / math.comb(samples, k)


def _enough(solved: int, samples: int, k: int) -> None:
    if not (0 <= solved <= samples and 1 <= k <= samples):
        raise ValueError(f"{solved} of {samples} samples solved, k = {k}")


@dataclass(frozen=True)
class Noise:
    """Where the variance of a mean over tasks comes from (one-way analysis of variance, unequal numbers of samples).

    Args:
        within: variance of one sample around its task's mean; 0 if no task has two.
        between: variance of the tasks' true means.
    """

    within: float
    between: float

    @classmethod
    def of(cls, scores: Scores) -> Noise:
        tasks = [np.asarray(s, float) for s in scores.values() if len(s)]
        repeated = [t for t in tasks if len(t) > 1]
        free = sum(len(t) - 1 for t in repeated)
        within = sum(float(((t - t.mean()) ** 2).sum()) for t in repeated) / free if free else 0.0
        means = np.array([t.mean() for t in tasks])
        seen = float(means.var(ddof=1)) if len(tasks) > 1 else 0.0
        from_samples = within * float(np.mean([1 / len(t) for t in tasks])) if tasks else 0.0
        return cls(within, max(0.0, seen - from_samples))


@dataclass(frozen=True)
class MeanDifference:
    """After against before, over the tasks that both have.

    Args:
        difference: mean over tasks of (mean after − mean before).
        ci95: of the paired bootstrap over tasks (bias-corrected and accelerated, Efron 1987); where the samples of
            each task agree, Newcombe's, as if each task had one.
        p: of the paired permutation test, two-sided: the sides of each task are exchanged at random (all ways, up to
            13 tasks; else 9,999 of them).
        tasks: how many.
    """

    difference: float
    ci95: tuple[float, float]
    p: float
    tasks: int

    @classmethod
    def of(cls, before: Scores, after: Scores) -> MeanDifference:
        each = differences(before, after)
        values = np.array(list(each.values()))
        if len(values) == 0:
            return cls(0.0, (-1.0, 1.0), 1.0, 0)
        old, new = ([side[t] for t in each] for side in (before, after))
        ci95 = newcombe_paired(Paired.of(*map(solved, (old, new)))) if agree([*old, *new]) else bootstrap(values)
        return cls(float(values.mean()), ci95, permutation(values), len(values))


def joined(scores: Scores, pairs: Pairs, tasks: Iterable[str] | None = None) -> dict[str, list[float]]:
    """Units as if they were tasks: a pair has the samples of both its members. `tasks`: of these alone."""
    units: dict[str, list[float]] = {}
    for task in scores if tasks is None else tasks:
        units.setdefault(f"pair {pairs[task]}" if task in pairs else task, []).extend(scores[task])
    return units


def agree(scores: Iterable[Sequence[float]]) -> bool:
    """Whether all samples of each task say the same: then they are worth one each, and a bootstrap might have no
    width."""
    return all(len(s) and s[0] in (0.0, 1.0) and min(s) == max(s) for s in scores)


def solved(scores: Iterable[Sequence[float]]) -> list[bool]:
    """Of tasks whose samples agree."""
    return [s[0] > 0.5 for s in scores]


def differences(before: Scores, after: Scores) -> dict[str, float]:
    """task -> mean after − mean before, where both have samples."""
    return {t: float(np.mean(after[t]) - np.mean(before[t])) for t in before if before[t] and after.get(t)}


def permutation(values: np.ndarray) -> float:
    """Two-sided p-value of a mean of 0, by flips of signs."""
    if len(values) < 2 or not values.any():  # one unit can be flipped in two ways, both as extreme
        return 1.0
    found = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(SEED)
    )
    return min(1.0, float(found.pvalue))


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean. Where all values are equal the bootstrap has no width and says nothing: then the
    interval of a mean in [−1, 1] by Hoeffding's inequality."""
    if len(values) < 2 or np.ptp(values) == 0:
        half = math.sqrt(2 * math.log(2 / 0.05) / len(values))
        mean = float(values.mean())
        return max(-1.0, mean - half), min(1.0, mean + half)
    with np.errstate(all="ignore"):
        found = stats.bootstrap(
            (values,), np.mean, method="BCa", n_resamples=RESAMPLES, rng=np.random.default_rng(SEED), vectorized=True
        ).confidence_interval
    return float(found.low), float(found.high)


# Clusters: tasks of one repository are alike -----------------------------------------------------------------------


def effective_clusters(sizes: Sequence[int]) -> float:
    """(Σn)² / Σn²: how many clusters of equal size weigh as much (0 for none)."""
    return sum(sizes) ** 2 / sum(n * n for n in sizes) if sum(sizes) else 0.0


ENOUGH = 20.0  # effective clusters, below which clustered errors are too small (MacKinnon & Webb 2017)


def clustered(each: Mapping[str, float], cluster: Mapping[str, str]) -> tuple[float, float] | None:
    """95% interval of the mean, its error clustered: the sandwich estimator with G / (G − 1), and Student's t with
    G − 1 degrees of freedom (CR1; Cameron & Miller 2015, J. Human Resources 50:317). None: too few clusters to trust
    it."""
    groups: dict[str, list[float]] = {}
    for task, value in each.items():
        groups.setdefault(cluster[task], []).append(value)
    if effective_clusters([len(g) for g in groups.values()]) < ENOUGH:
        return None
    mean, count = float(np.mean(list(each.values()))), len(groups)
    spread = sum(sum(value - mean for value in g) ** 2 for g in groups.values())
    error = math.sqrt(spread * count / (count - 1)) / len(each)
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return max(-1.0, mean - half), min(1.0, mean + half)


def leave_one_out(each: Mapping[str, float], cluster: Mapping[str, str]) -> dict[str, float]:
    """cluster -> the mean difference over the tasks of all others; a cluster that is alone has none."""
    left = {}
    for name in sorted(set(cluster.values())):
        others = [value for task, value in each.items() if cluster[task] != name]
        if others:
            left[name] = float(np.mean(others))
    return left


def sign_flip(each: Mapping[str, float], cluster: Mapping[str, str]) -> float:
    """Two-sided p-value of a mean difference of 0 when whole clusters exchange their sides: few clusters cannot show
    much (the smallest p is 2 / 2^clusters)."""
    sums: dict[str, float] = {}
    for task, value in each.items():
        sums[cluster[task]] = sums.get(cluster[task], 0.0) + value
    return permutation(np.array(list(sums.values()))) if sums else 1.0
