"""A session is a tree of turns: the history an agent sends is matched to the turns that were sampled.

Keeps invariant 1: a turn that comes back canonically unchanged is never re-rendered. The deepest sampled turn of
the history is found by its digest, and what follows is appended to its tokens. Sampled turns that come back
elsewhere (behind another system prompt, other tools, a summary) are spliced in as they were sampled, too; assistant
turns that the agent changed or wrote itself are rendered. Both are context there, outside the loss.

What a turn was in the end (its kind, branch and delivery) is read off the whole tree by `outcome.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from crrl.gateway.api import Ask, Sample, path_to
from crrl.gateway.begun import behind, ids_of, joined, split
from crrl.gateway.canonical import (
    Message,
    canonical,
    is_object,
    next_digest,
    same_reasoning,
    split_reasoning,
    start_digest,
)
from crrl.gateway.kinds import Signs
from crrl.gateway.ledger import addressed, template_hash
from crrl.gateway.outcome import outcomes
from crrl.gateway.renderer import Renderer
from crrl.gateway.turn import Placement, Turn


class PrefixChanged(Exception):
    """Tokens that were sampled came back otherwise (invariant 1): a defect of ours, never of the agent."""


class Tree:
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.turns: list[Turn] = []
        self._requests = 0
        self._by_request: dict[bytes, list[Turn]] = {}
        self._by_history: dict[bytes, list[Turn]] = {}
        self._by_after: dict[bytes, list[Turn]] = {}
        self._by_answer: dict[bytes, list[Turn]] = {}
        self._latest: tuple[Placement | None, list[int]] = (None, [])  # the one prompt that is kept whole

    def place(self, ask: Ask, choice: int = 0) -> Placement:
        """Match a request, for one of the answers it wants."""
        self._requests += 1
        if ask.prompt is not None:
            return self._place_raw(ask, ask.prompt, choice)
        messages, begun = split(self._joined([self._as_sampled(message) for message in ask.messages]))
        digest = start_digest(ask.tools)
        parent: Turn | None = None
        known = 0  # messages up to and with the deepest sampled turn
        passed: list[Turn] = []
        for i, message in enumerate(messages):
            if message.role != "assistant":
                passed += self._by_history.get(digest, ())
            digest = next_digest(digest, message)
            if message.role != "assistant" or not (found := self._by_after.get(digest)):
                continue
            turn = _unchanged(found, message)
            if turn is None:
                digest = next_digest(digest, Message("changed reasoning", message.reasoning))
            else:
                parent, known = turn, i + 1
        request = _request(digest if begun is None else next_digest(digest, begun), ask)
        if (asked := self._asked_before(request, ask, choice)) is not None:
            return asked
        begun_ids: list[int] = []
        before = self._begun_before(digest, begun)
        if before is not None:
            prompt_ids, begun_ids = self._parts(before)
            parent, spliced, changed = before.parent, [before], before.place.changed
            if begun_ids[-1] in self._renderer.stop_ids:
                begun_ids = begun_ids[:-1]
            else:
                parent = before
        else:
            prompt_ids, spliced, changed = self._prompt(parent, messages, known, ask)
            if begun is not None and (same := self._taken_up(begun)) is not None:
                spliced = [*spliced, same]  # it was sampled behind another history: the same tokens, not the same text
                said = [*same.place.begun, *same.ids]
                whole = said[:-1] if said[-1] in self._renderer.stop_ids else said
                begun_ids = behind(self._renderer, prompt_ids, whole)
            elif begun is not None:
                begun_ids = behind(self._renderer, prompt_ids, ids_of(self._renderer, begun))
        prompt_ids = [*prompt_ids, *begun_ids] if begun_ids else prompt_ids
        appended = self._behind(parent, prompt_ids)
        for turn in spliced if parent is None else (parent, *spliced):
            turn.delivered = True  # it came back whole, whatever became of the connection
        place = Placement(
            *(request, digest, appended, len(prompt_ids), parent, Signs.of(ask)),
            spliced=tuple(spliced),
            changed=changed,
            passed=tuple(passed),
            begun=tuple(begun_ids),
        )
        self._latest = (place, prompt_ids)
        return place

    def _begun_before(self, history: bytes, begun: Message | None) -> Turn | None:
        """The turn that was sampled there and is to go on: it was cut, or is taken up again."""
        found = self._by_after.get(next_digest(history, begun)) if begun is not None else None
        turn = _unchanged(found, begun) if found and begun is not None else None
        return None if turn is None or turn.stopped_by else turn  # a stop string is sampled, but not shown

    def _taken_up(self, begun: Message) -> Turn | None:
        """A turn of this session that says the same, behind whatever history."""
        turn = self._sampled(begun)
        return None if turn is None or turn.stopped_by else turn

    def _joined(self, messages: list[Message]) -> list[Message]:
        """A turn that the client began and that came back as its beginning and the rest is one message again."""
        found: list[Message] = []
        for message in messages:
            if found and message.role == found[-1].role == "assistant" and not found[-1].calls:
                whole = joined(found[-1], message)
                if any(turn.place.begun for turn in self._by_answer.get(canonical(whole), ())):
                    found[-1] = whole
                    continue
            found.append(message)
        return found

    def _parts(self, turn: Turn) -> tuple[list[int], list[int]]:
        """The ids of a turn's prompt, and of all that it said; put together, they are the engine's."""
        prompt_ids, begun = self.prompt_ids(turn), turn.place.begun
        if not begun:
            return prompt_ids, turn.ids
        return prompt_ids[: -len(begun)], [*begun, *turn.ids]

    def prompt_ids(self, turn: Turn) -> list[int]:
        """The turn's whole prompt, not to be changed. That of the request placed last costs nothing: it is what the
        engine is asked, and what the next turn nearly always goes on from."""
        place, prompt_ids = self._latest
        return prompt_ids if turn.place is place else turn.prompt_ids

    def _behind(self, parent: Turn | None, prompt_ids: list[int]) -> list[int]:
        """What a prompt appends to its parent's tokens. Raises PrefixChanged: it does not begin with them."""
        if parent is None:
            return prompt_ids
        before = self.prompt_ids(parent)
        if prompt_ids[: len(before)] != before or prompt_ids[len(before) : parent.tokens] != parent.ids:
            raise PrefixChanged(f"the renderer changed tokens that came before what it appended to turn {parent.id}")
        return prompt_ids[parent.tokens :]

    def _asked_before(self, request: bytes, ask: Ask, choice: int) -> Placement | None:
        """The place of an identical request; with the turn that answers this one, if its answer never arrived."""
        same = self._by_request.get(request)
        if not same:
            return None
        mine = [turn for turn in same if turn.choice == choice]
        for turn in reversed(mine):
            lost = not turn.delivered and turn.clients == 0
            if (lost or (ask.retry and turn is mine[-1])) and not turn.failed and turn.finish != "cancelled":
                turn.asked.append(self._requests)
                return replace(turn.place, replay=turn)
        return same[-1].place

    def _prompt(
        self, parent: Turn | None, messages: list[Message], known: int, ask: Ask
    ) -> tuple[list[int], list[Turn], bool]:
        """The ids of a history whose first `known` messages are `parent`'s; the sampled turns spliced into the rest;
        and whether other assistant turns had to be rendered."""
        rest = messages[known:]
        found = {i: self._sampled(message) for i, message in enumerate(rest) if message.role == "assistant"}
        spliced = [turn for turn in found.values() if turn is not None]
        changed = len(spliced) < len(found)
        ids: list[int] | None = None  # of the assistant turn that the prompt ends with
        if parent is not None:
            prompt_ids, ids = self._parts(parent)
        elif not spliced or rest[0].role == "assistant":
            return self._renderer.prompt(messages, ask.tools), [], bool(found)
        else:
            first = min(found)
            prompt_ids = self._renderer.prompt(rest[:first], ask.tools)
            rest, found = rest[first:], {i - first: turn for i, turn in found.items()}
        pending: list[Message] = []
        for i, message in enumerate(rest):
            if i not in found:
                pending.append(message)
                continue
            if ids is not None:
                prompt_ids = self._renderer.bridge(prompt_ids, ids, pending)
            turn, pending = found[i], []
            if turn is not None:
                ids = [*turn.place.begun, *turn.ids]
            else:
                ids = self._renderer.assistant(split_reasoning(message))
        assert ids is not None
        return self._renderer.bridge(prompt_ids, ids, pending), spliced, changed

    def _sampled(self, message: Message) -> Turn | None:
        """A turn of this session that says the same, wherever it was sampled."""
        found = self._by_answer.get(canonical(message))
        return _unchanged(found, message) if found else None

    def _as_sampled(self, message: Message) -> Message:
        """A call whose arguments are no JSON object was, for the policy, the text that it wrote."""
        if all(is_object(call.arguments) for call in message.calls):
            return message
        parsed = self._renderer.parse(self._renderer.assistant(split_reasoning(message)))
        return Message("assistant", parsed.content, parsed.calls, message.reasoning)

    def _place_raw(self, ask: Ask, prompt: str | list[int], choice: int) -> Placement:
        """A prompt that is no messages continues the turn whose prompt and answer it begins with."""
        digest = next_digest(start_digest(None), Message("raw", repr(prompt)))
        request = _request(digest, ask)
        if (asked := self._asked_before(request, ask, choice)) is not None:
            return asked
        parent = max(
            (turn for turn in self.turns if self._is_continued(turn, prompt)),
            key=lambda turn: turn.prompt_tokens,
            default=None,
        )
        text = prompt if isinstance(prompt, str) else None
        if isinstance(prompt, list):
            appended = prompt[parent.tokens if parent is not None else 0 :]
        elif parent is None:
            appended = self._renderer.tokenizer.encode(prompt)
        else:
            text = prompt[len(_shown(parent)) :]
            stopped = parent.ids[-1] in self._renderer.stop_ids
            stop = self._renderer.tokenizer.decode(parent.ids[-1:]) if stopped else ""
            appended = self._renderer.tokenizer.encode(text.removeprefix(stop))
        tokens = len(appended) + (parent.tokens if parent is not None else 0)
        return Placement(request, digest, appended, tokens, parent, Signs.of(ask), raw=True, text=text)

    def _is_continued(self, turn: Turn, prompt: str | list[int]) -> bool:
        """Whether a raw prompt begins with a turn's own and its answer."""
        if not turn.whole:
            return False
        if isinstance(prompt, list):
            return len(prompt) >= turn.tokens and prompt[: turn.tokens] == turn.prompt_ids + turn.ids
        return turn.place.text is not None and bool(turn.answer.content) and prompt.startswith(_shown(turn))

    def add(self, turn: Turn) -> None:
        turn.asked.append(self._requests)
        self.turns.append(turn)
        self._by_request.setdefault(turn.request, []).append(turn)
        self._by_history.setdefault(turn.place.history, []).append(turn)

    def complete(self, turn: Turn) -> None:
        """The turn was sampled to its end and parsed: it is known again when it comes back."""
        if not turn.whole or turn.place.raw:
            return
        answer = turn.answer
        self._by_after.setdefault(next_digest(turn.place.history, answer), []).append(turn)
        self._by_answer.setdefault(canonical(answer), []).append(turn)

    def samples(self, session: str) -> list[Sample]:
        """The record, in the order of the requests. Failed turns that sampled nothing leave none."""
        template = template_hash(self._renderer)
        return addressed(
            Sample(
                id=turn.id,
                session=session,
                parent=turn.parent.id if turn.parent else None,
                appended=turn.appended,
                ids=turn.ids,
                logprobs=turn.logprobs,
                versions=turn.versions,
                params=turn.params,
                kind=outcome.kind,
                delivery=outcome.delivery,
                finish=turn.finish or "cancelled",
                branch=outcome.branch,
                template=template,
                times=turn.times,
            )
            for turn, outcome in zip(self.turns, outcomes(self.turns), strict=True)
            if turn.ids or turn.whole
        )


def _shown(turn: Turn) -> str:
    """The text of a raw prompt, and of its answer."""
    return "".join((each.place.text or "") + each.answer.content for each in path_to(turn))


def _unchanged(found: list[Turn], message: Message) -> Turn | None:
    """Of turns whose canonical answer is the message's, the latest that the agent can mean."""
    same = [turn for turn in found if same_reasoning(message, turn.answer)]
    return next((turn for turn in reversed(same) if turn.delivered), same[-1] if same else None)


def _request(digest: bytes, ask: Ask) -> bytes:
    """What else makes a request this one and no other."""
    how: tuple[Any, ...] = (ask.stop, ask.tool_choice, ask.parallel_calls)
    if ask.forced is not None:
        how += (ask.forced,)
    return next_digest(digest, Message("request", msgspec.json.encode(how).decode()))
