"""How many tasks, samples and training seeds would settle a difference, before anything is run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from crrl.evaluation.statistics import Z95


@dataclass(frozen=True)
class Noises:
    """Standard deviations, as rates.

    Args:
        task: of the true difference between the policies, from task to task.
        sample: of one sample around its task's mean (at a solve rate p, at most sqrt(p (1 − p))).
        seed: of the true mean difference, from training seed to training seed.
    """

    task: float
    sample: float
    seed: float = 0.0


def tasks_needed(difference: float, discordant: float, power: float = 0.8) -> int:
    """Tasks with one sample each that show `difference` by McNemar's test at the 5% level: Connor 1987, Biometrics
    43:207.

    Args:
        difference: rate after − rate before, above 0.
        discordant: share of the tasks that change, either way; at least `difference`.

    Raises:
        ValueError: the difference is not possible.
    """
    if not 0 < difference <= discordant <= 1:
        raise ValueError(f"a difference of {difference:g} needs at least as large a share of tasks that change")
    beta = NormalDist().inv_cdf(power)
    root = Z95 * math.sqrt(discordant) + beta * math.sqrt(discordant - difference**2)
    return math.ceil((root / difference) ** 2)


def standard_error(noises: Noises, tasks: int, samples: float = 1, seeds: int = 1) -> float:
    """Of the mean difference: both policies with `samples` a task (their mean), `seeds` trained policies against one
    baseline on the same tasks."""
    per_task = noises.task**2 + noises.sample**2 / samples * (1 + 1 / seeds)
    return math.sqrt(per_task / tasks + noises.seed**2 / seeds)


def power(difference: float, noises: Noises, tasks: int, samples: int = 1, seeds: int = 1) -> float:
    """The chance that the 95% interval excludes 0 (normal approximation)."""
    error = standard_error(noises, tasks, samples, seeds)
    if error == 0:
        return 1.0 if difference else 0.0
    z = abs(difference) / error
    return NormalDist().cdf(z - Z95) + NormalDist().cdf(-z - Z95)


def detectable(noises: Noises, tasks: int, samples: int = 1, seeds: int = 1, wanted: float = 0.8) -> float:
    """The smallest difference that is shown with this power."""
    return (Z95 + NormalDist().inv_cdf(wanted)) * standard_error(noises, tasks, samples, seeds)
