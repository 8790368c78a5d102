"""`Turn`: one generation of a session, and `Placement`: where its request belongs in the session's tree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from crrl.engines.api import FinishReason
from crrl.gateway.api import prompt_of
from crrl.gateway.canonical import Message
from crrl.gateway.kinds import Signs
from crrl.gateway.renderer import Parsed
from crrl.gateway.stream import Delta


@dataclass(frozen=True)
class Placement:
    """Where a request belongs: either a turn to replay, or where to grow a new one.

    Args:
        request: digest of all that makes the request what it is; history: of the conversation that the answer
            continues.
        appended: the prompt behind `parent`'s prompt and ids; prompt_tokens: length of the whole.
        parent: the sampled turn whose tokens the prompt extends.
        spliced: sampled turns behind it in the prompt, which are no ancestors.
        changed: the prompt holds assistant turns that were not sampled here as they stand.
        passed: turns whose very request the history repeats, and goes on from there without their answer.
        begun: the prompt ends with these ids, the beginning of the answer that the client wrote (`begun.py`).
        raw: the prompt was no messages. text: where it was text, what it has behind that of `parent` and its answer.
    """

    request: bytes
    history: bytes
    appended: list[int]
    prompt_tokens: int
    parent: Turn | None
    signs: Signs
    spliced: tuple[Turn, ...] = ()
    changed: bool = False
    passed: tuple[Turn, ...] = ()
    begun: tuple[int, ...] = ()
    raw: bool = False
    text: str | None = None
    replay: Turn | None = None

    @property
    def depth(self) -> int:
        return self.parent.place.depth + 1 if self.parent else 0


@dataclass(eq=False)
class Turn:
    """One generation, from the request on. `choice` is its place among the answers of a request for several;
    `times` are seconds since the epoch on our side of the wire; `asked` says when it was asked for, in the tree's own
    count of requests, once more for each replay; `listeners` are woken when there is more."""

    id: str
    place: Placement
    choice: int = 0
    params: dict[str, float | int | str | None] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)  # what may be shown so far
    times: dict[str, float] = field(default_factory=lambda: {"received": time.time()})
    finish: FinishReason | None = None
    failed: str = ""
    parsed: Parsed | None = None  # what was sampled
    said: Parsed | None = None  # the whole turn: with what the client began
    stopped_by: str = ""  # the stop string that ended it
    reasoning_tokens: int = 0
    delivered: bool = False
    asked: list[int] = field(default_factory=list)
    listeners: set[asyncio.Event] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    @property
    def request(self) -> bytes:
        return self.place.request

    @property
    def parent(self) -> Turn | None:
        return self.place.parent

    @property
    def before(self) -> Turn | None:
        return self.place.parent

    @property
    def appended(self) -> list[int]:
        return self.place.appended

    @property
    def prompt_ids(self) -> list[int]:
        """The whole prompt: a new list."""
        return prompt_of(self)

    @property
    def prompt_tokens(self) -> int:
        return self.place.prompt_tokens

    @property
    def tokens(self) -> int:
        """Of prompt and answer."""
        return self.place.prompt_tokens + len(self.ids)

    @property
    def clients(self) -> int:
        return len(self.listeners)

    def sampled(self, ids: Sequence[int], logprobs: Sequence[float], versions: Sequence[int]) -> None:
        """The next tokens."""
        self.ids += ids
        self.logprobs += logprobs
        self.versions += versions
        now = time.time()
        self.times.setdefault("first", now)
        self.times["last"] = now

    def wake(self) -> None:
        for listener in self.listeners:
            listener.set()

    @property
    def done(self) -> bool:
        return self.finish is not None or bool(self.failed)

    @property
    def whole(self) -> bool:
        """Sampled to its end: it can be delivered, and continued."""
        return self.finish in ("stop", "length") and not self.failed

    @property
    def answer(self) -> Message:
        """As it comes back."""
        assert self.said is not None
        return Message("assistant", self.said.content, self.said.calls, self.said.reasoning)
