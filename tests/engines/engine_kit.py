"""Small real models and the collecting of streams, for the tests of this room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from crrl.engines import Request
from crrl.engines.api import Engine

VOCAB = 97
torch.set_num_threads(1)


def tiny_qwen3(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    return Qwen3ForCausalLM(config).eval()


def plain_logprobs(model: PreTrainedModel, ids: list[int], temperature: float = 1.0) -> list[float]:
    """log p(ids[i] | ids[:i]) for i >= 1 by the model's own forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].float() / temperature
    return torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


class Answer:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.versions: list[int] = []
        self.finish: str | None = None
        self.chunks = 0


async def collect(engine: Engine, request: Request, into: Answer | None = None) -> Answer:
    answer = into or Answer(request)
    async for chunk in engine.generate(request):
        assert len(chunk.ids) == len(chunk.logprobs) == len(chunk.versions)
        assert answer.finish is None
        answer.ids += chunk.ids
        answer.logprobs += chunk.logprobs
        answer.versions += chunk.versions
        answer.finish = chunk.finish
        answer.chunks += 1
    return answer


async def collect_all(engine: Engine, requests: list[Request]) -> list[Answer]:
    return list(await asyncio.gather(*(collect(engine, r) for r in requests)))


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
