"""`crrl bench sandbox`, small: what holds on any machine, busy or not."""

from __future__ import annotations

import pytest

from crrl.bench import sandbox as bench


@pytest.mark.timeout(300)
def test_a_workspace_takes_no_disk_and_a_killed_owner_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STARTS": 2, "EXECS": 2, "TASKS": 1, "FILES": 300}.items():
        monkeypatch.setattr(bench, name, value)
    measured = bench.bench()
    assert (measured.disk_bytes, measured.left, measured.admitted) == (0, 0, 1)
    assert 0 < measured.memory_bytes < 1 << 20
    assert len(measured.lines()) == 8
