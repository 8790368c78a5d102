"""`crrl bench engine`: the local engine against transformers' `generate`, in the same run, on one core.

The work: a 4-layer, hidden-256, Qwen3-shaped random model; 16 requests of 256 tokens over a shared 900-token prefix.
It runs twice: from scratch, prompts included, as you would call the two; and only decoding, with the prefix's keys and
values computed for both before the clock starts. The unit is tokens per CPU-second of this process, which a busy
machine disturbs less than wall time.
"""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from crrl.engines.api import Request
from crrl.engines.local import LocalEngine

REQUESTS, TOKENS, PREFIX = 16, 256, 900
VLLM_TOKENS_PER_CPU_S = 512.0
"""vLLM on a CPU of this class with this model and load, as quoted in the issue; not measured here."""


@dataclass(frozen=True)
class EngineBench:
    """Rates are sampled tokens per CPU-second. `largest_difference`: of log-probs, to a plain float32 pass.

    `vllm`: measured here if $CRRL_VLLM_PYTHON names an interpreter that has vllm, else None.
    """

    engine: float
    generate: float
    engine_decoding: float
    generate_decoding: float
    small_engine: float
    small_requests: float
    largest_difference: float
    vllm: float | None

    def lines(self) -> list[str]:
        vllm = f"{self.vllm:.0f}" if self.vllm else f"not installed (quoted: {VLLM_TOKENS_PER_CPU_S:.0f})"
        return [
            f"{REQUESTS} requests x {TOKENS} tokens over a shared {PREFIX}-token prefix, tokens per CPU-second:",
            "                          whole   decoding alone",
            f"  crrl local engine      {self.engine:8.0f} {self.engine_decoding:12.0f}",
            f"  transformers generate  {self.generate:8.0f} {self.generate_decoding:12.0f}",
            f"  ratio                  {self.engine / self.generate:8.1f} "
            f"{self.engine_decoding / self.generate_decoding:12.1f}",
            f"  vLLM on CPU            {vllm}",
            f"  largest log-prob difference to a float32 forward pass: {self.largest_difference:.1e}",
            "64 short requests (150 + 15 tokens, d = 128, 90 tokens of prompt new to the cache):",
            f"  {self.small_engine:.0f} tokens and {self.small_requests:.0f} requests per CPU-second",
        ]


def model(hidden: int, heads: int, vocab: int) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=4,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=hidden // heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config).eval()


async def _collect(engine: LocalEngine, request: Request) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    logprobs: list[float] = []
    async for chunk in engine.generate(request):
        ids += chunk.ids
        logprobs += chunk.logprobs
    return ids, logprobs


async def _timed(engine: LocalEngine, requests: list[Request]) -> tuple[float, list[tuple[list[int], list[float]]]]:
    start = time.process_time()
    answers = await asyncio.gather(*(_collect(engine, r) for r in requests))
    return time.process_time() - start, answers


def _engine(plain: PreTrainedModel, warm: bool) -> tuple[float, float]:
    vocab = plain.config.vocab_size
    prefix = [(i * 7919) % vocab for i in range(PREFIX)]
    requests = [Request(str(i), [*prefix, i], TOKENS, seed=i) for i in range(REQUESTS)]
    engine = LocalEngine(copy.deepcopy(plain), "bench", context=PREFIX + TOKENS + 8)

    async def run() -> tuple[float, list[tuple[list[int], list[float]]]]:
        if warm:
            await _collect(engine, Request("warm", [*prefix, 0], 1))
        return await _timed(engine, requests)

    seconds, answers = asyncio.run(run())
    engine.close()
    worst = 0.0
    for request, (ids, logprobs) in zip(requests, answers, strict=True):
        everything = torch.tensor([request.prompt_ids + ids])
        with torch.inference_mode():
            logits_TV = plain(everything, use_cache=False).logits[0, PREFIX:-1].float()
        expected = torch.log_softmax(logits_TV, -1).gather(1, everything[0, PREFIX + 1 :, None])[:, 0]
        worst = max(worst, (expected - torch.tensor(logprobs)).abs().max().item())
    return REQUESTS * TOKENS / seconds, worst


def _generate(plain: PreTrainedModel, warm: bool) -> float:
    """Its best: SDPA, one batch, no log-probs asked for; `warm`: the prefix's cache computed beforehand."""
    plain.set_attn_implementation("sdpa")
    vocab = plain.config.vocab_size
    prefix = [(i * 7919) % vocab for i in range(PREFIX)]
    ids = torch.tensor([[*prefix, i] for i in range(REQUESTS)])
    with torch.inference_mode():
        cache = DynamicCache(config=plain.config)
        if warm:
            plain(ids[:, :PREFIX], past_key_values=cache, use_cache=True, logits_to_keep=1)
        start = time.process_time()
        module: Any = plain
        out = module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            do_sample=True,
            top_k=0,
            min_new_tokens=TOKENS,
            max_new_tokens=TOKENS,
            pad_token_id=0,
        )
        seconds = time.process_time() - start
    assert out.shape == (REQUESTS, PREFIX + 1 + TOKENS)
    return REQUESTS * TOKENS / seconds


def _small() -> tuple[float, float]:
    engine = LocalEngine(model(128, 4, 1024), "bench", context=1024)
    count, tokens = 64, 15

    def requests(run: int) -> list[Request]:
        shared = [(37 * i) % 1024 for i in range(60)]
        return [
            Request(str(i), shared + [(13 * i + 7 * j + 331 * run) % 1024 for j in range(90)], tokens, seed=i)
            for i in range(count)
        ]

    async def run() -> float:
        await _timed(engine, requests(0))
        return sum([(await _timed(engine, requests(i)))[0] for i in (1, 2)]) / 2

    seconds = asyncio.run(run())
    engine.close()
    return count * tokens / seconds, count / seconds


def _vllm(plain: PreTrainedModel) -> float | None:
    """Tokens per CPU-second of vLLM's own processes on the same load, offline."""
    python = os.environ.get("CRRL_VLLM_PYTHON")
    if not python:
        return None
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        script = Path(__file__).with_name("engine_vllm.py")
        out = subprocess.run(
            [python, str(script), folder, str(REQUESTS), str(TOKENS), str(PREFIX)],
            capture_output=True,
            text=True,
            check=True,
        )
    return float(out.stdout.split()[-1])


def bench() -> EngineBench:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = model(256, 4, 4096)
        whole, worst = _engine(plain, warm=False)
        decoding, worst_warm = _engine(plain, warm=True)
        generate = (_generate(plain, warm=False), _generate(plain, warm=True))
        difference = max(worst, worst_warm)
        return EngineBench(whole, generate[0], decoding, generate[1], *_small(), difference, _vllm(plain))
    finally:
        torch.set_num_threads(threads)
