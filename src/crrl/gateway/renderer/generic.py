"""A renderer for any chat template that only ever appends; `proof.proved` makes one, and proves what it relies on.

The bridge finds what a template appends to a turn by rendering a short conversation with and without the new messages,
and cutting at the turn's end. The proof shows that the template appends the same to a long conversation, leaves
everything before unchanged, and writes calls that read back as they were written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer.api import FastTokenizer, FirstPrompts, Parsed, RenderError, Tools
from crrl.gateway.renderer.arguments import Schemas
from crrl.gateway.renderer.calls import CallFormat, Marked, NoCalls, formats
from crrl.gateway.renderer.habits import HARD, differences
from crrl.gateway.renderer.habits import TOOLS as HARD_TOOLS
from crrl.gateway.renderer.lenient import Read, strict
from crrl.gateway.renderer.places import Places
from crrl.gateway.renderer.template import ChatTemplate, Refusal

_USER = Message("user", "ask")
_ANSWER = Message("assistant", "said")
_CALL = Call("look", '{"at":"here"}')
_THOUGHT = "thought"
_REASONING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))


class GenericRenderer:
    """Args:
    tokenizer: a fast transformers tokenizer with a chat template.
    tools: False: proves only text, and refuses a request with tools.

    Raises:
        Refusal: the template breaks; says at which turn, and how.
    """

    def __init__(self, tokenizer: Any, key: str, *, tools: bool) -> None:
        self.key = key
        self.tokenizer = FastTokenizer(tokenizer.backend_tokenizer, tokenizer.name_or_path)
        self._template = ChatTemplate(tokenizer)
        self.tools = tools
        self.reads: Read = strict
        self._special = self.tokenizer.marks()
        self._head = self._template.render([_USER], answer=True)
        self._learn_reasoning()
        self._answer = self.thinking(replace(_ANSWER, reasoning=_THOUGHT)) if self.opens else _ANSWER
        self.stop_ids = [self._learn_end()]
        eos = self.tokenizer.convert_tokens_to_ids(tokenizer.eos_token) if tokenizer.eos_token else None
        if eos is not None and eos not in self.stop_ids:
            self.stop_ids.append(eos)
        self._stops = frozenset(self.stop_ids)
        self._stop_texts = [self.tokenizer.decode([token]) for token in self.stop_ids]
        self.format: CallFormat = NoCalls()
        self._python = False
        if tools:
            self.format = self._learn_calls()
        self.several_calls = tools and self._renders([*self._short([_CALL, _CALL]), *[Message("tool", "x")] * 2])
        if isinstance(self.format, Marked):
            self.format = replace(self.format, several=self.several_calls)
        self.call_start = self.format.call_start
        self.lead = ""
        self.marks = (self._special | self._stops) - {self.think_open, self.think_close}
        self.prompt = FirstPrompts(self._prompt)
        self.places = Places(lambda messages, tools: self._template.render(messages, tools, answer=True), tools=tools)

    @property
    def systems(self) -> str:
        """Where it shows system messages (`places.py`)."""
        return self.places.rule

    # Messages to ids ------------------------------------------------------------------------------------------------

    def _prompt(self, messages: list[Message], tools: Tools) -> list[int]:
        self._refuse(messages, bool(tools))
        shown = [_anonymous(m) for m in self.places.placed(messages)]
        return self.tokenizer.encode(self._template.render(shown, tools, answer=True))

    def bridge(self, prompt_ids: list[int], ids: list[int], appended: list[Message]) -> list[int]:
        self._refuse(appended)
        close = [] if ids and ids[-1] in self._stops else self.stop_ids[:1]
        calls = self.parse(ids).calls
        return [*prompt_ids, *ids, *close, *self._tail(calls, self.places.behind(appended, len(calls)))]

    def _tail(self, calls: list[Call], appended: list[Message]) -> list[int]:
        """What the template puts behind the end of a turn, which made these calls."""
        short = self._short([replace(call, arguments=_CALL.arguments) for call in calls])
        before = self._template.render(short, answer=False)
        whole = self._template.render([*short, *appended], answer=True)
        end = self.end_of_turn(before, self._head)
        if whole[:end] != before[:end]:
            roles = ", ".join(m.role for m in appended) or "nothing"
            raise RenderError(f"the model's chat template cannot put {roles} behind an answer and leave that alone")
        stop = next(stop for stop in self._stop_texts if before[:end].endswith(stop))
        return self.tokenizer.encode(stop + whole[end:])[1:]  # behind its stop token, as in a whole render

    def assistant(self, message: Message) -> list[int]:
        message = _anonymous(message)
        for shown in (message, replace(message, reasoning=""), replace(message, reasoning=_THOUGHT)):
            text = self._template.render([_USER, self.thinking(shown)], answer=False)
            if not text.startswith(self._head):
                continue
            said = text[len(self._head) : self.end_of_turn(text, self._head)]
            if shown.reasoning == _THOUGHT != message.reasoning:  # behind open reasoning: it thought nothing
                said = said.replace(_THOUGHT, "", 1)
            return self.tokenizer.encode(said)
        raise RenderError("the model's chat template does not keep its own generation prompt before this answer")

    def thinking(self, message: Message) -> Message:
        """The message with its reasoning in the place where the template takes it."""
        if not self._folded or not message.reasoning or self.think is None:
            return message
        opened, closed = self.think
        content = f"{opened}\n{message.reasoning}\n{closed}\n\n{message.content}"
        return replace(message, content=content, reasoning="")

    def end_of_turn(self, text: str, head: str) -> int:
        """Where the turn ends that begins behind `head`: behind its first stop token."""
        ends = [at + len(stop) for stop in self._stop_texts if (at := text.find(stop, len(head))) >= 0]
        if not ends:
            raise RenderError("the model's chat template leaves an answer without an end")
        return min(ends)

    def _short(self, calls: list[Call]) -> list[Message]:
        content = self._answer.content.removesuffix(_ANSWER.content) if calls else self._answer.content
        return [_USER, replace(self._answer, content=content, calls=calls)]

    # Ids to messages ------------------------------------------------------------------------------------------------

    def opens_in_reasoning(self, prompt_ids: list[int]) -> bool:
        return self.opens  # behind everything: the proof has seen it

    def parse(self, ids: list[int], tools: Tools = None, prompt_ids: list[int] | None = None) -> Parsed:
        end = next((i for i, token in enumerate(ids) if token in self._stops), len(ids))
        reasoning, rest = self._split(ids[:end])
        said = self.format.read(rest, self.tokenizer.decode, Schemas(tools, python=self._python))
        parsed = Parsed(said.content.strip(), reasoning.strip(), said.calls, said.malformed)
        return self.reads(parsed, tools)

    def _split(self, ids: list[int]) -> tuple[str, list[int]]:
        """Reasoning, and the ids behind it."""
        decode = self.tokenizer.decode
        if self.think_open is None or self.think_close is None:
            return "", ids
        start = ids.index(self.think_open) + 1 if self.think_open in ids else 0
        opened = start > 0 and not decode(ids[: start - 1]).strip()
        if not opened and not self.opens:
            return "", ids
        start = start if opened else 0
        if self.think_close not in ids[start:]:
            return decode(ids[start:]), []
        end = ids.index(self.think_close, start)
        return decode(ids[start:end]), ids[end + 1 :]

    # What the template shows of itself ------------------------------------------------------------------------------

    def _refuse(self, messages: list[Message], tools: bool = False) -> None:
        """Refuses what was not proved."""
        if not self.tools and (tools or any(m.calls or m.role == "tool" for m in messages)):
            raise RenderError(f"renderer.key={self.key} renders only text, and this request has tools")

    def _learn_reasoning(self) -> None:
        source = self._template.source + self._head
        self.think = next((pair for pair in _REASONING if any(mark in source for mark in pair)), None)
        self.think_open, self.think_close, self._folded, self.opens = None, None, False, False
        if self.think is None:
            return
        opened, closed = self.think
        self.think_open, self.think_close = map(self.tokenizer.convert_tokens_to_ids, self.think)
        if self.think_open is None or self.think_close is None:
            raise Refusal("reasoning", f"it writes {opened} and {closed}, which are no tokens of the tokenizer")
        self.opens = self._head.rfind(opened) > self._head.rfind(closed)
        shown = self._template.render([_USER, replace(_ANSWER, reasoning=_THOUGHT)], answer=False)
        self._folded = _THOUGHT not in shown

    def _learn_end(self) -> int:
        """The token that ends an answer."""
        turn = "an answer to a user message"
        text = self._template.render([_USER, self._answer], answer=False)
        if not text.startswith(self._head):
            raise Refusal.at(turn, "does not keep the generation prompt before it", self._head, text)
        behind = text.rpartition(_ANSWER.content)[2]
        ids = self.tokenizer.encode(behind)
        stop = next((i for i, token in enumerate(ids) if token in self._special), None)
        if stop is None or self.tokenizer.decode(ids[:stop]).strip():
            raise Refusal(turn, f"its end, {behind!r}, is no token of the tokenizer")
        return ids[stop]

    def _learn_calls(self) -> CallFormat:
        """The format in which the template writes calls: the one that reads back what it wrote."""
        turn = "a tool call"
        written = self._writes(turn, _CALL)
        self._python = "False" in self.tokenizer.decode(self._writes(turn, Call("f", '{"x":false}')))
        candidates = [one for one in formats(self.tokenizer.convert_tokens_to_ids) if self._reads(one, written)]
        if not candidates:
            text = self.tokenizer.decode(written)
            raise Refusal(turn, f"it writes {text!r}, which is no form of call that is known here")
        hard = self._writes(turn, HARD)
        for self.format in candidates:
            different = differences(HARD, self.parse(hard, HARD_TOOLS).calls)
            if not different:
                return self.format
        raise Refusal(turn, different)

    def _writes(self, turn: str, call: Call) -> list[int]:
        try:
            text = self._template.render(self._short([call]), answer=False)
            if not text.startswith(self._head):
                raise Refusal.at(turn, "does not keep the generation prompt before it", self._head, text)
            return self.tokenizer.encode(text[len(self._head) : self.end_of_turn(text, self._head)])
        except RenderError as error:
            raise Refusal(turn, str(error)) from error

    def _reads(self, candidate: CallFormat, written: list[int]) -> bool:
        self.format = candidate
        return [(c.name, c.arguments) for c in self.parse(written).calls] == [(_CALL.name, _CALL.arguments)]

    def _renders(self, messages: list[Message]) -> bool:
        try:
            return bool(self._template.render(messages, answer=True))
        except RenderError:
            return False


def _anonymous(message: Message) -> Message:
    """Without the agent's own call ids."""
    return replace(message, calls=[replace(call, id="") for call in message.calls]) if message.calls else message
