"""`crrl bench gateway`: the cost of the gateway on top of the engine.

The engine is scripted: 50 tokens, one at a time, by the clock. It first runs alone, at the same concurrency in the same
process, and we subtract its median; the rest is everything else that an agent waits for: HTTP, reading, matching the
history, rendering, parsing, answering. The load comes from a separate process (`gateway_load.py`), whose CPU use is
shown as well. On a busy machine the wall times include the other jobs. What a long
session takes in memory, on the worker's pipe and on disk is measured by `session_size.py`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crrl.bench import session_size
from crrl.engines.api import Request
from crrl.engines.scripted import ScriptedEngine
from crrl.gateway import Budget, Gateway, load_renderer
from crrl.models import model_folder

SAMPLED = 50  # tokens of each answer: some text and a tool call
TOKEN_S = 0.04  # the rate of one sequence among many on a busy engine
CONCURRENT = (1, 32, 256)
TURNS = 8
LONG_TURNS, LONG_TOKENS = 128, 64_000
EPISODE_TURNS, EPISODE_TOKENS = 60, 32_000
FAST_TOKEN_S = 0.002  # for the long session, so that the gateway's time is not lost in the engine's
TARGET_MS, LONG_TARGET_MS, LONG_RATIO, PIPE_TARGET_MB = 3.0, 8.0, 1.2, 0.2
SOAK_SESSIONS, SOAK_TURNS = 256, 16
_BUDGET = Budget(tokens=1 << 40, turns=1 << 40)


@dataclass(frozen=True)
class Overhead:
    """Milliseconds of one request over the engine alone, at `sessions` at once. `cpu_ms`: of this process.
    `load_cores`: cores that the load generator used."""

    sessions: int
    requests: int
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    load_cores: float


@dataclass(frozen=True)
class GatewayBench:
    """`long_*`: of one session that grows to `long_tokens`: the gateway's milliseconds at its turn 2 and its last
    turns (medians), and the last's end-to-end time as a multiple of turn 2's."""

    overheads: list[Overhead]
    long_tokens: int
    long_turn_2_ms: float
    long_last_ms: float
    long_ratio: float
    sizes: list[session_size.SessionSize]

    def lines(self) -> list[str]:
        table = [
            f"  {o.sessions:8} {o.requests:9} {o.p50_ms:8.2f} {o.p99_ms:8.2f} {o.cpu_ms:8.2f} {o.load_cores:11.2f}"
            for o in self.overheads
        ]
        return [
            f"A request over the engine alone, {SAMPLED} sampled tokens at {1 / TOKEN_S:.0f} per second "
            f"(target: p50 under {TARGET_MS:g} ms at 32):",
            "  sessions  requests   p50 ms   p99 ms   CPU ms  load cores",
            *table,
            f"One session, {LONG_TURNS} turns, {self.long_tokens} tokens at the end:",
            f"  the gateway's own time {self.long_turn_2_ms:8.2f} ms at turn 2, {self.long_last_ms:.2f} ms at turn "
            f"{LONG_TURNS} (target: under {LONG_TARGET_MS:g})",
            f"  end to end             {self.long_ratio:8.2f} x turn 2's, at {1 / FAST_TOKEN_S:.0f} tokens per second "
            f"(target: {LONG_RATIO:g})",
            f"What a session takes; ids spread over a vocabulary of {session_size.VOCABULARY:,} (target: "
            f"{PIPE_TARGET_MB:g} MB on the pipe for {EPISODE_TURNS} turns and {EPISODE_TOKENS:,} tokens):",
            session_size.HEAD,
            *(size.line() for size in self.sizes),
        ]


@dataclass(frozen=True)
class SoakBench:
    """`rss_mb`: of the gateway's process, at the end of each tenth of the time; growth: over the second half, when all
    sessions have reached their length."""

    sessions: int
    seconds: float
    requests: int
    p50_ms: float
    p99_ms: float
    rss_mb: list[float]

    @property
    def growth(self) -> float:
        return self.rss_mb[-1] / self.rss_mb[len(self.rss_mb) // 2 - 1] - 1

    def lines(self) -> list[str]:
        return [
            f"{self.sessions} sessions streaming for {self.seconds:.0f} s, {SOAK_TURNS} turns each, then another: "
            f"{self.requests} answers",
            f"  over the engine alone: p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms",
            "  memory, MiB: " + " ".join(f"{mb:.0f}" for mb in self.rss_mb),
            f"  growth over the second half: {100 * self.growth:+.1f} %",
        ]


def bench() -> GatewayBench:
    return asyncio.run(_bench())


def soak(seconds: float) -> SoakBench:
    return asyncio.run(_soak(seconds))


async def _bench() -> GatewayBench:
    overheads = []
    async with _serving(TOKEN_S) as server:
        await server.load(sessions=8, turns=2)  # caches and code paths
        for sessions in CONCURRENT:
            engine_s, engine_cpu_s = await server.engine_alone(sessions)
            cpu = time.process_time()
            done = await server.load(sessions=sessions, turns=2 * TURNS if sessions == 1 else TURNS)
            cpu = time.process_time() - cpu
            over = [1000 * (s - engine_s) for _, s, _ in done["samples"]]
            each, cores = 1000 * (cpu / len(over) - engine_cpu_s), done["cpu_s"] / done["wall_s"]
            overheads.append(Overhead(sessions, len(over), statistics.median(over), _p99(over), each, cores))
    async with _serving(FAST_TOKEN_S) as server:
        engine_s, _ = await server.engine_alone(1)
        appended = LONG_TOKENS // LONG_TURNS - SAMPLED
        samples = (await server.load(sessions=1, turns=LONG_TURNS, result=appended))["samples"]
    early = statistics.median(s for turn, s, _ in samples if 2 <= turn <= 6)
    late = statistics.median(s for turn, s, _ in samples if turn > LONG_TURNS - 5)
    lengths = [(EPISODE_TURNS, EPISODE_TOKENS), (LONG_TURNS, LONG_TOKENS)]
    sizes = [await session_size.measure(turns, tokens) for turns, tokens in lengths]
    times = (1000 * (early - engine_s), 1000 * (late - engine_s), late / early)
    return GatewayBench(overheads, samples[-1][2], *times, sizes)


async def _soak(seconds: float) -> SoakBench:
    rss: list[float] = []

    async def watch() -> None:
        for _ in range(10):
            await asyncio.sleep(seconds / 10)
            rss.append(_rss_mb())

    async with _serving(TOKEN_S) as server:
        engine_s, _ = await server.engine_alone(SOAK_SESSIONS)
        watching = asyncio.create_task(watch())
        done = await server.load(sessions=SOAK_SESSIONS, turns=SOAK_TURNS, stream=True, seconds=seconds)
        await watching
    over = [1000 * (s - engine_s) for _, s, _ in done["samples"]]
    return SoakBench(SOAK_SESSIONS, done["wall_s"], len(over), statistics.median(over), _p99(over), rss)


class _Server:
    """A gateway over the scripted engine, in this process."""

    def __init__(self, gateway: Gateway, engine: ScriptedEngine, encode: Any) -> None:
        self._gateway = gateway
        self._engine = engine
        self._encode = encode
        self._opened = 0

    async def engine_alone(self, sessions: int) -> tuple[float, float]:
        """Median seconds of one generation with as many at once, and CPU-seconds of each."""

        async def one(number: int) -> float:
            await asyncio.sleep(SAMPLED * TOKEN_S * number / sessions)  # as the load does
            start = time.perf_counter()
            async for _ in self._engine.generate(
                Request(str(number), [0], SAMPLED, stop_ids=self._gateway.renderer.stop_ids)
            ):
                pass
            return time.perf_counter() - start

        cpu = time.process_time()
        seconds = await asyncio.gather(*map(one, range(sessions)))
        return statistics.median(seconds), (time.process_time() - cpu) / sessions

    async def load(
        self, *, sessions: int, turns: int, result: int = 200, stream: bool = False, seconds: float = 0.0
    ) -> dict[str, Any]:
        """Runs the load until it is done. result: tokens of each tool's output."""
        host, _, port = self._gateway.base_url.removeprefix("http://").partition(":")
        spec = {
            "host": host,
            "port": int(port),
            "sessions": sessions,
            "turns": turns,
            "stream": stream,
            "seconds": seconds,
            "spread_s": SAMPLED * TOKEN_S if sessions > 1 else 0,
            "tokens": SAMPLED,
            "result": _text(self._encode, result),
        }
        script = str(Path(__file__).with_name("gateway_load.py"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, json.dumps(spec), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            limit=1 << 30,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        names: dict[str, str] = {}
        gc.collect()
        while line := (await process.stdout.readline()).decode():
            if line.startswith("{"):
                await process.wait()
                return dict(json.loads(line))
            verb, slot = line.split()
            if verb == "open":
                self._opened += 1
                names[slot] = f"bench-{self._opened}"
                path = self._gateway.open(names[slot], _BUDGET).base_url.removeprefix(self._gateway.base_url)
                process.stdin.write(f"{slot} {path}\n".encode())
            else:
                await self._gateway.close(names.pop(slot))
                self._engine.requests.clear()
        raise RuntimeError("the load generator ended without a result")


@asynccontextmanager
async def _serving(token_s: float) -> AsyncIterator[_Server]:
    renderer = load_renderer(model_folder("tiny"), "qwen3")
    encode = renderer.tokenizer.encode
    answer = _answer(encode, renderer.stop_ids[0])
    engine = ScriptedEngine(lambda _: answer, context=1 << 20, delay=token_s)
    gateway = Gateway(engine, renderer)
    await gateway.start()
    try:
        yield _Server(gateway, engine, encode)
    finally:
        await gateway.stop()


def _answer(encode: Any, stop: int) -> list[int]:
    """`SAMPLED` tokens: a sentence and a call of the shell."""
    head = encode('I look at the file.<tool_call>\n{"name": "shell", "arguments": {"cmd": "cat ')
    tail = [*encode('"}}\n</tool_call>'), stop]
    return [*head, *encode("x") * (SAMPLED - len(head) - len(tail)), *tail]


def _text(encode: Any, tokens: int) -> str:
    line = "    return the value of the name in the file\n"
    return line * max(1, tokens // len(encode(line)))


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
