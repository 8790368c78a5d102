"""One renderer for the room; a gateway per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from gateway_kit import Bench, make_tokenizer

from crrl.gateway import Renderer, load_renderer


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    return load_renderer(make_tokenizer(), "qwen3")


@pytest.fixture
async def bench(renderer: Renderer) -> AsyncIterator[Bench]:
    bench = Bench(renderer)
    yield bench
    await bench.stop()
    await bench.close()
