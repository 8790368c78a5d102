"""Several samples a task: against scipy, statsmodels' published examples and simulation."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from crrl.evaluation import planning, samples
from crrl.evaluation.benchmark import rate_of
from crrl.evaluation.samples import MeanDifference, Noise, effective_clusters, leave_one_out, sign_flip
from crrl.evaluation.statistics import (
    Paired,
    cochran_q,
    holm,
    mcnemar_exact,
    mcnemar_mid_p,
    newcombe_paired,
    wilson,
)


@pytest.mark.parametrize(("solved", "total", "k"), [(0, 5, 3), (5, 5, 3), (2, 5, 1), (2, 5, 3), (1, 10, 10)])
def test_pass_at_k_and_pass_hat_k_are_the_shares_of_all_subsets(solved: int, total: int, k: int) -> None:
    outcomes = [i < solved for i in range(total)]
    subsets = list(itertools.combinations(outcomes, k))
    assert samples.pass_at_k(solved, total, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert samples.pass_hat_k(solved, total, k) == pytest.approx(sum(map(all, subsets)) / len(subsets))


@pytest.mark.parametrize(("solved", "total", "k"), [(1, 2, 3), (3, 2, 1), (-1, 2, 1), (1, 2, 0)])
def test_samples_that_are_not_there(solved: int, total: int, k: int) -> None:
    for function in (samples.pass_at_k, samples.pass_hat_k):
        with pytest.raises(ValueError):
            function(solved, total, k)


@pytest.mark.parametrize(("gained", "fell"), [(0, 0), (1, 0), (3, 3), (4, 1), (10, 25)])
def test_mid_p(gained: int, fell: int) -> None:
    """By its definition: P(more extreme) + P(as extreme) / 2, both tails; where both sides are equal there is one tail,
    and half of the observed outcome is taken from 1."""
    n = gained + fell
    point = [math.comb(n, i) / 2**n for i in range(n + 1)]
    low = min(gained, fell)
    one_sided = sum(point[:low]) + point[low] / 2
    expected = 2 * one_sided if gained != fell else 1 - point[low] / 2 if n else 1.0
    assert mcnemar_mid_p(Paired(0, gained, fell, 0)) == pytest.approx(expected)
    assert mcnemar_mid_p(Paired(5, gained, fell, 5)) <= mcnemar_exact(Paired(5, gained, fell, 5))


def test_cochran_q_is_mcnemar_for_two_and_equals_the_published_example() -> None:
    """For two arms Q is McNemar's statistic without correction. The worked example of Cochran 1950, table 1: four media
    for growing bacilli, of 69 specimens 4 grew on all, 2 on A, C and D (and so on): Q = 8.05 with 3 degrees."""
    table = {
        (1, 1, 1, 1): 4,
        (1, 1, 0, 1): 2,
        (0, 1, 1, 1): 3,
        (0, 1, 0, 1): 1,
        (0, 0, 0, 0): 59,
    }
    rows = [pattern for pattern, count in table.items() for _ in range(count)]
    arms = [[bool(row[i]) for row in rows] for i in range(4)]
    assert cochran_q(arms) == pytest.approx(stats.chi2.sf(8.0526, 3), abs=2e-4)
    before, after = [True] * 6 + [False] * 14, [False] * 4 + [True] * 2 + [True] * 9 + [False] * 5
    assert cochran_q([before, after]) == pytest.approx(stats.chi2.sf((9 - 4) ** 2 / 13, 1))
    assert cochran_q([before, before, before]) == 1.0


def test_holm() -> None:
    """Its textbook example, and never above 1 nor out of order."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_permutation_test_is_exact_for_few_tasks() -> None:
    values = np.array([0.5, 0.25, -0.25, 0.75, 1.0, 0.0, 0.5])
    signs = itertools.product((1, -1), repeat=len(values))
    flipped = [float(np.mean(values * np.array(s))) for s in signs]
    share = np.mean([abs(f) >= abs(values.mean()) - 1e-12 for f in flipped])
    assert samples.permutation(values) == pytest.approx(share)
    assert samples.permutation(np.zeros(4)) == 1.0


@pytest.mark.parametrize("n", [40, 200])
def test_nominal_levels(n: int) -> None:
    """With no difference, at k = 4: the permutation test rejects in 5%, the interval covers in 95% (400 draws each)."""
    rng = np.random.default_rng(7)
    rejected = covered = 0
    draws = 400
    for _ in range(draws):
        true = rng.beta(0.6, 1.2, n)
        sides = [{str(i): list(rng.binomial(1, p, 4).astype(float)) for i, p in enumerate(true)} for _ in range(2)]
        each = np.array(list(samples.differences(*sides).values()))
        # Their normal twins are as good in distribution, and a thousand times cheaper than 400 bootstraps.
        rejected += _fast_permutation(each, rng) <= 0.05
        half = 1.96 * each.std(ddof=1) / math.sqrt(n)
        covered += abs(each.mean()) <= half
    assert 0.02 <= rejected / draws <= 0.085 and 0.915 <= covered / draws <= 0.98


def _fast_permutation(values: np.ndarray, rng: np.random.Generator) -> float:
    flipped = np.abs((rng.choice((1, -1), size=(499, len(values))) * values).mean(1))
    return float((1 + (flipped >= abs(values.mean()) - 1e-12).sum()) / 500)


def test_the_mean_difference_against_scipy() -> None:
    rng = np.random.default_rng(3)
    before = {str(i): list(rng.binomial(1, 0.3, 4).astype(float)) for i in range(60)}
    after = {str(i): list(rng.binomial(1, 0.5, 4).astype(float)) for i in range(60)}
    found = MeanDifference.of(before, after)
    each = np.array(list(samples.differences(before, after).values()))
    reference = stats.bootstrap((each,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(1))
    low, high = reference.confidence_interval
    assert found.ci95 == pytest.approx((low, high), abs=0.01)
    assert found.difference == pytest.approx(each.mean()) and found.tasks == 60
    assert found.p == pytest.approx(stats.ttest_1samp(each, 0).pvalue, abs=0.01)
    assert MeanDifference.of(before, after) == found, "the same data, the same numbers"


def test_tasks_without_a_partner_are_left_out_and_nothing_is_no_claim() -> None:
    assert samples.differences({"a": [1.0], "b": [0.0], "c": []}, {"a": [0.0], "c": [1.0]}) == {"a": -1.0}
    empty = MeanDifference.of({"a": [1.0]}, {"b": [1.0]})
    assert (empty.ci95, empty.p, empty.tasks) == ((-1.0, 1.0), 1.0, 0)
    same = MeanDifference.of({"a": [1.0], "b": [0.0]}, {"a": [1.0], "b": [0.0]})
    assert same.ci95[0] < -0.5 and same.ci95[1] > 0.5, "two tasks that did not change show nothing"


def test_where_samples_agree_a_task_is_worth_one_of_them() -> None:
    """A bootstrap of equal values has no width, and would say nothing, or too much."""
    never = {f"t{n}": [0.0] * 4 for n in range(26)}
    assert rate_of(never) == (0.0, wilson(0, 26))
    nothing = MeanDifference.of(never, never)
    assert nothing.ci95 == newcombe_paired(Paired(0, 0, 0, 26)) and nothing.p == 1.0
    always = {task: [1.0] * 3 for task in never}
    assert MeanDifference.of(never, always).ci95 == newcombe_paired(Paired(0, 26, 0, 0))
    some = {**never, "t0": [1.0, 1.0]}
    assert rate_of(some) == (1 / 26, wilson(1, 26))
    assert rate_of({**never, "t0": [1.0, 0.0]})[1] != wilson(1, 26)


def test_noise_is_told_apart() -> None:
    """Simulated: true means uniform (variance 1/12), samples of variance p (1 − p), 1/6 on average."""
    rng = np.random.default_rng(5)
    true = rng.uniform(0, 1, 4000)
    found = Noise.of(
        {str(i): rng.binomial(1, p, rng.integers(2, 6)).astype(float).tolist() for i, p in enumerate(true)}
    )
    assert found.between == pytest.approx(1 / 12, abs=0.01) and found.within == pytest.approx(1 / 6, abs=0.01)
    assert Noise.of({"a": [1.0], "b": [0.0]}) == Noise(0.0, 0.5) and Noise.of({}) == Noise(0.0, 0.0)


def test_clusters() -> None:
    assert effective_clusters([10, 10, 10]) == 3 and effective_clusters([231, 114, 1]) == pytest.approx(1.8, abs=0.05)
    each = {"a1": 1.0, "a2": 1.0, "b1": 0.0, "c1": -1.0}
    cluster = {task: task[0] for task in each}
    assert leave_one_out(each, cluster) == pytest.approx({"a": -0.5, "b": 1 / 3, "c": 2 / 3})
    assert sign_flip({"a1": 1.0, "a2": 1.0}, {"a1": "a", "a2": "a"}) == 1.0, "one repository shows nothing"
    five = {str(i): 1.0 for i in range(5)}
    assert sign_flip(five, {task: task for task in five}) == pytest.approx(2 / 2**5)


# Planning ----------------------------------------------------------------------------------------------------------


def test_the_plan_of_the_projects_own_claim() -> None:
    """At n = 500 with 15% discordant pairs, 4.9 points are seen with 80% power."""
    assert planning.tasks_needed(0.049, 0.15) == pytest.approx(487, abs=15)
    with pytest.raises(ValueError):
        planning.tasks_needed(0.2, 0.1)


def test_power_equals_simulation() -> None:
    rng = np.random.default_rng(11)
    noises, tasks, k, seeds, difference = planning.Noises(0.25, 0.4, 0.02), 150, 2, 3, 0.08
    hits = 0
    for _ in range(3000):
        true = rng.normal(difference, noises.task, tasks)
        base = rng.normal(0, noises.sample / math.sqrt(k), tasks)
        runs = [
            true + rng.normal(0, noises.seed) + rng.normal(0, noises.sample / math.sqrt(k), tasks) for _ in range(seeds)
        ]
        z = (np.mean(runs, 0) - base).mean() / planning.standard_error(noises, tasks, k, seeds)
        hits += abs(z) > NormalDist().inv_cdf(0.975)
    assert planning.power(difference, noises, tasks, k, seeds) == pytest.approx(hits / 3000, abs=0.025)
    seen = planning.detectable(noises, tasks, k, seeds)
    assert planning.power(seen, noises, tasks, k, seeds) == pytest.approx(0.8, abs=1e-3)
