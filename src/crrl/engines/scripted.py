"""An engine that plays a script: for tests of the code that uses an engine (gateway, agents, episodes).

Every token has log-prob -1.0 and the current version. The script is a function prompt_ids -> ids, or a list of answers
played in the order of the requests. An answer is cut at `max_tokens` (`length`) and after the first stop id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from crrl.engines import ContextLengthError, EngineError
from crrl.engines.api import Chunk, EngineInfo, FinishReason, Probe, Request, WeightSource

Script = Callable[[list[int]], list[int]] | Sequence[list[int]]


class ScriptedEngine:
    """Args:
    script: see above. A list that has run out raises `EngineError`.
    step: tokens per chunk.
    delay: seconds from chunk to chunk, by the clock: a late one does not delay the next; or a function of the request.
    """

    def __init__(
        self,
        script: Script,
        *,
        context: int = 4096,
        vocab_size: int = 1 << 18,
        tokenizer_hash: str = "scripted",
        step: int = 1,
        delay: float | Callable[[Request], float] = 0.0,
    ) -> None:
        self._answers = None if callable(script) else iter(script)
        self._answer = script if callable(script) else None
        self._info = (context, tokenizer_hash, vocab_size)
        self._step, self._delay = step, delay
        self._open = asyncio.Event()
        self._open.set()
        self._cancelled: set[str] = set()
        self.version = 0
        self.busy_s = 0.0  # with a request, or several
        self._asked, self._since = 0, 0.0
        self.requests: list[Request] = []

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        if len(request.prompt_ids) + 1 > self._info[0]:
            raise ContextLengthError(len(request.prompt_ids), self._info[0])
        self.requests.append(request)
        self._count(1)
        try:
            async for chunk in self._chunks(request):
                yield chunk
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        now = time.monotonic()
        self.busy_s += now - self._since if self._asked else 0.0
        self._asked, self._since = self._asked + more, now

    async def _chunks(self, request: Request) -> AsyncIterator[Chunk]:
        ids, finish = self._play(request)
        loop = asyncio.get_running_loop()
        due, delay = loop.time(), self._delay(request) if callable(self._delay) else self._delay
        for start in range(0, len(ids), self._step):
            due += delay
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._open.wait()
            if request.id in self._cancelled:
                yield Chunk([], [], [], "cancelled")
                return
            part = ids[start : start + self._step]
            last = start + self._step >= len(ids)
            yield Chunk(part, [-1.0] * len(part), [self.version] * len(part), finish if last else None)

    def _play(self, request: Request) -> tuple[list[int], FinishReason]:
        if self._answer is not None:
            ids = self._answer(request.prompt_ids)
        else:
            assert self._answers is not None
            answer = next(self._answers, None)
            if answer is None:
                raise EngineError(f"the script has no answer left for request {request.id}")
            ids = list(answer)
        stop = next((i for i, token in enumerate(ids) if token in request.stop_ids), None)
        room = min(request.max_tokens, self._info[0] - len(request.prompt_ids))
        if stop is not None and stop < room:
            return ids[: stop + 1], "stop"
        return ids[:room], "length" if len(ids) >= room else "stop"

    async def score(self, ids: list[int]) -> list[float]:
        return [-1.0] * (len(ids) - 1)

    async def cancel(self, id: str) -> None:
        self._cancelled.add(id)

    @contextmanager
    def resting(self) -> Iterator[None]:
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def forget(self, scope: str) -> None:
        """Nothing is kept of any generation."""

    async def push(self, source: WeightSource | None, version: int) -> Probe:
        self.version = version
        return Probe(version, list(range(64)), [-1.0] * 63)

    async def keep(self, version: int) -> None:
        self.version = version

    async def info(self) -> EngineInfo:
        context, tokenizer_hash, vocab_size = self._info
        return EngineInfo(context, self.version, tokenizer_hash, vocab_size)
