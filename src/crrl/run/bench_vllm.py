"""`crrl bench vllm`: agents through our gateway against raw requests to the same vLLM server, and what a push costs.

Both sides ask for the same: what the gateway asked the server for is asked again without it, prompt for prompt, and as
many tokens; both begin with an empty prefix cache. They take turns, so that other jobs on the machine hit both. The
time to the first token that we add is taken request by request: from the agent's request to the engine's, and from the
engine's token to the agent's text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from crrl import engines
from crrl.engines.api import Chunk, Engine, EngineInfo, Request
from crrl.engines.load import load_model
from crrl.engines.vllm import protocol
from crrl.engines.vllm.engine import VllmEngine
from crrl.errors import UsageError
from crrl.gateway import Budget, Gateway, Renderer, load_renderer
from crrl.learning.push import ModuleWeights
from crrl.models import model_folder
from crrl.sandbox import default_state_dir

SESSIONS, TURNS, TOKENS, ROUNDS = 32, 4, 48, 5
TEXT = "def add(a, b):\n    return a - b\n" * 4
PUSHES = 5
TARGET, TARGET_MS = 0.95, 5.0
_BUDGET = Budget(tokens=1 << 30, turns=1 << 30)


@dataclass(frozen=True)
class Pushed:
    """`seconds`: of a whole push, proof included; `held_s`: of these, generations were frozen; medians. `gap`: the
    largest difference between engine and trainer, in nats."""

    transport: str
    parameters: int
    seconds: float
    held_s: float
    gap: float


@dataclass(frozen=True)
class VllmBench:
    """`raw`, `gateway`: tokens per second of each round. `added_ms`: to the first token, of each request. `cpu_ms`: of
    the gateway's process, a request."""

    raw: list[float]
    gateway: list[float]
    added_ms: list[float]
    cpu_ms: float
    pushes: list[Pushed]
    load: str

    def lines(self) -> list[str]:
        ratios = [ours / raw for ours, raw in zip(self.gateway, self.raw, strict=True)]
        added = sorted(self.added_ms)
        return [
            f"{SESSIONS} agents through the gateway over vLLM, {TURNS} turns of {TOKENS} tokens or less; "
            f"load {self.load}:",
            f"  tokens per second      {', '.join(f'{rate:.0f}' for rate in self.gateway)}",
            f"  raw requests           {', '.join(f'{rate:.0f}' for rate in self.raw)}",
            f"  ratio, median          {statistics.median(ratios):.3f}   (target: {TARGET:g})",
            f"  to the first token     {added[len(added) // 2]:.1f} ms more, median; {added[len(added) * 9 // 10]:.1f} "
            f"at the 90th percentile   (target: {TARGET_MS:g})",
            f"  CPU of the gateway     {self.cpu_ms:.1f} ms a request",
            "A push, proved, while four generations go on:",
            "  transport     parameters   seconds      held   gap, nats",
            *(
                f"  {p.transport:10}{p.parameters:14,}{p.seconds:10.2f}{p.held_s:10.2f}{p.gap:12.1e}"
                for p in self.pushes
            ),
        ]


def bench(
    model: str = "tiny", transports: str = "disk,stream,adapter", renderer: str = "qwen3", rounds: int = ROUNDS
) -> VllmBench:
    """`rounds`: of agents and raw requests in turns. `renderer`: the model's."""
    words = transports.split(",")
    if unknown := set(words) - {"disk", "stream", "adapter"}:
        raise UsageError(f"transports={transports}: there is no {sorted(unknown)[0]}.", "Write transports=disk,stream.")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    load = Path("/proc/loadavg").read_text().split()[0]
    folder, pushes = model_folder(model), list[Pushed]()
    rendered = load_renderer(folder, renderer)
    with _started(folder, "disk") as engine:
        raw, ours, added, cpu_ms = asyncio.run(_agents(engine, rendered, rounds))
        if "disk" in words:
            words.remove("disk")
            pushes.append(asyncio.run(_push(engine, "disk", folder)))
    for word in words:
        with _started(folder, word) as engine:
            pushes.append(asyncio.run(_push(engine, word, folder)))
    return VllmBench(raw, ours, added, cpu_ms, pushes, load)


@contextlib.contextmanager
def _started(model: Path, transport: str) -> Iterator[VllmEngine]:
    own = {
        **{"memory_gb": 1, "memory_share": 0.9, "tensor_parallel": 1, "install": False, "rank": RANK},
        **{"environment": str(default_state_dir() / "engines" / "vllm"), "transport": transport},
    }
    made: VllmEngine = engines.make("vllm", model, context=1024, max_batch=64, trained=True, own=own)
    try:
        made.start(lambda said: print(f"# {said}", file=sys.stderr, flush=True), lambda error: None)
        yield made
    finally:
        made.close()


# Agents -------------------------------------------------------------------------------------------------------------


@dataclass
class _Timed:
    """An engine, with the times at which it was asked and said something, by session."""

    inner: Engine
    asked: dict[str, list[tuple[Request, float, list[float], int]]] = field(default_factory=lambda: defaultdict(list))

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        times: list[float] = []
        at, count = time.monotonic(), 0
        place = self.asked[request.scope]
        place.append((request, at, times, 0))
        number = len(place) - 1
        async with contextlib.aclosing(self.inner.generate(request)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                times.append(time.monotonic())
                count += len(chunk.ids)
                place[number] = (request, at, times, count)
                yield chunk

    async def score(self, ids: list[int]) -> list[float]:
        return await self.inner.score(ids)

    async def cancel(self, id: str) -> None:
        await self.inner.cancel(id)

    async def info(self) -> EngineInfo:
        return await self.inner.info()


async def _agents(
    engine: VllmEngine, renderer: Renderer, rounds: int
) -> tuple[list[float], list[float], list[float], float]:
    raw, ours, added, cpu = list[float](), list[float](), list[float](), 0.0
    connection = engines.connect(engine.address)
    for number in range(rounds + 1):  # the first warms both up
        timed = _Timed(connection)
        gateway = Gateway(timed, renderer)
        await gateway.start()
        host, _, port = gateway.base_url.removeprefix("http://").partition(":")
        names = [f"r{number}-{i}" for i in range(SESSIONS)]
        paths = [gateway.open(name, _BUDGET).base_url.removeprefix(gateway.base_url) for name in names]
        spec = {"mode": "chat", "sessions": paths, "turns": TURNS, "tokens": TOKENS, "text": TEXT}
        _forget(engine)
        used = time.process_time()
        done = await _play({**spec, "host": host, "port": int(port)})
        used = time.process_time() - used
        for name in names:
            await gateway.close(name)
        await gateway.stop()
        asked = [timed.asked[key] for key in timed.asked]
        counts = sum(count for session in asked for *_, count in session)
        bodies = [[_body(engine, request, count) for request, _, _, count in session if count] for session in asked]
        socket = str(engine.replicas[0].server.socket)  # type: ignore[union-attr]
        _forget(engine)  # or it would know the very prompts that the gateway has just asked
        bare = await _play({"mode": "raw", "socket": socket, "sessions": bodies})
        if number:
            ours.append(counts / done["wall_s"])
            raw.append(counts / bare["wall_s"])
            cpu += used / (SESSIONS * TURNS * rounds)
            added += _added(done["seen"], asked)
    await connection.close()
    return raw, ours, added, 1000 * cpu


def _forget(engine: VllmEngine) -> None:
    for replica in engine.replicas:
        with replica.server.http() as http:
            replica.drop_caches(http)


def _body(engine: VllmEngine, request: Request, count: int) -> dict[str, Any]:
    """As the gateway asked, for as many tokens as it got."""
    asked = Request(f"raw-{request.id}", request.prompt_ids, count, request.temperature, scope=request.scope)
    return {"model": engine.replicas[0].model, **protocol.body(asked, 1024, seeded=False)}


def _added(seen: list[list[tuple[float, float]]], asked: list[Any]) -> list[float]:
    """Milliseconds of each request: before the engine was asked, and from what it said to what the agent saw of it."""
    by_start = {session[0][1]: session for session in asked}
    found = []
    for turns in sorted(seen, key=lambda turns: turns[0][0]):
        start = min((at for at in by_start if at >= turns[0][0]), default=None)
        if start is None:
            continue
        for (sent, first), (_, called, times, _) in zip(turns, by_start.pop(start), strict=False):
            said = [at for at in times if at <= first]
            if first and said:
                found.append(1000 * ((called - sent) + (first - said[-1])))
    return found


async def _play(spec: dict[str, Any]) -> dict[str, Any]:
    script = str(Path(__file__).with_name("bench_vllm_load.py"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, script, stdin=pipe, stdout=pipe, limit=1 << 30)
    said, _ = await process.communicate(json.dumps(spec).encode())
    if process.returncode:
        raise RuntimeError("the load generator failed")
    return dict(json.loads(said))


# Pushes -------------------------------------------------------------------------------------------------------------

RANK = 16


async def _push(engine: VllmEngine, transport: str, folder: Path) -> Pushed:
    from crrl.conf.schema import Adapter
    from crrl.learning import lora
    from crrl.learning.logprobs import score

    policy: Any = load_model(folder)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    if transport == "adapter":
        policy = lora.new(policy, Adapter(name="lora", r=RANK, alpha=2 * RANK), 0)
        parameters = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    policy.eval()
    held = list[float]()
    replica = engine.replicas[0]
    change = replica._change

    def timed(folder: Path, version: int) -> None:
        began = time.monotonic()
        change(folder, version)
        held.append(time.monotonic() - began)

    replica._change = timed  # type: ignore[method-assign]
    connection = engines.connect(engine.address)
    streams = [asyncio.create_task(_endless(connection, number)) for number in range(4)]
    seconds, gaps = list[float](), list[float]()
    noise = torch.Generator().manual_seed(0)
    for version in range(1, PUSHES + 1):
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter.add_(1e-3 * torch.randn(parameter.shape, generator=noise))
        began = time.monotonic()
        probe = await engine.push(ModuleWeights(policy), version)
        seconds.append(time.monotonic() - began)
        wanted = await asyncio.to_thread(score, policy, probe.ids)
        gaps.append(max(abs(a - b) for a, b in zip(probe.logprobs, wanted, strict=True)))
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    await connection.close()
    return Pushed(transport, parameters, statistics.median(seconds), statistics.median(held), max(gaps))


async def _endless(engine: Engine, number: int) -> None:
    turn = 0
    while True:
        turn += 1
        async for _ in engine.generate(Request(f"{number}-{turn}", [7 + number] * 40, 900)):
            pass
