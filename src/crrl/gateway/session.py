"""One session: its tree, its budgets, and its generations.

A generation belongs to the session and not to the connection that asked for it: when the client goes away it
goes on for a grace period, and an identical request then gets what was sampled.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import msgspec

from crrl.engines.api import Engine, EngineInfo, FinishReason, Request
from crrl.engines.chat import ChatEngine, NotAnswered, Said, TooLong
from crrl.gateway import begun, forced, spoken
from crrl.gateway.api import Ask, BadRequest, Budget, SessionRecord
from crrl.gateway.clock import Asked, EngineClock
from crrl.gateway.dialects.common import name_of, unsupported_value
from crrl.gateway.ledger import request_seed
from crrl.gateway.renderer import Renderer, RenderError
from crrl.gateway.stream import TextStream
from crrl.gateway.tree import Placement, PrefixChanged, Tree, Turn

GRACE_S = 10.0
SILENCE_S = 15.0  # clients end after 300 s without a byte, some after 60
MAX_TEMPERATURE = 2.0


@dataclass(frozen=True)
class SamplingPolicy:
    """The recipe's sampling, over what the agent asks. `temperature` is a session's default; penalties do not exist
    here, nor top_p and top_k but in evaluations (`Session`): training's log-probs are those of the whole distribution,
    which is what it samples from (invariant 6)."""

    temperature: float = 1.0
    max_tokens: int | None = None  # per turn; None: what is left of the budget
    as_asked: bool = False  # serving, never training: the agent's temperature where it asks for one
    constrained: bool = False  # serving, never training: answers that a request forces


# Agents know a full context, which no retry will empty, by these first words: litellm tries anything else again, for
# minutes.
FULL = "This model's maximum context length is reached: the {} of this session are used up."


class Refused(Exception):
    """A budget is used up. Answered before generation with the API's own error for a context that is full."""

    def __init__(self, budget: str, message: str) -> None:
        super().__init__(message)
        self.budget = budget
        self.message = message


@contextmanager
def _as_bad_request() -> Iterator[None]:
    try:
        yield
    except RenderError as error:
        raise BadRequest(str(error), "messages") from None


class EngineFailed(Exception):
    """The engine failed under this session; the episode is lost."""


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
    top_p: float = 1.0
    top_k: int = 0
    grace_s: float = GRACE_S
    silence_s: float = SILENCE_S
    exhausted: str = ""
    refused: str = ""  # why the first request that cannot be answered was not
    engine_failed: str = ""
    clock: EngineClock = field(default_factory=EngineClock)

    def __post_init__(self) -> None:
        self.tree = Tree(self.renderer)
        self.used = 0  # sampled tokens, all turns together
        self._refused_at = 0  # so many turns had been asked for by then
        self._opened = time.monotonic()
        self._nonce = secrets.token_hex(4)  # a lost attempt starts again under the same id
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()  # the tree is one request's at a time, wherever that is placed

    async def ask(self, ask: Ask, choice: int = 0, *, apart: bool = False) -> Turn:
        """The turn that answers this request: a new generation, or a stored one its client never got. A request for
        `n` answers asks once for each `choice`, the first first. `apart`: it is large, and rendered in a thread.

        Raises:
            Refused: a budget is used up (nothing is generated). BadRequest: this cannot be a prompt.
            EngineFailed: the engine has failed before, or the renderer now.
        """
        async with self._asking:
            self._check_forced(ask)
            place = await self._placed(ask, choice, apart)
            return await self._turn(place, ask, choice)

    def _check_forced(self, ask: Ask) -> None:
        if isinstance(self.engine, ChatEngine):
            spoken.check(ask)
        if ask.forced is not None and not (self.policy.constrained and self.info.constrained):
            raise unsupported_value(ask.forced.param)
        forced.check(ask)

    async def _placed(self, ask: Ask, choice: int, apart: bool) -> Placement:
        if self.engine_failed:
            raise EngineFailed(self.engine_failed)
        self._check_ids(ask.prompt)
        asked = self._repeated(ask)
        try:
            with _as_bad_request():
                return (
                    await asyncio.to_thread(self.tree.place, asked, choice) if apart else self.tree.place(asked, choice)
                )
        except PrefixChanged as error:
            self.engine_failed = str(error)
            raise EngineFailed(self.engine_failed) from error

    async def _turn(self, place: Placement, ask: Ask, choice: int) -> Turn:
        if place.replay is not None:
            return place.replay
        turn = self._new_turn(place, ask, choice)
        if isinstance(self.engine, ChatEngine):
            self.tree.add(turn)
            self._start(turn, self._say(turn, ask, self.engine))
            return turn
        prompt_ids, grammar = self.tree.prompt_ids(turn), ""
        if ask.forced is not None:
            grammar = await asyncio.to_thread(forced.grammar, self.renderer, ask, ask.forced, prompt_ids)
        self.tree.add(turn)
        before = prompt_ids[: len(prompt_ids) - len(place.begun)]
        text = TextStream(self.renderer, ask, before, place.begun)
        self._start(turn, self._generate(turn, prompt_ids, text, grammar))
        return turn

    def _start(self, turn: Turn, generation: Coroutine[None, None, None]) -> None:
        turn.task = asyncio.create_task(generation)
        self._tasks.add(turn.task)
        turn.task.add_done_callback(self._tasks.discard)

    def _check_ids(self, prompt: str | list[int] | None) -> None:
        size = self.info.vocab_size
        if isinstance(prompt, list) and not all(0 <= token < size for token in prompt):
            raise BadRequest(f"Token ids are between 0 and {size - 1}.", "prompt")

    async def count(self, ask: Ask, *, apart: bool = False) -> int:
        """Tokens of the prompt that this request would have if it began a conversation."""
        asked = self._repeated(ask)
        with _as_bad_request():
            if apart:
                async with self._asking:
                    return await asyncio.to_thread(self._prompt_tokens, asked)
            return self._prompt_tokens(asked)

    def _prompt_tokens(self, ask: Ask) -> int:
        messages, last = begun.split(ask.messages)
        answer = begun.ids_of(self.renderer, last) if last is not None else []
        return len(self.renderer.prompt(messages, ask.tools)) + len(answer)

    def _repeated(self, ask: Ask) -> Ask:
        """Turns that a request names by the ids of their items, in full."""
        if not any(m.sampled for m in ask.messages):
            return ask
        named = {name_of(turn): turn.answer for turn in self.tree.turns if turn.whole}
        for message in ask.messages:
            if message.sampled and message.sampled not in named:
                raise BadRequest("An 'item_reference' names an item that was not sampled in this session.", "input")
        return replace(ask, messages=[named[m.sampled] if m.sampled else m for m in ask.messages])

    def _new_turn(self, place: Placement, ask: Ask, choice: int) -> Turn:
        wanted = cast("int | None", ask.asked.get("max_tokens"))
        limits = [self._left(place.prompt_tokens, ask.n - choice), wanted, self.policy.max_tokens]
        params: dict[str, float | int | str | None] = {
            "temperature": self._temperature(ask),
            "max_tokens": min(limit for limit in limits if limit is not None),
        }
        resample = sum(t.request == place.request for t in self.tree.turns)
        params["seed"] = request_seed(self.seed, place.depth, place.request, resample)
        params |= {"top_p": self.top_p} if self.top_p < 1 else {}
        params |= {"top_k": self.top_k} if self.top_k else {}
        if ask.stop:
            params["stop"] = msgspec.json.encode(ask.stop).decode()
        if ask.forced is not None:
            params["forced"] = ask.forced.param
        for name, value in ask.asked.items():
            if value is not None and value != params.get(name):
                params[f"asked_{name}"] = value
        name = f"{self.id}.{len(self.tree.turns)}"
        return Turn(name, place, choice, params)

    def _temperature(self, ask: Ask) -> float:
        asked = cast("float | None", ask.asked.get("temperature"))
        if not self.policy.as_asked or asked is None:
            return self.temperature
        if not 0 <= asked <= MAX_TEMPERATURE:
            raise BadRequest(f"'temperature' must be between 0 and {MAX_TEMPERATURE:g}.", "temperature")
        return asked

    def _left(self, prompt: int, turns: int) -> int:
        """Tokens that may still be sampled behind so many, where `turns` answers are wanted; at least 1."""
        context, tokens = self.context, self.budget.tokens - self.used
        if len(self.tree.turns) + turns > self.budget.turns:
            raise self._refused("turns", FULL.format(f"{self.budget.turns} turns"))
        if tokens < 1:
            raise self._refused("tokens", FULL.format(f"{self.budget.tokens} tokens"))
        if self.budget.seconds is not None and self.spent_s >= self.budget.seconds:
            raise self._refused("seconds", FULL.format(f"{self.budget.seconds:g} seconds"))
        if isinstance(self.engine, ChatEngine):
            return tokens  # it knows its own context, and the prompt's tokens are not its
        if prompt >= context:
            raise self._refused(
                "context",
                f"This model's maximum context length is {context} tokens. However, your messages "
                f"resulted in {prompt} tokens. Please reduce the length of the messages.",
            )
        return min(tokens, context - prompt)

    def _refused(self, budget: str, message: str) -> Refused:
        if self.exhausted in ("", "context"):  # which an agent can empty; no other budget comes back
            self.exhausted, self._refused_at = budget, len(self.tree.turns)
        return Refused(budget, message)

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return min(self.budget.context or self.info.context, self.info.context)

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    @property
    def spent_s(self) -> float:
        """Wall seconds since `open` that are charged (`clock.py`)."""
        return time.monotonic() - self._opened - self.clock.read()

    async def _generate(self, turn: Turn, prompt_ids: list[int], text: TextStream, grammar: str) -> None:
        request = Request(
            id=f"{turn.id}~{self._nonce}",
            prompt_ids=prompt_ids,
            max_tokens=cast(int, turn.params["max_tokens"]),
            temperature=cast(float, turn.params["temperature"]),
            top_p=self.top_p,
            top_k=self.top_k,
            stop_ids=self.renderer.stop_ids,
            seed=cast(int, turn.params["seed"]),
            scope=self.id,
            grammar=grammar,
        )
        with self.clock.asked() as asked:
            await self._sample(turn, request, text, asked)

    async def _say(self, turn: Turn, ask: Ask, engine: ChatEngine) -> None:
        """The endpoint's answer. What it refuses for the agent's own conversation is an empty turn, which the agent has
        to deal with; before anything was answered it is our side's."""
        try:
            with self.clock.asked():
                said = await engine.answer(spoken.question_of(turn, ask, self.top_p))
        except asyncio.CancelledError:
            turn.finish = "cancelled"
            raise
        except (TooLong, NotAnswered) as error:
            if not self.used and isinstance(error, NotAnswered):
                turn.failed = self.engine_failed = str(error)
            else:
                turn.params["refused"] = str(error)
                full = isinstance(error, TooLong)
                self._said(turn, Said("", "", [], "length" if full else "stop", 0, 0), full=full)
        except Exception as error:
            turn.failed = self.engine_failed = str(error) or type(error).__name__
        else:
            self._said(turn, said, full=said.finish == "length" and said.tokens < cast(int, turn.params["max_tokens"]))
        finally:
            turn.wake()

    def _said(self, turn: Turn, said: Said, *, full: bool) -> None:
        """`full`: the endpoint's context has no more room."""
        spoken.take(turn, said, self.renderer)
        self.used += said.tokens
        turn.finish = said.finish
        if full:
            self._refused("context", "")
        elif said.finish == "length" and self.used >= self.budget.tokens:
            self.exhausted = self.exhausted or "tokens"
        self.tree.complete(turn)

    async def _sample(self, turn: Turn, request: Request, text: TextStream, asked: Asked) -> None:
        try:
            async with aclosing(self.engine.generate(request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    asked.given()
                    turn.deltas += text.feed(chunk.ids)
                    used = len(text.ids) - len(turn.ids)  # what lies behind a stop string is no part of the sample
                    turn.sampled(chunk.ids[:used], chunk.logprobs[:used], chunk.versions[:used])
                    self.used += used
                    if chunk.finish == "cancelled":  # not by us: we cancel by closing the iterator
                        raise EngineFailed("the engine cancelled the generation")
                    if chunk.finish is not None or text.stopped:
                        return self._finish(turn, text, "stop" if text.stopped else chunk.finish)
                    if self.used >= self.budget.tokens:  # parallel requests share one budget
                        return self._finish(turn, text, "length")
                    turn.wake()
            raise EngineFailed("the generation ended without a finish reason")
        except asyncio.CancelledError:
            turn.finish = "cancelled"
            raise
        except Exception as error:  # whatever an engine raises is its failure: the episode is lost, not scored
            turn.failed = self.engine_failed = str(error) or type(error).__name__
        finally:
            turn.wake()

    def _finish(self, turn: Turn, text: TextStream, finish: FinishReason | None) -> None:
        turn.parsed, rest = text.finish()
        turn.said = text.said
        if turn.parsed.read:
            turn.params["calls_read"] = turn.parsed.read
        turn.deltas += rest
        turn.finish, turn.stopped_by, turn.reasoning_tokens = finish, text.stopped_by, text.reasoning_tokens
        if finish == "length" and self.used >= self.budget.tokens:  # whatever the agent makes of half an answer
            self.exhausted = self.exhausted or "tokens"
        self.tree.complete(turn)

    def join(self, turn: Turn, listener: asyncio.Event) -> None:
        """`listener` is set whenever the turn has more to show."""
        turn.listeners.add(listener)

    def leave(self, turn: Turn, listener: asyncio.Event) -> None:
        """A client is done with the turn or gone; nobody left, the generation has `grace_s` to end."""
        turn.listeners.discard(listener)
        if turn.clients == 0 and not turn.done:
            asyncio.get_running_loop().call_later(self.grace_s, self._cancel_unless_joined, turn)

    def _cancel_unless_joined(self, turn: Turn) -> None:
        if turn.clients == 0 and not turn.done and turn.task is not None:
            turn.task.cancel()

    async def close(self) -> SessionRecord:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)  # not `await task`, whose end would look like a cancellation of this one
        turns, samples, clock = self.tree.turns, self.tree.samples(self.id), self.clock
        later = {turn.id for turn in turns[self._refused_at :]}
        if self.exhausted == "context" and any(s.kind == "main" and s.id in later for s in samples):
            self.exhausted = ""  # the agent made room for itself, and went on
        if turns and turns[-1].finish == "length" and self._fills_the_context(turns[-1]):
            self.exhausted = self.exhausted or "context"
        refused = self.refused if not turns else ""
        times = (clock.read(), clock.queued_s, clock.held_s)
        return SessionRecord(self.id, samples, self.exhausted, *times, self.engine_failed, refused)

    def _fills_the_context(self, turn: Turn) -> bool:
        return turn.place.prompt_tokens + len(turn.ids) >= self.context
