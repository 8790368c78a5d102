"""The local engine: continuous batching of any transformers causal model on its own thread.

One iteration of the loop is one forward pass: one new token for every decoding row, and the new tokens of rows whose
prompt is not yet in the cache (at most `prefill_tokens` of them). Between two passes requests join, leave and are
cancelled, weights are swapped, and the loop can pause. Rows sit in slots 0..n-1: first those that decode, then those
that are being prefilled.

After a push every row drops its keys and values and is prefilled again, sampled tokens included, so the next token
comes only from the new weights and carries their version.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from crrl.engines import ContextLengthError, EngineError, push
from crrl.engines.api import Chunk, EngineInfo, Probe, Request, WeightSource
from crrl.engines.constrained import Grammars
from crrl.engines.heap import give_back
from crrl.engines.local.attention import Segment
from crrl.engines.local.prefix import PrefixCache, common
from crrl.engines.local.rows import Row, allowed, deliver
from crrl.engines.local.runner import Runner
from crrl.engines.sampling import sample, truncation_of, uniform

T = TypeVar("T")

FLUSH_S = 0.03
"""Seconds after which tokens are handed over: waking a coroutine per token costs more than the token."""
CASCADE_MIN = 32
"""A shorter common prefix is not worth a separate attention call."""
GROWTH = 256
"""The cache is made ready for this many tokens of a generation (less if it asks for less) when it is admitted."""


class LocalEngine:
    """An `Engine`, and its `Weights`. Safe to call from any thread and any event loop.

    Args:
        model: becomes the engine's own (moved, frozen, its attention replaced); pass a copy if you
            train it.
        tokenizer_hash: what the gateway compares with its own tokenizer.
        context: most tokens of prompt and generation together.
        max_batch: most generations at once; more wait in order of arrival.
        kv_tokens: how many tokens' keys and values are kept for reuse after their generation ended.
        prefill_tokens: most prompt tokens per forward pass.
        tokenizer: the text of the model's tokenizer.json, which grammars need; "": there will be none.

    Raises:
        CrrlError: the model cannot be served; says why.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer_hash: str,
        *,
        context: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_batch: int = 64,
        kv_tokens: int = 65536,
        prefill_tokens: int = 2048,
        version: int = 0,
        tokenizer: str = "",
    ) -> None:
        self._tokenizer = tokenizer
        self._runner = Runner(model, torch.device(device), dtype)
        self._prefixes = PrefixCache(kv_tokens)
        self._tokenizer_hash = tokenizer_hash
        self._context = context
        self._max_batch = max_batch
        self._prefill_tokens = prefill_tokens
        self._version = version
        self._rows: list[Row] = []
        self._decoding = 0
        self._shared: int | None = None
        self._prompts = np.full((max_batch, 256), -1, np.int64)
        self._waiting: deque[Row] = deque()
        self._ended: list[Row] = []
        self._resting = False
        self._closed = False
        self._broken: EngineError | None = None
        self._flushed = 0.0
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.probe_ids = push.probe_ids(self._runner.vocab_size, min(push.PROBE_LENGTH, context))
        self.steps = 0
        self.busy_s = 0.0
        self.reused_tokens = 0
        self.prefilled_tokens = 0
        self._thread = threading.Thread(target=self._loop, name="crrl-engine", daemon=True)
        self._thread.start()

    # The asynchronous front -----------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        if len(request.prompt_ids) + 1 > self._context:
            raise ContextLengthError(len(request.prompt_ids), self._context)
        if not request.prompt_ids or request.max_tokens < 1:
            raise ValueError(f"request {request.id}: an empty prompt, or max_tokens < 1")
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= self._runner.vocab_size:
            raise ValueError(f"request {request.id}: a token id outside the vocabulary of {self._runner.vocab_size}")
        matcher = await asyncio.to_thread(self._grammars.begin, request.grammar) if request.grammar else None
        chunks: asyncio.Queue[Chunk | EngineError] = asyncio.Queue()
        row = Row(request, asyncio.get_running_loop(), chunks.put_nowait, matcher)
        self._submit(lambda: self._waiting.append(row))
        ended = False
        try:
            while not ended:
                chunk = await chunks.get()
                if isinstance(chunk, EngineError):
                    ended = True
                    raise chunk
                ended = chunk.finish is not None
                yield chunk
        finally:
            if not ended:
                self._commands.put(lambda: self._cancel(request.id))

    async def score(self, ids: list[int]) -> list[float]:
        if len(ids) > self._context:
            raise ContextLengthError(len(ids), self._context)
        return await asyncio.wrap_future(self._call(lambda: self._runner.score(ids)))

    async def cancel(self, id: str) -> None:
        self._submit(lambda: self._cancel(id))

    @contextmanager
    def resting(self) -> Iterator[None]:
        self._call(lambda: self._hold(True)).result()
        try:
            yield
        finally:
            self._call(lambda: self._hold(False)).result()

    async def push(self, source: WeightSource, version: int) -> Probe:
        await asyncio.to_thread(push.check, self._runner.model, source)
        return await asyncio.wrap_future(self._call(lambda: self._swap(source, version)))

    async def keep(self, version: int) -> None:
        def rename() -> None:
            self._version = version

        await asyncio.wrap_future(self._call(rename))

    def forget(self, scope: str) -> None:
        self._commands.put(lambda: self._prefixes.forget(scope))

    async def info(self) -> EngineInfo:
        constrained = bool(self._tokenizer)
        known = (self._context, self._version, self._tokenizer_hash, self._runner.vocab_size)
        return EngineInfo(*known, constrained, truncates=True)

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self._tokenizer, self._runner.vocab_size)

    def close(self) -> None:
        """Stop the thread; running generations get an `EngineError`."""
        if self._thread.is_alive():
            self._commands.put(lambda: setattr(self, "_closed", True))
            self._thread.join()

    def _submit(self, command: Callable[[], None]) -> None:
        if self._broken:
            raise EngineError(self._broken.detail)
        self._commands.put(command)

    def _call(self, function: Callable[[], T]) -> Future[T]:
        """Run `function` on the engine's thread, between two passes."""
        future: Future[T] = Future()

        def command() -> None:
            if self._broken:
                future.set_exception(EngineError(self._broken.detail))
                return
            try:
                future.set_result(function())
            except Exception as e:
                future.set_exception(e)

        self._submit(command)
        return future

    # The loop, on the engine's thread -------------------------------------------------------------------------------

    @torch.inference_mode()
    def _loop(self) -> None:
        try:
            while not self._closed:
                idle = self._resting or not (self._rows or self._waiting)
                if idle:
                    self._flush(everything=True)
                self._obey(wait=idle)
                if not self._closed and not self._resting and (self._rows or self._waiting):
                    began = time.monotonic()
                    self._step()
                    self.busy_s += time.monotonic() - began
                    self._flush()
            self._broken = self._broken or EngineError("the engine was closed")
        except BaseException as e:
            self._broken = EngineError(f"the model loop died: {type(e).__name__}: {e}")
        self._fail_everything(self._broken)

    def _obey(self, *, wait: bool) -> None:
        try:
            self._commands.get(block=wait)()
            while True:
                self._commands.get_nowait()()
        except queue.Empty:
            pass

    def _hold(self, resting: bool) -> None:
        """Whoever computes meanwhile gets the memory of keys and values that a push after it would drop anyway."""
        self._resting = resting
        if resting:
            self._prefixes.drop()
            if not self._rows:
                self._runner.cache.drop()
            give_back()

    def _cancel(self, id: str) -> None:
        for row in list(self._waiting):
            if row.request.id == id:
                self._waiting.remove(row)
                row.finish = "cancelled"
                self._ended.append(row)
        for row in [r for r in self._rows if r.request.id == id]:
            self._leave(row, keep=False)
            row.finish = "cancelled"
            self._ended.append(row)

    def _swap(self, source: WeightSource, version: int) -> Probe:
        try:
            with torch.inference_mode(False):  # the source computes as it would for anyone
                self._runner.load(source)
        except BaseException as e:  # some weights are new, others old: there is no policy left to serve
            self._broken = EngineError(f"the push of version {version} broke off: {type(e).__name__}: {e}")
            self._closed = True
            raise
        self._prefixes.drop()
        for row in self._rows:  # back to the front of the queue; sampled tokens are prefilled, too
            row.cached = 0
            row.array = np.asarray(row.ids, np.int64)
        self._waiting.extendleft(reversed(self._rows))
        self._rows = []
        self._decoding, self._shared = 0, None
        self._version = version
        return Probe(version, self.probe_ids, self._runner.score(self.probe_ids))

    def _step(self) -> None:
        """One forward pass: admit, run, sample, find ended rows."""
        self._admit()
        if self._shared is None:
            self._shared = self._find_shared()
        tokens = [row.ids[-1] for row in self._rows[: self._decoding]]
        lengths = [row.cached for row in self._rows[: self._decoding]]
        segments: list[Segment] = []
        for slot in range(self._decoding, len(self._rows)):
            room = self._prefill_tokens - (len(tokens) - self._decoding)
            row = self._rows[slot]
            new = row.ids[row.cached : row.cached + room]
            if not new:
                break
            segments.append(Segment(len(tokens), len(tokens) + len(new), slot, row.cached))
            tokens += new
        complete = [s for s in segments if s.cached + s.end - s.start == len(self._rows[s.slot].ids)]
        keep = [*range(self._decoding), *(s.end - 1 for s in complete)]
        logits_MV = self._runner.forward(tokens, lengths, self._shared, segments, keep=keep)
        self.steps += 1
        for row in self._rows[: self._decoding]:
            row.cached += 1
        for s in segments:
            self._rows[s.slot].cached += s.end - s.start
            self.prefilled_tokens += s.end - s.start
        # Segments are in slot order and only the last can be incomplete: who sampled is again the
        # first slots.
        if complete:
            self._decoding += len(complete)
            self._shared = None
        self._sample(logits_MV, self._rows[: self._decoding])

    def _sample(self, logits_MV: torch.Tensor, rows: list[Row]) -> None:
        if not rows:
            return
        seeds = np.array([row.request.seed & (2**64 - 1) for row in rows], np.uint64)
        positions = np.array([row.sampled for row in rows], np.uint64)
        temperatures = torch.tensor([row.request.temperature for row in rows], dtype=torch.float32)
        u_B = torch.from_numpy(uniform(seeds, positions))
        device = logits_MV.device
        allowed_BV = allowed(rows, logits_MV)
        truncation = truncation_of([row.request for row in rows], device)
        token_B, logprob_B = sample(logits_MV, temperatures.to(device), u_B.to(device), allowed_BV, truncation)
        sampled = list(zip(rows, token_B.tolist(), logprob_B.tolist(), strict=True))
        for row in [r for r, token, logprob in sampled if r.take(token, logprob, self._version, self._context)]:
            self._leave(row)
            self._ended.append(row)

    def _admit(self) -> None:
        """Waiting requests take free slots, beginning with the longest prefix that is already computed.

        A request that shares more with one being prefilled right now waits a pass, and then copies.
        """
        if not self._waiting:
            return
        budget = self._prefill_tokens - sum(len(r.ids) - r.cached for r in self._rows[self._decoding :])
        # For all that may come in, and some of what they will generate: growing copies every row.
        slots = min(self._max_batch, len(self._rows) + len(self._waiting))
        positions = max(len(r.ids) + min(r.request.max_tokens - r.sampled, GROWTH) for r in self._waiting)
        self._runner.cache.reserve(slots, min(positions, self._context))
        for row in list(self._waiting):
            if len(self._rows) >= self._max_batch or budget <= 0:
                break
            reuse = row.array[:-1]
            kept, content = self._prefixes.find(reuse)
            source, best, coming = self._running_prefix(reuse)
            if best <= kept:
                source, best = -1, kept
            if coming >= best + CASCADE_MIN:
                continue
            slot = len(self._rows)
            self._note_prompt(slot, row.array)
            if source >= 0:
                self._runner.cache.copy(source, slot, best)
            elif best:
                self._runner.cache.write(slot, best, content)
            row.cached = best
            self.reused_tokens += best
            budget -= len(row.ids) - best
            self._rows.append(row)
            self._waiting.remove(row)

    def _running_prefix(self, ids: np.ndarray) -> tuple[int, int, int]:
        """The slot with the longest computed beginning of `ids`, its length, and the longest of all, to come too."""
        if not self._rows:
            return -1, 0, 0
        have = common(self._prompts[: len(self._rows)], ids)
        computed = np.minimum(have, [row.cached for row in self._rows])
        slot = int(computed.argmax())
        return slot, int(computed[slot]), int(have.max())

    def _note_prompt(self, slot: int, ids: np.ndarray) -> None:
        width = self._prompts.shape[1]
        if len(ids) > width:
            self._prompts = np.pad(self._prompts, ((0, 0), (0, len(ids))), constant_values=-1)
        self._prompts[slot] = -1
        self._prompts[slot, : len(ids)] = ids

    def _leave(self, row: Row, *, keep: bool = True) -> None:
        """Free a row's slot; keep its keys and values for whoever continues it (not of one that was cancelled: its try
        may be lost, and forgotten already); close the gap."""
        slot = self._rows.index(row)
        self._shared = None
        cache = self._runner.cache
        if row.error is not None:
            cache.clear(slot)
        elif row.cached and keep:
            content = cache.read(slot, row.cached)
            self._prefixes.add(np.asarray(row.ids[: row.cached], np.int64), content, row.request.scope)
        if slot < self._decoding:
            self._decoding -= 1
            self._move(self._decoding, slot)
            slot = self._decoding
        self._move(len(self._rows) - 1, slot)
        self._rows.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self._runner.cache.copy(source, target, self._rows[source].cached)
            self._rows[target] = self._rows[source]
            self._prompts[target] = self._prompts[source]

    def _find_shared(self) -> int:
        """How many first tokens all decoding rows have in common; 0 if that is too few to be worth it."""
        if self._decoding < 2:
            return 0
        shared = int(common(self._prompts[1 : self._decoding], self._rows[0].array).min())
        return shared if shared >= CASCADE_MIN else 0

    def _flush(self, *, everything: bool = False) -> None:
        """Hand over the chunks of ended rows, and every FLUSH_S those of all rows: one wake-up per loop."""
        rows, self._ended = self._ended, []
        now = time.monotonic()
        if everything or now - self._flushed > FLUSH_S:
            self._flushed = now
            rows += [row for row in self._rows if row.chunk[0]]
        deliver([(row, row.error or row.take_chunk()) for row in rows])

    def _fail_everything(self, error: EngineError) -> None:
        rows = [*self._ended, *self._rows, *self._waiting]
        self._ended, self._rows, self._waiting = [], [], deque()
        deliver([(row, EngineError(error.detail)) for row in rows])
        self._obey(wait=False)
        rows = list(self._waiting)
        self._waiting.clear()
        deliver([(row, EngineError(error.detail)) for row in rows])
