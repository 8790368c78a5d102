"""One session: its tree, its budgets, its generations, and the time it waited for the engine.

A generation belongs to the session and not to the connection that asked for it: when the client goes away it
goes on for a grace period, and an identical request then gets what was sampled.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from crrl.engines.api import Engine, EngineInfo, Request
from crrl.gateway.api import Budget, SessionRecord
from crrl.gateway.canonical import Message
from crrl.gateway.ledger import request_seed
from crrl.gateway.renderer import Renderer
from crrl.gateway.tree import Placement, Tree, Turn

GRACE_S = 10.0
HELD_GAP_S = 0.5  # a stream that stands still for longer was held (a weight push), not decoding


@dataclass(frozen=True)
class SamplingPolicy:
    """The recipe's sampling, over what the agent asks. `temperature` is a session's default; top_p, top_k and
    penalties do not exist here: the log-probs are those of the whole distribution (invariant 6)."""

    temperature: float = 1.0
    max_tokens: int | None = None  # per turn; None: what is left of the budget


class Refused(Exception):
    """A budget is used up. Answered before generation with the API's own `context_length_exceeded`."""

    def __init__(self, budget: str, message: str) -> None:
        super().__init__(message)
        self.budget = budget
        self.message = message


class EngineFailed(Exception):
    """The engine failed under this session; the episode is lost."""


@dataclass
class WaitClock:
    """Wall time during which at least one request of the session was queued or held."""

    total_s: float = 0.0
    _waiting: int = 0
    _since: float = 0.0

    def enter(self) -> None:
        if self._waiting == 0:
            self._since = time.monotonic()
        self._waiting += 1

    def leave(self) -> None:
        self._waiting -= 1
        if self._waiting == 0:
            self.total_s += time.monotonic() - self._since

    def held(self, gap_s: float) -> None:
        if self._waiting == 0:
            self.total_s += gap_s

    def read(self) -> float:
        return self.total_s + (time.monotonic() - self._since if self._waiting else 0.0)


@dataclass(eq=False)
class Session:
    id: str
    budget: Budget
    seed: int
    temperature: float
    engine: Engine
    info: EngineInfo
    renderer: Renderer
    policy: SamplingPolicy
    grace_s: float = GRACE_S
    exhausted: str = ""
    engine_failed: str = ""
    clock: WaitClock = field(default_factory=WaitClock)
    closed: bool = False

    def __post_init__(self) -> None:
        self.tree = Tree(self.renderer)
        self.used = 0  # sampled tokens, all turns together
        self._changed: dict[Turn, asyncio.Future[None]] = {}
        self._nonce = secrets.token_hex(4)  # a lost attempt starts again under the same id
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(
        self,
        messages: list[Message],
        tools: list[dict[str, Any]] | None,
        asked: dict[str, float | int | str | None],
        *,
        retry: bool = False,
    ) -> Turn:
        """The turn that answers this request: a new generation, or a stored one its client never got.

        Raises:
            Refused: a budget is used up (nothing is generated). EngineFailed: the engine has failed before.
        """
        if self.engine_failed:
            raise EngineFailed(self.engine_failed)
        place = self.tree.place(messages, tools, retry=retry)
        if place.replay is not None:
            return place.replay
        turn = self._new_turn(place, asked)
        self.tree.add(turn)
        turn.task = asyncio.create_task(self._generate(turn))
        self._tasks.add(turn.task)
        turn.task.add_done_callback(self._tasks.discard)
        return turn

    def _new_turn(self, place: Placement, asked: dict[str, float | int | str | None]) -> Turn:
        wanted = cast("int | None", asked.get("max_tokens"))
        limits = [self._left(place.prompt_ids), wanted, self.policy.max_tokens]
        params: dict[str, float | int | str | None] = {
            "temperature": self.temperature,
            "max_tokens": min(limit for limit in limits if limit is not None),
        }
        resample = sum(t.request == place.request for t in self.tree.turns)
        params["seed"] = request_seed(self.seed, place.depth, place.prompt_ids, resample)
        for name, value in asked.items():
            if value is not None and value != params.get(name):
                params[f"asked_{name}"] = value
        name = f"{self.id}.{len(self.tree.turns)}"
        return Turn(name, place.request, place.parent, place.depth, place.branch, place.prompt_ids, params)

    def _left(self, prompt_ids: list[int]) -> int:
        """Tokens that may still be sampled for this prompt; at least 1."""
        context = min(self.budget.context or self.info.context, self.info.context)
        left = {"tokens": self.budget.tokens - self.used, "context": context - len(prompt_ids)}
        if len(self.tree.turns) >= self.budget.turns:
            self.exhausted = self.exhausted or "turns"
            raise Refused("turns", f"This session's {self.budget.turns} turns are used up.")
        if left["tokens"] < 1:
            self.exhausted = self.exhausted or "tokens"
            raise Refused("tokens", f"This session's {self.budget.tokens} tokens are used up.")
        if left["context"] < 1:
            self.exhausted = self.exhausted or "context"
            raise Refused(
                "context",
                f"This model's maximum context length is {context} tokens. However, your messages "
                f"resulted in {len(prompt_ids)} tokens. Please reduce the length of the messages.",
            )
        return min(left.values())

    async def _generate(self, turn: Turn) -> None:
        request = Request(
            id=f"{turn.id}~{self._nonce}",
            prompt_ids=turn.prompt_ids,
            max_tokens=cast(int, turn.params["max_tokens"]),
            temperature=self.temperature,
            stop_ids=self.renderer.stop_ids,
            seed=cast(int, turn.params["seed"]),
        )
        waiting, last = True, 0.0
        self.clock.enter()
        try:
            async with aclosing(self.engine.generate(request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    now = time.monotonic()
                    if waiting:
                        waiting = False
                        self.clock.leave()
                    elif now - last > HELD_GAP_S:
                        self.clock.held(now - last)
                    last = now
                    turn.ids += chunk.ids
                    turn.logprobs += chunk.logprobs
                    turn.versions += chunk.versions
                    turn.ends.append(len(turn.ids))
                    self.used += len(chunk.ids)
                    if chunk.finish == "cancelled":  # not by us: we cancel by closing the iterator
                        raise EngineFailed("the engine cancelled the generation")
                    if chunk.finish is not None:
                        self._finish(turn, chunk.finish)
                        return
                    if self.used >= self.budget.tokens:  # parallel requests share one budget
                        self._finish(turn, "length")
                        return
                    self._notify(turn)
            raise EngineFailed("the generation ended without a finish reason")
        except asyncio.CancelledError:
            turn.finish = "cancelled"
            raise
        except Exception as error:  # whatever an engine raises is its failure: the episode is lost, not scored
            turn.failed = self.engine_failed = str(error) or type(error).__name__
        finally:
            if waiting:
                self.clock.leave()
            self._notify(turn)

    def _finish(self, turn: Turn, finish: str) -> None:
        turn.finish = finish  # type: ignore[assignment]
        if turn.whole:
            self.tree.complete(turn)

    async def changed(self, turn: Turn) -> None:
        """Returns when the turn has more to show than at the call, or somebody called `wake`."""
        future = self._changed.get(turn)
        if future is None:
            future = self._changed[turn] = asyncio.get_running_loop().create_future()
        await asyncio.shield(future)

    def wake(self, turn: Turn) -> None:
        self._notify(turn)

    def _notify(self, turn: Turn) -> None:
        future = self._changed.pop(turn, None)
        if future is not None and not future.done():
            future.set_result(None)

    def join(self, turn: Turn) -> None:
        turn.clients += 1

    def leave(self, turn: Turn) -> None:
        """A client is done with the turn or gone; nobody left, the generation has `grace_s` to end."""
        turn.clients -= 1
        if turn.clients == 0 and not turn.done:
            asyncio.get_running_loop().call_later(self.grace_s, self._cancel_unless_joined, turn)

    def _cancel_unless_joined(self, turn: Turn) -> None:
        if turn.clients == 0 and not turn.done and turn.task is not None:
            turn.task.cancel()

    async def close(self) -> SessionRecord:
        self.closed = True
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return SessionRecord(self.id, self.tree.samples(self.id), self.exhausted, self.clock.read(), self.engine_failed)
