from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
from engine_kit import tiny_qwen3
from transformers import PreTrainedModel

from crrl.engines.local import LocalEngine


@pytest.fixture
def plain() -> PreTrainedModel:
    return tiny_qwen3()


@pytest.fixture
def make(plain: PreTrainedModel) -> Iterator[Callable[..., LocalEngine]]:
    """Makes engines on copies of `plain`, and closes them."""
    made: list[LocalEngine] = []

    def engine(model: PreTrainedModel | None = None, **options: object) -> LocalEngine:
        options = {"context": 512, **options}
        made.append(LocalEngine(copy.deepcopy(model or plain), "hash", **options))  # type: ignore[arg-type]
        return made[-1]

    yield engine
    for e in made:
        e.close()
