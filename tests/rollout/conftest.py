"""Everything an episode runs on, real, but for the engine, which plays demonstrations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from rollout_kit import BUGS, rollout_config

from crrl.bench.demonstrated import demonstrating_engine
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.models import model_folder
from crrl.rollout.episode import Parts
from crrl.rollout.worker import build


@pytest.fixture
def engine() -> ScriptedEngine:
    return demonstrating_engine(BUGS, load_tokenizer(model_folder("tiny")), step=16)


@pytest.fixture
async def parts(state_dir: Path, engine: ScriptedEngine) -> AsyncIterator[Parts]:
    async with AsyncExitStack() as closing:
        yield await build(rollout_config(state_dir), engine, closing)
