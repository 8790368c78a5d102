"""`crrl bench train`, small: both trainers have the same gradients, and what rows share is computed once."""

from __future__ import annotations

import pytest

from crrl.learning import bench


def test_both_trainers_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"ROWS": 3, "TURNS": 1, "SHAPES": ((bench.tiny, 60, 20, 3.0), (bench.tiny, 0, 30, 1.0))}
    for name, value in small.items():
        monkeypatch.setattr(bench, name, value)
    measured = bench.bench()
    assert [shape.computed for shape in measured.shapes] == [59 + 3 * 20, 3 * 29]
    for shape in measured.shapes:
        assert shape.gap < 1e-5 and shape.ours_s > 0 and shape.trl_s > 0
    assert "(target 3)" in "\n".join(measured.lines())
