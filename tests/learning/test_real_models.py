"""Pretrained models that `make model` assembles, where they are: in models/, or in the folder CRRL_MODELS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from crrl.engines.load import load_local, load_model, load_tokenizer
from crrl.learning.logprobs import score
from crrl.learning.memory import shape_of
from crrl.learning.push import BOUND, push_and_prove

pytestmark = [pytest.mark.models, pytest.mark.timeout(1200)]
FOLDER = Path(os.environ.get("CRRL_MODELS") or Path(__file__).parents[2] / "models")
PARAMETERS = {"smollm2-135m": 134_515_008, "qwen2.5-coder-0.5b": 494_032_768}


@pytest.fixture(params=PARAMETERS)
def folder(request: pytest.FixtureRequest) -> Path:
    found = FOLDER / request.param
    if not (found / "config.json").is_file():
        pytest.skip(f"{found} is not there: make model MODEL={request.param}")
    return found


def test_it_is_the_published_model(folder: Path) -> None:
    """Its parameters once tied, its special tokens as one id each, and code that it finds likely."""
    shape = shape_of(folder)
    assert shape.parameters == PARAMETERS[folder.name] and shape.tied
    tokenizer: Any = load_tokenizer(folder)
    for token in tokenizer.added_tokens_encoder:
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1
    text = "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a -"
    ids = tokenizer.encode(text, add_special_tokens=False)
    model: Any = load_model(folder)
    with torch.inference_mode():
        assert tokenizer.decode(model(torch.tensor([ids])).logits[0, -1].argmax().item()) == " b"


async def test_the_engine_serves_it_and_takes_a_push(folder: Path) -> None:
    engine = await asyncio.to_thread(load_local, folder, context=512)
    model = load_model(folder)
    try:
        tokenizer: Any = load_tokenizer(folder)
        ids = tokenizer.encode("import os\n\n\ndef show(path):\n    for name in os.listdir(path):\n        print(name)")
        assert await engine.score(ids) == pytest.approx(score(model, ids), abs=1e-3)
        with torch.no_grad():
            model.get_parameter("model.layers.0.mlp.down_proj.weight").mul_(0.9)
        assert await push_and_prove(engine, model, 1) < BOUND
    finally:
        engine.close()


@pytest.mark.parametrize("words", [(), ("lora=16", "checkpointing=1")], ids=["full", "lora"])
def test_the_estimate_is_the_measured_peak(folder: Path, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "crrl.learning.peak", str(folder), "tokens=512", "row=512", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15)
