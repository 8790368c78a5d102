"""Real judges over one shared state folder (the harness is made once)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crrl.rewards.judge import JudgeLimits, PytestJudge

SMALL = JudgeLimits(memory_bytes=256 << 20, processes=32, disk_bytes=32 << 20, tmp_bytes=8 << 20, file_bytes=16 << 20)


@pytest.fixture
async def judge(state_dir: Path) -> AsyncIterator[PytestJudge]:
    judge = PytestJudge(state_dir, limits=SMALL)
    yield judge
    await judge.close()
