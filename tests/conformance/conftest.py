"""A gateway per test, as in the gateway's own room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from gateway_kit import Bench, make_tokenizer

from crrl.gateway import load_renderer


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(load_renderer(make_tokenizer(), "qwen3"))
    yield bench
    await bench.stop()
    await bench.close()
