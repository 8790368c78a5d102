"""The generations of the local engine: what each has so far, what it may sample, and the way back to who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from crrl.engines import EngineError
from crrl.engines.api import Chunk, FinishReason, Request
from crrl.engines.constrained import Matcher


class Row:
    """A generation in a slot. `ids` is prompt and sampled tokens; those of ids[:cached] have keys and values there."""

    def __init__(
        self,
        request: Request,
        loop: asyncio.AbstractEventLoop,
        sink: Callable[[Any], None],
        matcher: Matcher | None = None,
    ) -> None:
        self.request = request
        self.matcher = matcher
        self.loop = loop
        self.sink = sink
        self.ids = list(request.prompt_ids)
        self.array = np.asarray(self.ids, np.int64)
        self.cached = 0
        self.stop = frozenset(request.stop_ids)
        self.sampled = 0
        self.finish: FinishReason | None = None
        self.error: EngineError | None = None
        self.chunk: tuple[list[int], list[float], list[int]] = ([], [], [])

    def take(self, token: int, logprob: float, version: int, context: int) -> bool:
        """Whether the generation ends with what was sampled: by its stop, its length, or an error."""
        if logprob != logprob:
            self.error = EngineError(
                f"the model gave NaN for request {self.request.id} at position {len(self.ids)} (weights of version "
                f"{version})"
            )
            return True
        if self.matcher is not None:
            self.matcher.take(token)
            if self.matcher.broken:
                self.error = EngineError(f"the grammar of request {self.request.id} broke: {self.matcher.broken}")
                return True
        self.ids.append(token)
        self.sampled += 1
        ids, logprobs, versions = self.chunk
        ids.append(token)
        logprobs.append(logprob)
        versions.append(version)
        if token in self.stop:
            self.finish = "stop"
        elif self.sampled >= self.request.max_tokens or len(self.ids) >= context:
            self.finish = "length"
        return self.finish is not None

    def take_chunk(self) -> Chunk:
        ids, logprobs, versions = self.chunk
        self.chunk = ([], [], [])
        return Chunk(ids, logprobs, versions, self.finish)


def allowed(rows: list[Row], logits_MV: torch.Tensor) -> torch.Tensor | None:
    """By the rows' grammars; None: no row has one."""
    if all(row.matcher is None for row in rows):
        return None
    allowed_BV = torch.ones_like(logits_MV, dtype=torch.bool)
    for i, row in enumerate(rows):
        if row.matcher is not None:
            allowed_BV[i] = torch.from_numpy(row.matcher.allowed()).to(logits_MV.device)
    return allowed_BV


def deliver(messages: list[tuple[Row, Chunk | EngineError]]) -> None:
    """Hand messages over to those who wait for them: one wake-up per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Callable[[Any], None], Chunk | EngineError]]] = {}
    for row, message in messages:
        by_loop.setdefault(row.loop, []).append((row.sink, message))
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_hand_over, batch)
        except RuntimeError:  # that loop is closed: nobody is waiting
            continue


def _hand_over(batch: list[tuple[Callable[[Any], None], Chunk | EngineError]]) -> None:
    for sink, message in batch:
        sink(message)
