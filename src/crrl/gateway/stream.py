"""What may be shown of a turn while it is being sampled, and what the whole turn is.

Keeps the streamed answer equal to the other one: the deltas of a turn, put together, are its `Parsed`. Text is shown
only where no later token can change how it is parsed (white space that may be the end, half characters and beginnings
of stop strings are held back), reasoning and content each in its place, a tool call when it is closed. What can no
longer be told token by token follows, parsed, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tokenizers.decoders import DecodeStream

from crrl.gateway.api import Ask
from crrl.gateway.canonical import Call
from crrl.gateway.renderer import Parsed, Renderer
from crrl.gateway.renderer.lenient import BEGINNINGS, strict

_EARLY_PARSES = 64  # per turn: a policy that babbles call marks must not cost quadratic time


@dataclass(frozen=True)
class Delta:
    """One thing to show. `index`: of the call; `upto`: how many sampled tokens had been seen when it was shown."""

    kind: Literal["reasoning", "content", "call"]
    text: str = ""
    call: Call | None = None
    index: int = 0
    upto: int = 0


class TextStream:
    """One generation: `feed` it what the engine samples until it has `stopped`, then `finish`.

    `ids` are the tokens used; what the same chunk holds behind the end of the turn is not among them. `begun`: the ids
    behind the prompt with which the client began the turn; they are part of it and not shown. `said`: the whole turn.
    """

    def __init__(self, renderer: Renderer, ask: Ask, prompt_ids: list[int], begun: Sequence[int] = ()) -> None:
        self.ids: list[int] = []
        self.said = Parsed("")
        self._begun = len(begun)
        self._turn: list[int] = []  # with its beginning
        self.stopped = False  # by a stop string, or the only call that was allowed
        self.stopped_by = ""  # the stop string
        self._renderer = renderer
        self._ask = ask
        self._prompt_ids = prompt_ids
        self._stops = frozenset(renderer.stop_ids)
        self._open, self._close = (
            renderer.tokenizer.decode([mark]) if mark is not None else text
            for mark, text in ((renderer.think_open, "<think>"), (renderer.think_close, "</think>"))
        )
        self._calls = self._parses = 0
        self._shown: dict[str, list[str]] = {"reasoning": [], "content": []}
        self._place: Literal["start", "reasoning", "content", "calls", "closed"] = "start"
        if ask.prompt is not None:
            self._place = "content"
        elif renderer.opens_in_reasoning(prompt_ids):
            self._place = "reasoning"
        self._enter(self._place)
        self._given = {"reasoning": "", "content": ""}
        if begun:
            self._begin(list(begun))

    def _begin(self, begun: list[int]) -> None:
        """The client has these already: they count as shown."""
        for token in begun:
            self._turn.append(token)
            self._token(token, [])
        text = self._renderer.tokenizer.decode(begun)
        parsed = self._renderer.parse(self._turn, self._ask.tools or [], self._prompt_ids)
        edge = text[len(text.rstrip()) :] if parsed.content else ""
        self._given = {"reasoning": parsed.reasoning, "content": parsed.content + edge}
        self._shown = {kind: [text] if text else [] for kind, text in self._given.items()}
        self._held, self.stopped, self.stopped_by = "", False, ""  # whatever it says

    def _behind(self, kind: str, whole: str) -> str:
        """A part of the turn without what the client has; that may have turned out to begin a call."""
        given = self._given[kind]
        return whole[len(given) :] if whole.startswith(given) else ""

    def feed(self, ids: list[int]) -> list[Delta]:
        deltas: list[Delta] = []
        for token in ids:
            if self.stopped:
                break
            self.ids.append(token)
            self._turn.append(token)
            if self._ask.prompt is not None:
                self._raw(token, deltas)
            else:
                self._token(token, deltas)
        return deltas

    def finish(self) -> tuple[Parsed, list[Delta]]:
        """What was sampled, and what was not shown of it yet. ValueError: the renderer parses the turn as something
        else than its beginning, which has been shown."""
        self.said = self._parsed()
        deltas: list[Delta] = []
        self._rest("reasoning", self.said.reasoning, deltas)
        self._rest("content", self.said.content, deltas)
        for i in range(self._calls, len(self.said.calls)):
            deltas.append(Delta("call", "", self.said.calls[i], i, len(self.ids)))
        sampled = self.said
        if self._begun:
            content = self._behind("content", sampled.content)
            sampled = replace(sampled, content=content, reasoning=self._behind("reasoning", sampled.reasoning))
        self._reasoned = bool(sampled.reasoning)
        return sampled, deltas

    def _parsed(self) -> Parsed:
        raw = [t for t in self._turn if t not in self._stops]
        if self._ask.prompt is not None:
            parsed = Parsed(self._renderer.tokenizer.decode(raw))
        else:
            parsed = self._renderer.parse(self._turn, self._ask.tools or [], self._prompt_ids)
            if self._ask.tool_choice == "none" and (parsed.calls or parsed.malformed):
                text = self._renderer.tokenizer.decode(raw[self._after_reasoning(raw) if parsed.reasoning else 0 :])
                parsed = Parsed(text.strip(), parsed.reasoning)
            elif not self._ask.parallel_calls and len(parsed.calls) > 1:
                parsed = replace(parsed, calls=parsed.calls[:1])
        at, stop = _first(self._ask.stop, parsed.content, len(self._given["content"]))
        if at < 0:
            return parsed
        self.stopped_by = stop
        content = parsed.content[:at]
        return replace(parsed, content=content if self._ask.prompt is not None else content.rstrip())

    def _after_reasoning(self, ids: list[int]) -> int:
        """Reasoning ends with its mark, where a call begins, or not."""
        r = self._renderer
        if r.think_close in ids:
            return ids.index(r.think_close) + 1
        return next((i for i, t in enumerate(ids) if t in r.marks), len(ids))

    @property
    def reasoning_tokens(self) -> int:
        """Of a finished turn, marks included."""
        return self._after_reasoning(self.ids) if self._reasoned else 0

    def _token(self, token: int, deltas: list[Delta]) -> None:
        r, place = self._renderer, self._place
        if place == "closed":
            return
        if place == "calls":
            if token in r.marks and self._parses < _EARLY_PARSES:
                self._closed_calls(deltas)
        elif place == "start" and token == r.think_open and not r.tokenizer.decode(self._turn[:-1]).strip():
            self._enter("reasoning")
        elif place == "reasoning" and token == r.think_close:
            whole = r.tokenizer.decode(self._turn[self._since : -1])
            if self._close in whole or "\ufffd" in whole:
                self._place = "closed"
            else:
                self._rest("reasoning", whole.strip(), deltas)
                self._enter("content")
        elif token in r.marks or token in (r.think_open, r.think_close):
            plain = place != "reasoning" and token in r.marks and self._ask.tool_choice != "none"
            self._enter("calls" if plain else "closed")
        else:
            self._text(token, deltas)

    def _enter(self, place: Literal["start", "reasoning", "content", "calls", "closed"]) -> None:
        self._place, self._held, self._since = place, "", len(self._turn)
        self._decoder = DecodeStream(skip_special_tokens=False)

    def _text(self, token: int, deltas: list[Delta]) -> None:
        self._held += self._decoder.step(self._renderer.tokenizer.backend, token) or ""
        kind: Literal["reasoning", "content"] = "reasoning" if self._place == "reasoning" else "content"
        if not self._shown[kind]:
            self._held = self._held.lstrip()
        if self._place == "start" and self._held:
            if self._open.startswith(self._held):
                return
            self._place = "closed" if self._held.startswith(self._open) else "content"
        call_start = self._renderer.call_start
        if kind == "content" and not self._shown[kind] and call_start and self._held.startswith(call_start):
            self._place = "closed"  # it may turn out to be a call
        if kind == "content" and self._ask.tools and self._renderer.reads is not strict:
            self._before_call(deltas)
        if "\ufffd" in self._held:
            self._place = "closed"
        if self._place == "closed":
            return
        shown = self._held
        if kind == "content" and self._ask.stop:
            shown = self._before_stop()
        shown = shown.rstrip()
        if kind == "content" and self._renderer.lead:
            shown = shown.removesuffix(self._renderer.lead).rstrip()
        self._show(kind, shown, deltas)

    def _before_call(self, deltas: list[Delta]) -> None:
        """Content up to where a call may begin that has no mark; what follows is shown at the end."""
        at = next((i for i, character in enumerate(self._held) if character in BEGINNINGS), -1)
        if at >= 0 and self._place != "closed":
            if not self._ask.stop:
                self._show("content", self._held[:at].rstrip(), deltas)
            self._place = "closed"

    def _raw(self, token: int, deltas: list[Delta]) -> None:
        if token in self._stops or self._place == "closed":
            return
        self._held += self._decoder.step(self._renderer.tokenizer.backend, token) or ""
        if "\ufffd" in self._held:
            self._place = "closed"
        else:
            self._show("content", self._before_stop() if self._ask.stop else self._held, deltas)

    def _before_stop(self) -> str:
        """The held text up to a stop string, or up to what may become one."""
        at, stop = _first(self._ask.stop, self._held)
        if at >= 0:
            self.stopped, self.stopped_by = True, stop
            return self._held[:at]
        partial = max(_overlap(self._held, stop) for stop in self._ask.stop)
        return self._held[: len(self._held) - partial]

    def _closed_calls(self, deltas: list[Delta]) -> None:
        self._parses += 1
        parsed = self._renderer.parse(self._turn, self._ask.tools or [], self._prompt_ids)
        calls = [] if parsed.read else parsed.calls  # those that had no mark are known at the end
        if not self._ask.parallel_calls and calls:
            calls, self.stopped = calls[:1], True
        for i in range(self._calls, len(calls)):
            deltas.append(Delta("call", "", calls[i], i, len(self.ids)))
        self._calls = max(self._calls, len(calls))

    def _show(self, kind: Literal["reasoning", "content"], text: str, deltas: list[Delta]) -> None:
        """`text`: a beginning of what is held."""
        if not text:
            return
        self._held = self._held[len(text) :]
        self._shown[kind].append(text)
        if deltas and deltas[-1].kind == kind:
            text = deltas.pop().text + text
        deltas.append(Delta(kind, text, upto=len(self.ids)))

    def _rest(self, kind: Literal["reasoning", "content"], whole: str, deltas: list[Delta]) -> None:
        shown = "".join(self._shown[kind])
        if shown == self._given[kind] and not whole.startswith(shown):
            return  # the beginning's last white space was the turn's, or it turned out to begin a call
        if not whole.startswith(shown):
            raise ValueError(f"renderer {self._renderer.key!r}: {kind} was shown as {shown!r}, and is {whole!r}")
        self._show(kind, whole[len(shown) :], deltas)


def _first(stops: list[str], text: str, start: int = 0) -> tuple[int, str]:
    """Where the first stop string begins, at `start` or later, and which it is; -1 if there is none."""
    return min(((at, stop) for stop in stops if (at := text.find(stop, start)) >= 0), default=(-1, ""))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
