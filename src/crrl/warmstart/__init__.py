"""Makes the shipped tiny policy from scratch: `crrl sft warmstart`.

Trains a tokenizer on rendered demonstrations, turns demonstrations into a pool of token ids on disk, runs SFT on it,
and exports a Hugging Face model folder. The state folder keeps every stage, so an interrupted run resumes where it
stopped. Then measure the policy through the real loop: `crrl eval runs/warmstart/model`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crrl.conf.schema import WarmstartConfig

VOCABULARY = 1024
TOKENIZER_SAMPLE = 1500  # demonstrations


def make(config: WarmstartConfig) -> None:
    """Run the recipe to its end, printing progress; afterwards the model is in `config.out`."""
    from crrl.agents.prompts import load_prompts
    from crrl.engines.load import load_tokenizer
    from crrl.warmstart import pool, sft
    from crrl.warmstart.tokenizer import train_tokenizer

    started = time.monotonic()
    state = Path(config.state_dir)
    state.mkdir(parents=True, exist_ok=True)
    prompts = load_prompts("tiny")
    tools = prompts.tools()
    threads = config.threads or os.cpu_count() or 1
    pool_settings = pool.PoolSettings(
        size=config.pool_size,
        random_share=config.random_share,
        mistakes=config.mistakes,
        seed=config.seed,
        processes=threads,
    )
    tokenizer_folder = state / "tokenizer"
    if not (tokenizer_folder / "tokenizer.json").exists():
        sample = pool.demonstrations(pool_settings, 0, TOKENIZER_SAMPLE, prompts.user, tools)
        texts = ("".join(segment.text for segment in episode) for episode in sample)
        train_tokenizer(texts, tools, VOCABULARY).save_pretrained(tokenizer_folder)
    tokenizer: Any = load_tokenizer(tokenizer_folder)
    say = partial(print, flush=True)
    made = pool.make_pool(
        pool_settings, tokenizer, prompts.user, tools, state / "pool",
        lambda done, total: say(f"demonstrations: {done}/{total} shards"),
    )  # fmt: skip
    say(f"{len(made)} demonstrations, {len(made.ids)} tokens, vocabulary {len(tokenizer)}")
    settings = sft.SftSettings(
        steps=config.steps,
        batch=config.batch,
        lr_muon=config.lr_muon,
        lr_adam=config.lr_adam,
        decay=config.decay,
        ema=config.ema,
        seed=config.seed,
        threads=threads,
    )
    model = sft.new_model(
        len(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.pad_token_id, settings.seed
    )
    model = sft.train(
        made, model, settings, state / "sft.pt",
        lambda step, loss, speed: say(f"SFT: step {step}/{config.steps}, loss {loss:.4f}, {speed:.0f} tokens/s"),
    )  # fmt: skip
    out = Path(config.out)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    facts = {
        "sha256": digest,
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": {key: value for key, value in vars(config).items() if key not in ("out", "state_dir")},
    }
    (out / "made.json").write_text(json.dumps(facts, indent=1, default=str) + "\n")
    say(f"Made {out} in {time.monotonic() - started:.0f} s (this run). Measure it: crrl eval {out}")
