"""Makes tiny policies: `crrl sft warmstart` the shipped one, from scratch; `crrl sft warmstart-FORM` those of others.

Trains a tokenizer on rendered demonstrations, or adds the form's fixed texts to the one of the policy it starts from;
turns demonstrations into a pool of token ids on disk, runs SFT on it, and exports a Hugging Face model folder. The
state folder keeps every stage, so an interrupted run resumes where it stopped. `form.py` says how to add a form.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crrl.errors import UsageError, nearest
from crrl.warmstart.form import FORMS, Form, PoolSettings, find

if TYPE_CHECKING:
    from crrl.conf.schema import WarmstartConfig

VOCABULARY = 1024
TOKENIZER_SAMPLE = 1500  # demonstrations


def check(config: WarmstartConfig, written: Iterable[str]) -> None:
    """Raises UsageError: a value that cannot work, or a setting in `written` that would change nothing."""
    from crrl.models import SHIPPED
    from crrl.warmstart.form import SHARD

    if config.form not in FORMS:
        raise UsageError(f"form={config.form} does not exist.", nearest(config.form, FORMS))
    if config.base and config.base not in SHIPPED and not Path(config.base).is_dir():
        raise UsageError(f"base={config.base}: there is no such folder.", "Write base=tiny, or a model folder.")
    if "mistakes" in written and config.form != "tools":
        raise UsageError("mistakes would be ignored: only form=tools shows refused edits.", "Leave mistakes out.")
    if config.pool_size < SHARD:
        raise UsageError(f"pool_size={config.pool_size} is too small.", f"Write pool_size={SHARD} or more.")


def make(config: WarmstartConfig) -> None:
    """Run the recipe to its end, printing progress; afterwards the model is in `config.out`."""
    from crrl.warmstart import pool, sft

    started = time.monotonic()
    state = Path(config.state_dir)
    state.mkdir(parents=True, exist_ok=True)
    form = find(config.form)
    threads = config.threads or os.cpu_count() or 1
    pool_settings = PoolSettings(
        size=config.pool_size,
        random_share=config.random_share,
        mistakes=config.mistakes,
        seed=config.seed,
        processes=threads,
    )
    tokenizer: Any = _tokenizer(state / "tokenizer", form, pool_settings, config.base)
    say = partial(print, flush=True)
    made = pool.make_pool(
        pool_settings, tokenizer, form, state / "pool",
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
    if config.base:
        model = sft.grown_model(config.base, tokenizer)
    else:
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
    say(
        f"Made {out} in {time.monotonic() - started:.0f} s (this run).\nNext:\n"
        f"  crrl eval {out} {form.agent}\n  crrl train {form.recipe} model.path={out}"
    )


def _tokenizer(folder: Path, form: Form, settings: PoolSettings, base: str) -> Any:
    """A new one of the form's demonstrations, or that of `base` with the form's fixed texts."""
    from crrl.engines.load import load_tokenizer
    from crrl.models import model_folder
    from crrl.warmstart.tokenizer import grown, train_tokenizer

    if not (folder / "tokenizer.json").exists():
        if base:
            made: Any = grown(load_tokenizer(model_folder(base)), form.whole)
        else:
            sample = form.demonstrations(settings, 0, TOKENIZER_SAMPLE)
            texts = ("".join(segment.text for segment in episode) for episode in sample)
            made = train_tokenizer(texts, form.whole, VOCABULARY)
        made.save_pretrained(folder)
    return load_tokenizer(folder)
