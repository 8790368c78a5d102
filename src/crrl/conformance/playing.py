"""Recorded answers in the tokens of any family, and the engine that gives them.

A recording holds text. A policy of this family would have sampled it in the family's own form, which the renderer
writes; what the family has no form for (reasoning, several calls, text beside a call, arguments that are no JSON) is
not played, and then not expected back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from crrl.conformance.recording import Reply
from crrl.engines.api import Chunk, Request
from crrl.engines.scripted import ScriptedEngine
from crrl.gateway.begun import behind
from crrl.gateway.canonical import Call, Message, is_object, split_reasoning
from crrl.gateway.forced import PROBE, WRITTEN
from crrl.gateway.renderer import Renderer, RenderError
from crrl.gateway.renderer.api import arguments_text

CONTEXT = 1 << 20


class Player(ScriptedEngine):
    """The engine, and its next answer. It gives recorded answers whole, as the recorded server did, which ignored the
    requested length. `log`: prompts and answers, in the order of the requests."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__(self._recite, context=CONTEXT)
        self.renderer = renderer
        self._next: list[int] = []
        self._begun = False
        self.log: list[tuple[list[int], list[int]]] = []

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        return super().generate(replace(request, max_tokens=CONTEXT))

    def _recite(self, prompt_ids: list[int]) -> list[int]:
        ids = self._next if self._begun else behind(self.renderer, prompt_ids, self._next)
        self.log.append((prompt_ids, ids))
        return ids

    def say(self, reply: Reply, begun: str = "") -> Reply:
        """Sets the next answer; returns what an agent will read in it. `begun`: the client has this."""
        self._begun = bool(begun)
        self._next, expected = played(self.renderer, reply)
        if begun:
            self._next = [*self.renderer.tokenizer.encode(reply.text), self.renderer.stop_ids[0]]
        return expected


def played(renderer: Renderer, reply: Reply) -> tuple[list[int], Reply]:
    """The ids of an answer, and the answer that can be read in them."""
    whole = split_reasoning(Message("assistant", reply.text, reasoning=reply.reasoning or ""))
    calls = list(reply.calls)
    try:
        ids, calls = _turn(renderer, whole, calls)
    except RenderError:  # families with room for one call
        ids, calls = _turn(renderer, whole, calls[:1])
    ids = _reasoned(renderer, whole, ids)
    shown = flat(renderer.tokenizer.decode(ids))
    text = whole.content if flat(whole.content) in shown else ""
    reasoning = whole.reasoning if whole.reasoning and flat(whole.reasoning) in shown else None
    return ids, Reply(text, reasoning, tuple(calls))


def _turn(
    renderer: Renderer, whole: Message, calls: list[tuple[str, str, str]]
) -> tuple[list[int], list[tuple[str, str, str]]]:
    broken = [arguments for _, _, arguments in calls if not is_object(arguments)]
    probed = [Call(name, text if is_object(text) else PROBE) for _, name, text in calls]
    ids = renderer.assistant(replace(whole, calls=probed))
    if not broken:
        return ids, calls
    text = renderer.tokenizer.decode(ids)
    if len(WRITTEN.findall(text)) == len(broken):
        left = iter(broken)
        return renderer.tokenizer.encode(WRITTEN.sub(lambda _: next(left), text)), calls
    # It writes arguments one by one, so these are one of them.
    calls = [(id, name, t if is_object(t) else arguments_text({"arguments": t})) for id, name, t in calls]
    return renderer.assistant(replace(whole, calls=[Call(name, t) for _, name, t in calls])), calls


def _reasoned(renderer: Renderer, whole: Message, ids: list[int]) -> list[int]:
    """With the reasoning, where the family writes none in this mode and a policy may think all the same."""
    opened, closed = renderer.think_open, renderer.think_close
    if not whole.reasoning or opened is None or closed is None or closed in ids:
        return ids
    encode = renderer.tokenizer.encode
    thinking = [opened, *encode(f"\n{whole.reasoning}\n"), closed, *encode("\n\n"), *ids]
    return thinking if renderer.parse(thinking, None).reasoning == whole.reasoning.strip() else ids


def flat(text: str) -> str:
    """Without white space, which templates add and take away."""
    return "".join(text.split())
