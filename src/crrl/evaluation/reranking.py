"""How well a reward tells solved attempts from others: AUC, expected calibration error, best@k.

Every function gives a `Statistic`, a function of the clusters' weights (`cluster_bootstrap.py`): with all weights 1 it
is the plain number. Positions are attempts; `cluster` says which cluster each belongs to.

- AUC: the chance that a solved attempt has a higher reward than an unsolved one, ties counting half (Mann & Whitney
  1947; Hanley & McNeil 1982).
- Within groups: the same among the attempts at one task only, mean over the groups that have both outcomes. It is what
  GRPO and best-of-n see: they never compare attempts at different tasks.
- ECE: the mean distance of probability and rate over ten bins of equal width, weighted by their attempts (Naeini et al.
  2015; Guo et al. 2017, arXiv:1706.04599).
- best@k: the chance that the attempt with the highest reward of k is solved, over all subsets of k of a group's n, ties
  broken at random. Oracle@k is pass@k, random@k the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from crrl.evaluation.cluster_bootstrap import Statistic
from crrl.evaluation.samples import pass_at_k

BINS = 10
FOLDS = 5


def auc(reward: np.ndarray, solved: np.ndarray, cluster: np.ndarray) -> Statistic:
    """NaN where all that was drawn is solved, or unsolved."""
    order = np.argsort(reward, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(reward[order]) > 0]))  # of each value
    solved, cluster = solved[order], cluster[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        each = weights[:, cluster]
        right = np.add.reduceat(each * solved, starts, axis=1)
        wrong = np.add.reduceat(each * (1 - solved), starts, axis=1)
        below = np.cumsum(wrong, axis=1) - wrong
        return _ratio((right * (below + wrong / 2)).sum(1), right.sum(1) * wrong.sum(1))

    return statistic


def mean_of_groups(values: np.ndarray, cluster: np.ndarray) -> Statistic:
    """The mean of one number a group."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        each = weights[:, cluster]
        return _ratio((each * values).sum(1), each.sum(1))

    return statistic


def ece(probability: np.ndarray, solved: np.ndarray, cluster: np.ndarray) -> Statistic:
    bins = np.eye(BINS)[bin_of(probability)]

    def statistic(weights: np.ndarray) -> np.ndarray:
        each = weights[:, cluster]
        return _ratio(np.abs((each * (solved - probability)) @ bins).sum(1), each.sum(1))

    return statistic


def bin_of(probability: np.ndarray) -> np.ndarray:
    return np.minimum((probability * BINS).astype(int), BINS - 1)


def ece_by_chance(probability: np.ndarray, draws: int = 200) -> float:
    """The ECE to expect of so many attempts if every probability were right (consistency resampling, Bröcker & Smith
    2007): what lies below is no sign of anything."""
    rng = np.random.default_rng(0)
    everything = np.zeros(len(probability), int)
    one = np.ones((1, 1))
    return float(
        np.mean(
            [
                ece(probability, (rng.random(len(probability)) < probability).astype(float), everything)(one)[0]
                for _ in range(draws)
            ]
        )
    )


def isotonic(reward: np.ndarray, solved: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The probability of each attempt by isotonic regression (Zadrozny & Elkan 2002, KDD), fitted on the clusters of
    the other four of five folds: on its own attempts the map would be calibrated by construction."""
    fold = np.random.default_rng(0).permutation(int(cluster.max()) + 1)[cluster] % FOLDS
    found = np.full(len(reward), float(solved.mean()))
    for number in range(FOLDS):
        inside, outside = fold == number, fold != number
        if inside.any() and outside.any():
            values, inverse = np.unique(reward[outside], return_inverse=True)
            count = np.bincount(inverse)
            rate = np.bincount(inverse, weights=solved[outside]) / count
            fitted = isotonic_regression(rate, weights=count).x
            found[inside] = np.interp(reward[inside], values, fitted)
    return found


@dataclass(frozen=True)
class Best:
    """Of one group, for one k."""

    best: float
    oracle: float
    random: float


def best_at_k(rewards: Sequence[float], solved: Sequence[bool], k: int) -> Best:
    """Raises ValueError: fewer than `k` attempts. Counts subsets by the value of their best member: C(at most it, k) −
    C(below it, k) of them have it, and each attempt of that value is the one chosen equally often."""
    count = len(rewards)
    oracle = pass_at_k(sum(map(bool, solved)), count, k)
    best, below = 0.0, 0
    for value in sorted(set(rewards)):
        tied = [s for r, s in zip(rewards, solved, strict=True) if r == value]
        subsets = math.comb(below + len(tied), k) - math.comb(below, k)
        best += subsets * sum(tied) / len(tied)
        below += len(tied)
    return Best(best / math.comb(count, k), oracle, sum(map(bool, solved)) / count)


def auc_of_group(rewards: Sequence[float], solved: Sequence[bool]) -> float | None:
    """None where they all came out the same."""
    right = [r for r, s in zip(rewards, solved, strict=True) if s]
    wrong = [r for r, s in zip(rewards, solved, strict=True) if not s]
    if not right or not wrong:
        return None
    return sum((r > w) + (r == w) / 2 for r in right for w in wrong) / (len(right) * len(wrong))


def _ratio(of: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.divide(of, by, out=np.full(len(by), np.nan), where=by > 0)
