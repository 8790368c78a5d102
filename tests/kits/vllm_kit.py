"""A real vLLM server on the CPU with the shipped policy, and what is asked of it. `make vllm` installs it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import PreTrainedModel

from crrl import engines
from crrl.engines import Chunk, Engine, Request
from crrl.engines.vllm.engine import VllmEngine
from crrl.errors import CrrlError
from crrl.learning.logprobs import score
from crrl.models import model_folder
from crrl.sandbox import default_state_dir

ENVIRONMENT = Path(os.environ.get("CRRL_VLLM") or default_state_dir() / "engines" / "vllm")
STOP = 2


def vllm_engine(model: Path | None = None, **changed: Any) -> VllmEngine:
    """Not started."""
    if not {"url", "environment"} & set(changed) and not (ENVIRONMENT / ".installed").is_file():
        pytest.fail(f"vLLM is not installed in {ENVIRONMENT}: make vllm")
    common = {"context": None, "max_batch": 32, "device": "cpu", "dtype": "float32", "trained": True, "version": 0}
    own: dict[str, Any] = {"memory_gb": 1, "memory_share": 0.9, "tensor_parallel": 1, "install": False}
    for key in [key for key in changed if key not in (*common, "base")]:
        own[key] = changed.pop(key)
    own.setdefault("environment", str(ENVIRONMENT))
    made: VllmEngine = engines.make("vllm", model or model_folder("tiny"), own=own, **(common | changed))
    return made


def started(engine: VllmEngine, failed: Callable[[CrrlError], None] | None = None) -> VllmEngine:
    try:
        engine.start(lambda said: print(said, flush=True), failed or (lambda error: print(error, flush=True)))
    except BaseException:
        engine.close()
        raise
    return engine


class Answer:
    """All of one generation."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.chunks: list[Chunk] = []

    ids = property(lambda self: [id for chunk in self.chunks for id in chunk.ids])
    logprobs = property(lambda self: [value for chunk in self.chunks for value in chunk.logprobs])
    versions = property(lambda self: [version for chunk in self.chunks for version in chunk.versions])
    finish = property(lambda self: self.chunks[-1].finish if self.chunks else None)


async def ask(engine: Engine, request: Request, into: Answer | None = None) -> Answer:
    answer = into or Answer(request)
    async for chunk in engine.generate(request):
        answer.chunks.append(chunk)
    return answer


async def ask_all(engine: Engine, requests: Sequence[Request]) -> list[Answer]:
    return list(await asyncio.gather(*(ask(engine, request) for request in requests)))


def prompt(seed: int, length: int = 40) -> list[int]:
    return torch.randint(5, 900, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


SESSIONS, LONG = 16, 900
"""So many answers of so many tokens at the same time that none ends before what is done meanwhile."""


async def meanwhile(client: Any, doing: Callable[[], Awaitable[None]], sessions: int) -> list[Answer]:
    """Sessions that ask one thing after another while something is done: their answers. With many of them a server has
    sampled to the end what it has not sent yet, so that few or none are under way."""
    done = asyncio.Event()
    of: list[list[Answer]] = [[] for _ in range(sessions)]

    async def session(number: int) -> None:
        answers = of[number]
        while not done.is_set():
            seed = 100 * number + len(answers)
            request = Request(f"m{seed}", prompt(seed), LONG - 40 * number, seed=seed, scope=f"session-{number}")
            answers.append(Answer(request))
            await ask(client, request, answers[-1])

    asking = [asyncio.create_task(session(number)) for number in range(sessions)]
    async with asyncio.timeout(120):
        while not all(len(a) > 1 and a[1].ids for a in of):  # noqa: ASYNC110 (by then they are out of step)
            await asyncio.sleep(0.02)
    await doing()
    done.set()
    await asyncio.gather(*asking)
    return [answer for answers in of for answer in answers]


def gap(answer: Answer, model: PreTrainedModel, temperature: float = 1.0) -> float:
    """The largest difference between an answer's log-probs and the trainer's."""
    ids = answer.ids
    whole = answer.request.prompt_ids + ids
    if temperature == 1.0:
        wanted = score(model, whole)[-len(ids) :]
    else:
        with torch.no_grad():
            logits = model(torch.tensor([whole]), use_cache=False).logits[0, :-1].float() / temperature
        logps = torch.log_softmax(logits, -1)
        wanted = logps.gather(-1, torch.tensor(whole[1:]).unsqueeze(-1)).squeeze(-1).tolist()[-len(ids) :]
    return max(abs(a - b) for a, b in zip(answer.logprobs, wanted, strict=True))


def changed(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Another policy of the same shape."""
    other = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 0.05 * torch.randn(parameter.shape, generator=noise))
    return other


def processes(engine: VllmEngine, number: int = 0) -> list[psutil.Process]:
    """Of one of its servers, all that run."""
    pid = engine.replicas[number].server.pid
    assert pid is not None
    keeper = psutil.Process(pid)
    return [keeper, *keeper.children(recursive=True)]


@contextlib.asynccontextmanager
async def forwarding(socket: Path) -> AsyncIterator[str]:
    """The server at a socket, over TCP: its URL."""

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
        target.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, out = await asyncio.open_unix_connection(str(socket))
        await asyncio.gather(pump(reader, out), pump(inside, writer))

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as tcp:
        yield f"http://127.0.0.1:{tcp.sockets[0].getsockname()[1]}"


RECORDINGS = Path(__file__).parents[1] / "engines" / "recorded" / "vllm.json"
RECORDED = {
    "stop": Request("stop", prompt(0), 64, stop_ids=list(range(0, 900, 3)), scope="attempt"),
    "length": Request("length", prompt(1), 6, scope="attempt"),
    "greedy": Request("greedy", prompt(2), 6, temperature=0.0, scope="attempt"),
    "pushed": Request("pushed", prompt(3), 250, scope="attempt"),
}
"""What was asked of the server in `RECORDINGS`."""
