"""How much of a step's time the trainer and the engine worked: what asynchrony is for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Busy:
    """Args:
    engine_s: seconds that the engine has computed so far. now: the clock.
    """

    def __init__(self, engine_s: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        self._engine_s, self._now = engine_s, now
        self._since, self._engine, self._waited = now(), engine_s(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The trainer waits for rollouts."""
        began = self._now()
        try:
            yield
        finally:
            self._waited += self._now() - began

    def of_step(self) -> dict[str, float]:
        """Since the last call: `step_s`, `wait_s`, and the shares of it `trainer_busy` and `engine_busy`."""
        now, engine = self._now(), self._engine_s()
        wall, waited, computed = now - self._since, self._waited, engine - self._engine
        self._since, self._engine, self._waited = now, engine, 0.0
        shares = {"trainer_busy": 1 - waited / wall, "engine_busy": computed / wall} if wall > 0 else {}
        return {"step_s": wall, "wait_s": waited, **shares}
