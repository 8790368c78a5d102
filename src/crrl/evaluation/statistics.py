"""The statistics of solve rates: intervals, the paired test, and the detectable difference.

All functions take counts or outcomes of *scored* episodes: callers leave lost ones out, in pairs where episodes are
paired (invariant 2). Rates are fractions of 1; only `benchmark.Difference` is in percentage points. `difference.ci95`
is always `newcombe_paired`: unlike a bootstrap interval, it does not collapse to zero width when few tasks change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from scipy.stats import chi2

Z95 = NormalDist().inv_cdf(0.975)


def wilson(solved: float, total: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion (Wilson 1927, JASA 22:209; no continuity correction).

    (0, 1) if nothing was observed. Raises ValueError unless 0 <= solved <= total.
    """
    if not 0 <= solved <= total:
        raise ValueError(f"solved must lie in 0..total, got {solved} of {total}")
    if total == 0:
        return 0.0, 1.0
    rate, z = solved / total, Z95
    scale = 1 + z * z / total
    centre = (rate + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    # At the ends the limit is exactly 0 or 1, whatever rounding says.
    low = 0.0 if solved == 0 else max(0.0, centre - half)
    high = 1.0 if solved == total else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Paired:
    """The 2×2 table of paired outcomes: `both` solved, `gained` (only after), `fell` (only before),
    `neither`."""

    both: int
    gained: int
    fell: int
    neither: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> Paired:
        """Position i of both sequences is the same task."""
        # Python's integers: numpy's would overflow in the powers of two of exact tests, without a word.
        pairs = [(bool(b), bool(a)) for b, a in zip(before, after, strict=True)]
        return cls(
            both=sum(b and a for b, a in pairs),
            gained=sum(a and not b for b, a in pairs),
            fell=sum(b and not a for b, a in pairs),
            neither=sum(not b and not a for b, a in pairs),
        )

    @property
    def total(self) -> int:
        return self.both + self.gained + self.fell + self.neither

    @property
    def difference(self) -> float:
        """rate after − rate before."""
        return (self.gained - self.fell) / self.total if self.total else 0.0


def mcnemar_exact(table: Paired) -> float:
    """Two-sided exact McNemar p-value (McNemar 1947, Psychometrika 12:153): without a difference, `gained` is
    Binomial(gained + fell, 1/2). 1.0 if no pair is discordant."""
    n = table.gained + table.fell
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(table.gained, table.fell) + 1))
    return min(1.0, 2 * tail / 2**n)  # integers up to the one division: exact


def mcnemar_mid_p(table: Paired) -> float:
    """Two-sided mid-p McNemar p-value: the exact one without half of the observed outcome's probability, which makes it
    nearly unbiased where the exact one is conservative (Fagerland, Lydersen & Laake 2013, BMC Med. Res. Methodol.
    13:91)."""
    n = table.gained + table.fell
    return mcnemar_exact(table) - math.comb(n, table.gained) / 2**n if table.gained != table.fell else _tied(n)


def _tied(n: int) -> float:
    """As many gained as fell: both tails meet, and the observed outcome is counted once."""
    return 1.0 - math.comb(n, n // 2) / 2 ** (n + 1) if n else 1.0


def cochran_q(outcomes: Sequence[Sequence[bool]]) -> float:
    """p-value of Cochran's Q (Cochran 1950, Biometrika 37:256): do any of several policies differ, on the same tasks?

    Args:
        outcomes: for each policy its outcomes; position i is the same task in all. At least two policies.
    """
    arms, tasks = len(outcomes), list(zip(*outcomes, strict=True))
    per_arm, per_task = [sum(arm) for arm in outcomes], [sum(task) for task in tasks]
    spread = arms * sum(per_task) - sum(t * t for t in per_task)
    if spread == 0:  # every task came out the same in all
        return 1.0
    q = (arms - 1) * (arms * sum(a * a for a in per_arm) - sum(per_arm) ** 2) / spread
    return float(chi2.sf(q, arms - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several comparisons, in the given order (Holm 1979, Scand. J. Stat. 6:65)."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = worst
    return adjusted


def newcombe_paired(table: Paired) -> tuple[float, float]:
    """95% interval of (rate after − rate before) of paired proportions: Newcombe 1998, Stat. Med. 17:2635,
    method 10 (Wilson limits of both rates, squared and added, with the continuity-corrected phi for their
    correlation).

    (−1, 1) if nothing was observed.
    """
    n = table.total
    if n == 0:
        return -1.0, 1.0
    after, before = table.both + table.gained, table.both + table.fell
    (low_a, high_a), (low_b, high_b) = wilson(after, n), wilson(before, n)
    rate_a, rate_b = after / n, before / n
    phi = _phi(table)
    down_a, up_a, down_b, up_b = rate_a - low_a, high_a - rate_a, rate_b - low_b, high_b - rate_b
    below = math.sqrt(max(0.0, down_a**2 - 2 * phi * down_a * up_b + up_b**2))
    above = math.sqrt(max(0.0, up_a**2 - 2 * phi * up_a * down_b + down_b**2))
    return max(-1.0, table.difference - below), min(1.0, table.difference + above)


def _phi(table: Paired) -> float:
    rows = (table.both + table.gained) * (table.fell + table.neither)
    columns = (table.both + table.fell) * (table.gained + table.neither)
    if rows == 0 or columns == 0:
        return 0.0
    cross: float = table.both * table.neither - table.gained * table.fell
    if cross > 0:
        cross = max(0.0, cross - table.total / 2)
    return cross / math.sqrt(rows * columns)


def detectable_difference(total: int, discordant: float) -> float:
    """The smallest paired difference of rates that `total` pairs show with 80% power (two-sided McNemar, 5% level):
    Connor 1987, Biometrics 43:207, n = (z_a·√ψ + z_b·√(ψ − d²))² / d², solved for d.

    Args:
        discordant: ψ, the expected share of pairs that change, either way. The result never exceeds it; `inf` means
            that even if all of them changed the same way, it would not show.
    """
    if total <= 0 or not 0 < discordant <= 1:
        return math.inf
    z_a, z_b = Z95, NormalDist().inv_cdf(0.8)

    def needed(d: float) -> float:
        return (z_a * math.sqrt(discordant) + z_b * math.sqrt(max(0.0, discordant - d * d))) ** 2 / (d * d)

    low, high = 1e-9, discordant
    if needed(high) > total:
        return math.inf
    for _ in range(80):  # `needed` falls with d: bisection
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) > total else (low, middle)
    return high
