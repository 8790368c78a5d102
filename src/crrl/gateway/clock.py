"""Whose time it is: what passes while a request is at the engine is not the agent's.

Keeps its part of invariant 2: however long an engine takes (queued, prefilling others, held by a push, slow because
the machine is), no wall budget is charged, whether or not a token comes of it later. Sampled tokens have a budget of
their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HELD_GAP_S = 0.5  # a longer gap between tokens is counted as held (a push, a pause), not as sampling


class Asked:
    """One request at the engine."""

    def __init__(self, clock: EngineClock) -> None:
        self._clock, self._last, self._first = clock, clock.now(), True

    def given(self) -> None:
        """More tokens came, or the end."""
        now = self._clock.now()
        gap, self._last = now - self._last, now
        if self._first:
            self._clock.queued_s += gap
        elif gap > HELD_GAP_S:
            self._clock.held_s += gap
        self._first = False


class EngineClock:
    """Wall time in which at least one request of a session was at the engine.

    Attributes: `queued_s`: before first tokens; `held_s`: in longer gaps between tokens. Parallel requests add up.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.queued_s = self.held_s = 0.0
        self._total_s, self._open, self._since = 0.0, 0, 0.0

    @contextmanager
    def asked(self) -> Iterator[Asked]:
        if self._open == 0:
            self._since = self.now()
        self._open += 1
        try:
            yield (asked := Asked(self))
        finally:
            asked.given()
            self._open -= 1
            if self._open == 0:
                self._total_s += self.now() - self._since

    def read(self) -> float:
        """Seconds so far, a wait that goes on included."""
        return self._total_s + (self.now() - self._since if self._open else 0.0)
