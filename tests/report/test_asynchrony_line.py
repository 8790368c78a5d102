"""Who was busy, by hand: shares are of time, staleness is of tokens."""

from __future__ import annotations

import pytest

from crrl.report.asynchrony import asynchrony, asynchrony_line
from crrl.run.busy import Busy


def test_by_hand() -> None:
    steps = [
        {"step_s": 10.0, "trainer_busy": 0.5, "engine_busy": 1.0, "trained_tokens": 0.0},
        {
            **{"step_s": 30.0, "trainer_busy": 0.9, "engine_busy": 0.2, "trained_tokens": 100.0},
            **{"staleness": 1.0, "staleness_max": 2.0, "engine_wait": 4.0, "engine_queued": 2.0, "engine_held": 1.0},
        },
        {"step_s": 0.0, "trained_tokens": 300.0, "staleness": 0.2, "staleness_max": 1.0},
    ]
    found = asynchrony(steps, 2)
    assert found == pytest.approx(
        {
            **{"bound": 2, "staleness": 0.4, "staleness_max": 2, "trainer_busy": 0.8, "engine_busy": 0.4},
            **{"engine_wait": 4, "engine_queued": 2, "engine_held": 1},
        }
    )
    line = asynchrony_line(found)
    assert "trainer busy 80%" in line and "engine 40%" in line and "0.40 steps old (at most 2)" in line
    assert asynchrony([], 0) == {"bound": 0} and asynchrony_line({"bound": 0}) == "" == asynchrony_line({})
    assert asynchrony([{"staleness": 1.0, "staleness_max": 1.0, "trained_tokens": 0.0}], 1).get("staleness") is None


def test_what_a_step_measures() -> None:
    now, engine = [0.0], [5.0]
    busy = Busy(lambda: engine[0], lambda: now[0])
    with busy.waiting():
        now[0], engine[0] = 6.0, 10.0
    now[0], engine[0] = 8.0, 11.0
    assert busy.of_step() == {"step_s": 8.0, "wait_s": 6.0, "trainer_busy": 0.25, "engine_busy": 0.75}
    now[0] = 10.0
    assert busy.of_step() == {"step_s": 2.0, "wait_s": 0.0, "trainer_busy": 1.0, "engine_busy": 0.0}
    assert busy.of_step() == {"step_s": 0.0, "wait_s": 0.0}
