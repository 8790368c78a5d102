"""Advantages: how an attempt compares with the others at the same task.

An advantage sees the rewards of one group's scored members: lost episodes have no reward and enter no mean (invariant
2: rewards [1, 1, 0, lost] have mean 2/3). It gets at least two rewards, not all equal; other groups give no gradient
and are counted (`source.py`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

Advantage = Callable[[Sequence[float]], list[float]]
"""Rewards of a group -> an advantage for each. `crrl.learning.ADVANTAGES` lists them by name."""


def centred(rewards: Sequence[float]) -> list[float]:
    """r − mean(r). Dr. GRPO (Liu et al. 2025, arXiv:2503.20783, eq. 3 without the deviation): dividing by the
    deviation would give very easy and very hard tasks more weight."""
    mean = statistics.fmean(rewards)
    return [r - mean for r in rewards]


def normalised(rewards: Sequence[float]) -> list[float]:
    """(r − mean(r)) / (std(r) + 1e-4), sample deviation. GRPO (Shao et al. 2024, arXiv:2402.03300, section
    4.1.2); the epsilon and the n−1 are TRL's."""
    deviation = statistics.stdev(rewards) + 1e-4
    return [a / deviation for a in centred(rewards)]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """r_i − mean of the others. RLOO (Ahmadian et al. 2024, arXiv:2402.14740, eq. 8); equals `centred` times
    n / (n − 1), an unbiased baseline."""
    n = len(rewards)
    return [a * n / (n - 1) for a in centred(rewards)]
