"""Real judges over one shared state folder (the harness is made once)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from crrl.rewards.judge import JudgeLimits, PytestJudge

SMALL = JudgeLimits(memory_bytes=256 << 20, processes=32, disk_bytes=32 << 20, tmp_bytes=8 << 20, file_bytes=16 << 20)


@pytest.fixture(scope="session")
def state_dir() -> Iterator[Path]:
    """Readable by the uid the judge drops to, unlike pytest's own temporary folder."""
    with tempfile.TemporaryDirectory(prefix="crrl-test-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
async def judge(state_dir: Path) -> AsyncIterator[PytestJudge]:
    judge = PytestJudge(state_dir, limits=SMALL)
    yield judge
    await judge.close()
