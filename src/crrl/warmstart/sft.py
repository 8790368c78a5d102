"""SFT of the tiny policy on the pool: Muon for the hidden matrices, AdamW for the rest, an EMA of the weights.

Resumable: the state (weights, EMA, optimizers, step) is written atomically every `SAVE_EVERY` steps, and batch k
depends on (seed, k) only, so a run that is killed at any instant resumes as if nothing had happened.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from crrl.engines.load import load_model, load_tokenizer
from crrl.models import model_folder
from crrl.warmstart.muon import Muon
from crrl.warmstart.pool import Pool

SAVE_EVERY = 20
BATCHES_PER_BUCKET = 12
CONTEXT_WEIGHT = 0.3


@dataclass(frozen=True)
class SftSettings:
    """Settings of the warm start's SFT.

    Args:
        steps, batch: optimizer steps, and demonstrations in each.
        lr_muon, lr_adam: peak learning rates; warm-up over 40 steps, linear decay over the last `decay` of the run.
        ema: decay of the averaged weights, which are the ones exported.
        threads: torch threads.
    """

    steps: int = 4000
    batch: int = 32
    lr_muon: float = 0.02
    lr_adam: float = 4e-3
    decay: float = 0.6
    ema: float = 0.99
    seed: int = 1
    threads: int = 2


def new_model(vocab_size: int, end_id: int, pad_id: int, seed: int = 0) -> Qwen3ForCausalLM:
    """Qwen3's shape at about a million parameters: width 128, 4 layers, 4 heads; output projections start at zero."""
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=384,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=pad_id,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(parameter)
    return model


def grown_model(base: str, tokenizer: Any) -> Qwen3ForCausalLM:
    """A policy to go on from, with rows for the tokens that its tokenizer has got since. Each begins as the mean of
    what its text was before: begun alike, markers are told apart later. Raises CrrlError."""
    model: Any = load_model(model_folder(base))
    before = load_tokenizer(model_folder(base))
    old = model.config.vocab_size
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        for id in range(old, len(tokenizer)):
            rows[id] = rows[before(tokenizer.decode([id]), add_special_tokens=False)["input_ids"]].mean(dim=0)
    grown: Qwen3ForCausalLM = model
    return grown


def bucketed(pool: Pool, batch: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of demonstrations of similar length (little padding), in an order fixed by `seed`."""
    epoch = 0
    while True:
        rng = random.Random(f"{seed}/{epoch}")
        order = list(range(len(pool)))
        rng.shuffle(order)
        chunk = batch * BATCHES_PER_BUCKET
        for start in range(0, len(order) - chunk + 1, chunk):
            bucket = sorted(order[start : start + chunk], key=pool.length)
            batches = [bucket[i : i + batch] for i in range(0, chunk, batch)]
            rng.shuffle(batches)
            yield from batches
        epoch += 1


def loss_of(model: Qwen3ForCausalLM, ids_BT: torch.Tensor, weight_BT: torch.Tensor) -> torch.Tensor:
    """Weighted mean of the next-token cross-entropy."""
    hidden = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden)
    losses = F.cross_entropy(logits.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
    weight = weight_BT[:, 1:].flatten()
    return (losses * weight).sum() / weight.sum()


def train(
    pool: Pool,
    model: Qwen3ForCausalLM,
    settings: SftSettings,
    state_file: Path,
    report: Callable[[int, float, float], None],
) -> Qwen3ForCausalLM:
    """Train `model` to the end of the schedule, resuming from `state_file` if it exists. Returns the averaged model.

    Calls `report(step, loss, tokens_per_second)` every 20 steps.
    """
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(settings.seed)
    averaged = Qwen3ForCausalLM(model.config)
    averaged.load_state_dict(model.state_dict())
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=settings.lr_muon),
        torch.optim.AdamW(others, lr=settings.lr_adam, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    peaks = [settings.lr_muon, settings.lr_adam]
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
    model.train()
    parameters: list[torch.Tensor] = list(model.parameters())
    averages: list[torch.Tensor] = list(averaged.parameters())
    batches = bucketed(pool, settings.batch, settings.seed)
    for _ in range(first):
        next(batches)
    losses: list[float] = []
    tokens, since = 0, time.monotonic()
    for step in range(first, settings.steps):
        ids, weights = pool.batch(next(batches), CONTEXT_WEIGHT)
        loss = loss_of(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        left = 1 - step / settings.steps
        scale = min(1.0, (step + 1) / 40) * min(1.0, left / settings.decay + 0.01)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - min(settings.ema, step / (step + 10)))
        losses.append(loss.item())
        tokens += ids.numel()
        if (step + 1) % 20 == 0:
            report(step + 1, sum(losses[-20:]) / len(losses[-20:]), tokens / (time.monotonic() - since))
            tokens, since = 0, time.monotonic()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == settings.steps:
            _save(
                state_file,
                {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimizers": [o.state_dict() for o in optimizers],
                },
            )
    return averaged.eval()


def _save(path: Path, state: dict[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
