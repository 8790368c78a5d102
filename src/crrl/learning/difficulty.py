"""How hard tasks are for the policy, from the outcomes of its own attempts.

A group gives a gradient if some of its attempts solve the task and some do not, so tasks are worth sampling whose pass
rate lies in a band. Of each key (a task of a file; a family of generated tasks) the belief about its pass rate is a
Beta distribution with a flat prior; with every group of that key, what was seen before counts half, for the policy has
changed. `weight` is the probability that the pass rate is in the band, and never 0: tasks come back, now and then.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

FORGET = 0.5  # what counts of earlier groups of the same key
LEAST = 0.05  # weight
GRID = (np.arange(400) + 0.5) / 400


class Difficulty:
    def __init__(self, low: float, high: float) -> None:
        self._band = (low <= GRID) & (high >= GRID)
        self._seen: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def learn(self, key: str, solved: int, total: int) -> None:
        """A group of attempts; lost ones are not among them."""
        before = self._seen[key]
        self._seen[key] = (FORGET * before[0] + solved, FORGET * before[1] + total - solved)

    def weight(self, key: str) -> float:
        solved, failed = self._seen.get(key, (0.0, 0.0))
        density = GRID**solved * (1 - GRID) ** failed
        return max(LEAST, float(density[self._band].sum() / density.sum()))
