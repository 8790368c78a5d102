"""A session is a tree of turns: the history an agent sends is matched to the turns that were sampled.

Keeps invariant 1: a turn that comes back canonically unchanged is never re-rendered. The deepest sampled
turn of the history is found by its digest, and what follows is appended to its tokens. Assistant turns which
the agent changed or wrote itself become context (`rewritten`), behind the sampled tokens before them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from crrl.engines.api import FinishReason
from crrl.gateway.api import Ask, Delivery, Sample
from crrl.gateway.canonical import Message, next_digest, split_reasoning, start_digest
from crrl.gateway.renderer import Parsed, Renderer
from crrl.gateway.stream import Delta


@dataclass(eq=False)
class Turn:
    """One generation, from the request on. `request` and `after` are the digests of the conversation before and after
    it; `choice` is its place among the answers of a request for several; `listeners` are woken when there is more."""

    id: str
    request: bytes
    parent: Turn | None
    depth: int
    branch: str
    prompt_ids: list[int]
    choice: int = 0
    params: dict[str, float | int | str | None] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)  # what may be shown so far
    finish: FinishReason | None = None
    failed: str = ""
    parsed: Parsed | None = None
    after: bytes = b""
    delivered: bool = False
    children: int = 0
    listeners: set[asyncio.Event] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    @property
    def clients(self) -> int:
        return len(self.listeners)

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


@dataclass(frozen=True)
class Placement:
    """Where a request belongs: either a turn to replay, or where to grow a new one."""

    request: bytes
    prompt_ids: list[int]
    parent: Turn | None
    branch: str
    replay: Turn | None = None

    @property
    def depth(self) -> int:
        return self.parent.depth + 1 if self.parent else 0


class Tree:
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.turns: list[Turn] = []
        self._by_request: dict[bytes, list[Turn]] = {}
        self._by_after: dict[bytes, Turn] = {}
        self._openings: set[bytes] = set()

    def place(self, ask: Ask, choice: int = 0) -> Placement:
        """Match a request, for one of the answers it wants."""
        messages, tools, retry = ask.messages, ask.tools, ask.retry
        digest = start_digest(tools)
        parent: Turn | None = None
        known = 0  # messages up to and with the deepest sampled turn
        for i, message in enumerate(messages):
            digest = next_digest(digest, message)
            if message.role != "assistant":
                continue
            turn = self._by_after.get(digest)
            if turn is None:
                continue
            if not _reasoning_agrees(message, turn):
                digest = next_digest(digest, Message("changed reasoning", message.reasoning))
                continue
            parent, known = turn, i + 1
        if ask.prompt is not None:
            digest = next_digest(digest, Message("prompt", repr(ask.prompt)))
        same = [t for t in self._by_request.get(digest, []) if t.choice == choice]
        for turn in reversed(same):
            lost = not turn.delivered and turn.clients == 0
            if (lost or (retry and turn is same[-1])) and not turn.failed and turn.finish != "cancelled":
                return Placement(digest, turn.prompt_ids, turn.parent, turn.branch, replay=turn)
        if same:
            return Placement(digest, same[-1].prompt_ids, same[-1].parent, _again(same))
        if ask.prompt is not None:
            raw = ask.prompt if isinstance(ask.prompt, list) else self._renderer.tokenizer.encode(ask.prompt)
            return Placement(digest, list(raw), None, "new" if self.turns else "first")
        appended = messages[known:]
        prompt_ids = self._extend(parent, appended, messages, tools)
        if parent is None:
            opening = next_digest(start_digest(None), messages[0])
            branch = "rewritten" if opening in self._openings else ("new" if self.turns else "first")
            self._openings.add(opening)
        else:
            changed = parent.children or any(m.role == "assistant" for m in appended)
            branch = "rewritten" if changed else ""
            parent.delivered = True  # it came back whole, whatever became of the connection
        return Placement(digest, prompt_ids, parent, branch)

    def _extend(
        self,
        parent: Turn | None,
        appended: list[Message],
        messages: list[Message],
        tools: list[dict[str, Any]] | None,
    ) -> list[int]:
        if parent is None:
            return self._renderer.prompt(messages, tools)
        prompt_ids, ids = parent.prompt_ids, parent.ids
        pending: list[Message] = []
        for message in appended:
            if message.role != "assistant":
                pending.append(message)
                continue
            if pending:
                prompt_ids, pending = self._renderer.bridge(prompt_ids, ids, pending), []
                ids = self._renderer.assistant(split_reasoning(message))
            else:  # two assistant messages in a row: the later goes behind the earlier's close
                prompt_ids = self._renderer.bridge(prompt_ids, ids, [])
                ids = self._renderer.assistant(split_reasoning(message))
        return self._renderer.bridge(prompt_ids, ids, pending)

    def add(self, turn: Turn) -> None:
        if turn.parent is not None:
            turn.parent.children += 1
        self.turns.append(turn)
        self._by_request.setdefault(turn.request, []).append(turn)

    def complete(self, turn: Turn) -> None:
        """The turn was sampled to its end and parsed: know it again when it comes back."""
        assert turn.parsed is not None
        answer = Message("assistant", turn.parsed.content, turn.parsed.calls, turn.parsed.reasoning)
        turn.after = next_digest(turn.request, answer)
        self._by_after[turn.after] = turn

    def samples(self, session: str) -> list[Sample]:
        """The record, in the order of the requests. Failed turns that sampled nothing leave none."""
        kept = [t for t in self.turns if t.ids or t.whole]
        deliveries = _deliveries(kept)
        return [
            Sample(
                id=t.id,
                session=session,
                parent=t.parent.id if t.parent else None,
                prompt_ids=t.prompt_ids,
                ids=t.ids,
                logprobs=t.logprobs,
                versions=t.versions,
                params=t.params,
                delivery=deliveries[t.id],
                finish=t.finish or "cancelled",
                branch=t.branch,
            )
            for t in kept
        ]

    def branches(self) -> dict[str, int]:
        return dict(Counter(t.branch for t in self.turns if t.branch))


def _again(same: list[Turn]) -> str:
    return "resampled" if any(t.delivered or t.clients for t in same) else "retried"


def _reasoning_agrees(message: Message, turn: Turn) -> bool:
    """Dropped reasoning is the same turn; other reasoning than was sampled is not."""
    sent = split_reasoning(message).reasoning.strip()
    return not sent or turn.parsed is None or sent == turn.parsed.reasoning.strip()


def _deliveries(turns: list[Turn]) -> dict[str, Delivery]:
    """Of several answers to one request, those the agent went on from were used (the last, if from none)."""
    by_request: dict[bytes, list[Turn]] = {}
    for turn in turns:
        if turn.delivered and turn.whole:
            by_request.setdefault(turn.request, []).append(turn)
    result: dict[str, Delivery] = {turn.id: "dropped" for turn in turns}
    for answers in by_request.values():
        used = [t for t in answers if t.children] or answers[-1:]
        for turn in answers:
            result[turn.id] = "delivered" if turn in used else "superseded"
    return result
