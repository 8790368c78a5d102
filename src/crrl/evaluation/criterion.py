"""Is a claim met: so many points over a baseline, on the same tasks, under the same conditions?

*Met strongly*: the lower bound reaches the points. *Met*: the difference does, and the lower bound lies above 0. *Not
met*: the upper bound lies below the points. *Not decidable*: none of these; then it is said what would decide it. With
0 points (any lift at all) met means a lower bound above 0, and not met an upper bound of 0 or less.

Trained policies of several training seeds are pooled: the claim is about the recipe, not about its luckiest seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import stats

from crrl.evaluation import samples
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.planning import Noises, standard_error
from crrl.evaluation.statistics import Paired, newcombe_paired

Word = Literal["met strongly", "met", "not met", "not decidable"]
MOST_SAMPLES, MOST_SEEDS = 64, 16


@dataclass(frozen=True)
class Lift:
    """Trained against a baseline, over the tasks that all of them judged (both versions of a function are one); in
    percentage points.

    Args:
        seeds: points of each trained policy alone.
        noises: standard deviations behind the error, as rates.
    """

    baseline: str
    points: float
    ci95: tuple[float, float]
    tasks: int
    rates: tuple[float, float]
    seeds: dict[str, float]
    noises: Noises
    unpaired: int = 0
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Criterion:
    """`would_decide`: in words, where nothing is decided."""

    verdict: Word
    wanted: float
    lift: Lift
    would_decide: str = ""
    cell: str = ""
    notes: list[str] = field(default_factory=list)


def judge(lift: Lift, wanted: float) -> Word:
    low, high = lift.ci95
    if wanted <= 0:
        return "met" if low > 0 else "not met" if high <= 0 else "not decidable"
    if low >= wanted:
        return "met strongly"
    if lift.points >= wanted and low > 0:
        return "met"
    return "not met" if high < wanted else "not decidable"


def criterion(baseline: Results, trained: Sequence[Results], cell: str, wanted: float) -> Criterion:
    """Raises ValueError: they have no task in common."""
    lift = lift_of(baseline.name, baseline.cells[cell], {r.name: r.cells[cell] for r in trained})
    verdict = judge(lift, wanted)
    undecided = verdict == "not decidable"
    decide = would_decide(lift, wanted, baseline.cells[cell], trained[0].cells[cell]) if undecided else ""
    return Criterion(verdict, wanted, lift, decide, cell)


def lift_of(name: str, base: Cell, trained: dict[str, Cell]) -> Lift:
    """With one seed: the interval of `compare`. With several: the variances of the task's mean differences, and of the
    seeds' means, added; Student's t with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics Bulletin
    2:110). What is chance within a sample is in both, so it is a little wide."""
    each = {seed: samples.differences(base.scores, c.scores) for seed, c in trained.items()}
    common = [t for t in base.scores if all(t in d for d in each.values())]
    if not common:
        raise ValueError("They have no task in common.")
    everything = set(base.scores).union(*(c.scores for c in trained.values()))
    unpaired, bounds = len(everything) - len(common), _bounds(base, trained)
    base, trained = units(base, common), {seed: units(c, common) for seed, c in trained.items()}
    common = list(base.scores)
    each = {seed: samples.differences(base.scores, c.scores) for seed, c in trained.items()}
    means = {seed: float(np.mean([d[t] for t in common])) for seed, d in each.items()}
    pooled = np.array([np.mean([d[t] for d in each.values()]) for t in common])
    after = {t: [float(np.mean(c.scores[t])) for c in trained.values()] for t in common}
    before_rate = float(np.mean([np.mean(base.scores[t]) for t in common]))
    low, high = _interval(base, trained, common, pooled, list(means.values()))
    return Lift(
        baseline=name,
        points=100 * float(pooled.mean()),
        ci95=(100 * max(-1.0, low), 100 * min(1.0, high)),
        tasks=len(common),
        rates=(before_rate, float(np.mean([np.mean(a) for a in after.values()]))),
        seeds={seed: 100 * mean for seed, mean in means.items()},
        noises=noises_of(base, trained, common, pooled, list(means.values())),
        unpaired=unpaired,
        bounds=bounds,
    )


def units(cell: Cell, tasks: Sequence[str]) -> Cell:
    """Of these tasks; both versions of a function as one with the samples of both."""
    return Cell(samples.joined(cell.scores, cell.pairs, tasks))


def _interval(
    base: Cell, trained: dict[str, Cell], common: list[str], pooled: np.ndarray, means: list[float]
) -> tuple[float, float]:
    if len(trained) == 1:
        (only,) = trained.values()
        sides = [[c.scores[t] for t in common] for c in (base, only)]
        if samples.agree([*sides[0], *sides[1]]):
            return newcombe_paired(Paired.of(*map(samples.solved, sides)))
        return samples.bootstrap(pooled)
    if len(common) < 2:
        return -1.0, 1.0
    of_tasks, of_seeds = float(pooled.var(ddof=1)) / len(common), float(np.var(means, ddof=1)) / len(means)
    if of_tasks + of_seeds == 0:
        return samples.bootstrap(pooled)
    freedom = (of_tasks + of_seeds) ** 2 / (of_tasks**2 / (len(common) - 1) + of_seeds**2 / (len(means) - 1))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(of_tasks + of_seeds)
    return float(pooled.mean()) - half, float(pooled.mean()) + half


def noises_of(
    base: Cell, trained: dict[str, Cell], common: Sequence[str], pooled: np.ndarray, means: Sequence[float]
) -> Noises:
    """Where no task has two samples, the noise of a sample is that of a coin at the rate: the most it can be."""
    repeated = [c for c in (base, *trained.values()) if any(len(c.scores[t]) > 1 for t in common)]
    if repeated:
        within = float(np.mean([samples.Noise.of({t: c.scores[t] for t in common}).within for c in repeated]))
    else:
        within = _single(base, trained, common)
    before, after = _inverse(base, common), float(np.mean([_inverse(c, common) for c in trained.values()]))
    seen = float(pooled.var(ddof=1)) if len(common) > 1 else 0.0
    task = max(0.0, seen - within * (before + after / len(trained)))
    seed = max(0.0, float(np.var(means, ddof=1)) - within * after / len(common)) if len(means) > 1 else 0.0
    return Noises(math.sqrt(task), math.sqrt(within), math.sqrt(seed))


def _inverse(cell: Cell, tasks: Sequence[str]) -> float:
    """Mean of 1 / samples."""
    return float(np.mean([1 / len(cell.scores[t]) for t in tasks]))


def _single(base: Cell, trained: dict[str, Cell], common: Sequence[str]) -> float:
    """Half of the share of tasks that change is the most that chance alone explains: a task whose sides both solve it
    with probability p changes with 2p(1 − p)."""
    changed = [abs(c.scores[t][0] - base.scores[t][0]) for c in trained.values() for t in common]
    return float(np.mean(changed)) / 2


def _bounds(base: Cell, trained: dict[str, Cell]) -> tuple[float, float] | None:
    """Points with the lost samples of one side all solved and of the other all unsolved."""
    if not base.lost and not any(c.lost for c in trained.values()):
        return None

    def rate(cell: Cell, lost_are: float) -> float:
        tasks = {*cell.scores, *cell.lost}
        filled = [[*cell.scores.get(t, []), *[lost_are] * cell.lost.get(t, 0)] for t in tasks]
        return sum(sum(s) / len(s) for s in filled) / len(filled)

    worst, best = (float(np.mean([rate(c, value) for c in trained.values()])) for value in (0.0, 1.0))
    return 100 * (worst - rate(base, 1.0)), 100 * (best - rate(base, 0.0))


def would_decide(lift: Lift, wanted: float, base: Cell, trained: Cell) -> str:
    """How much more of what, if the difference that was seen is the true one."""
    points = lift.points / 100
    goal = wanted / 100
    to_zero = points > 0 and points >= goal  # then the lower bound has to leave 0; else the upper one the points
    room = points if to_zero else goal - points
    aim = "the lower bound would lie above 0" if to_zero else f"the upper bound would lie below {wanted:g}"
    if not any((lift.noises.task, lift.noises.sample, lift.noises.seed)):
        return "no task changed, so how much results vary is not known: several samples a task, or more tasks"
    if room <= 0:
        return "the difference that was seen lies on the line: nothing but another difference would decide it"
    z = 1.96
    now = max((len(s) for s in (*base.scores.values(), *trained.scores.values())), default=1)
    common = base.scores.keys() & trained.scores.keys()
    versions = len(common) / len(samples.joined(base.scores, base.pairs, common))  # of a function: each has its samples
    seeds_now = len(lift.seeds)
    for seeds in range(seeds_now, MOST_SEEDS + 1):
        for k in (now, *(n for n in (2, 4, 8, 16, 32, 64) if n > now)):
            error = standard_error(lift.noises, lift.tasks, k * versions, seeds)
            if z * error < room and (k, seeds) != (now, seeds_now):
                return f"{k} samples a task and {seeds} training seeds on these {lift.tasks} tasks: {aim}"
    error = standard_error(lift.noises, 1, now * versions, seeds_now)
    seed = lift.noises.seed**2 / seeds_now
    left = (room / z) ** 2 - seed
    if left <= 0:
        return f"more than {MOST_SEEDS} training seeds, or a larger difference: the seeds differ too much"
    tasks = math.ceil((error**2 - seed) / left)
    return f"{tasks} tasks with {now} samples each and {seeds_now} training seeds: {aim}"


def plain(found: Criterion) -> dict[str, Any]:
    """JSON values."""
    lift = found.lift
    return {
        "verdict": found.verdict,
        "cell": found.cell,
        "wanted": found.wanted,
        "baseline": lift.baseline,
        "points": lift.points,
        "ci95": list(lift.ci95),
        "tasks": lift.tasks,
        "rates": list(lift.rates),
        "seeds": lift.seeds,
        "unpaired": lift.unpaired,
        "bounds": list(lift.bounds) if lift.bounds else None,
        "would_decide": found.would_decide,
        "notes": found.notes,
    }
