"""`crrl sft DATA...`: the rows of runs and chats, the model, TRL's trainer, a model folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from crrl.conf.load import load_saved
from crrl.conf.schema import RowsConfig
from crrl.console.display import Display
from crrl.engines.adapter import is_adapter
from crrl.engines.load import load_model, load_tokenizer, tokenizer_hash
from crrl.gateway.renderer import load_renderer
from crrl.learning import lora, sft, sft_rows
from crrl.models import model_folder


def run(config: RowsConfig, live: bool | None) -> dict[str, Any]:
    """Returns what `sft.json` in the model's folder says. Raises CrrlError."""
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    torch.manual_seed(config.seed)
    source = model_folder(config.model.path)
    tokenizer = load_tokenizer(source, config.model.base)
    data = [Path(word) for word in config.data]
    same = {path: _same_tokens(path, tokenizer) for path in data if path.is_dir()}
    with Display(live=live) as display:
        display.phase("read", 0)
        renderer = load_renderer(tokenizer, config.renderer.key)
        found = sft_rows.read(data, renderer, config.episodes, config.tokens_per_pack, same, tokenizer_hash(tokenizer))
        for line in sft_rows.summary(found):
            display.note(line)
        moved = config.model.base
        model = lora.trainable(source, config.adapter, config.seed, base=moved)
        # Without a new adapter, the model that it starts from is not the model without its adapter.
        apart = config.beta and (config.adapter.name == "none" or is_adapter(source))
        base = load_model(source, base=moved) if apart else None

        def show(done: int, planned: int, numbers: dict[str, float]) -> None:
            if numbers:
                display.advance(1, **numbers)
            else:
                display.phase("sft", planned)
                display.advance(done)

        return sft.fine_tune(model, base, tokenizer, found.rows, config, show)


def _same_tokens(run: Path, tokenizer: Any) -> bool:
    """The run's policy: its newest checkpoint, or what it started from."""
    from crrl.learning.checkpoint import checkpoints

    newest = checkpoints(run / "checkpoints")
    trained = newest[-1] if newest else model_folder(load_saved(run / "config.yaml").model.path)
    return tokenizer_hash(load_tokenizer(trained)) == tokenizer_hash(tokenizer)
