"""The hand-coded families of the `renderers` package, each by a recipe key.

Earlier reasoning stays in the prompt in all of them (`thinking_retention="all"`, and the template's own switch where
it has one): with a family's default, its bridge gives up at each new user message. Deploy with the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from pydantic import TypeAdapter
from renderers import RendererConfig, create_renderer  # type: ignore[import-untyped]
from renderers.base import ToolCallParseStatus  # type: ignore[import-untyped]

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer.api import (
    FastTokenizer,
    FirstPrompts,
    Parsed,
    RenderError,
    Tools,
    arguments_text,
    is_name,
    linked,
)

_PROBE = Message("user", "x")
_READ_CONFIG = TypeAdapter(RendererConfig).validate_python
_DATE = "2025-08-05"  # gpt-oss writes today's into the prompt: the same seed would not give the same run


@dataclass(frozen=True)
class Family:
    """A renderer of the package with its settings. `tool_names`: results show which call they answer. `think`: the
    tokens around reasoning. `varies`: reasoning is open in some generation prompts alone (behind a user's message, or
    behind a tool's result)."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tool_names: bool = False
    think: tuple[str, str] = ("<think>", "</think>")
    call_start: str = ""
    varies: bool = False


def _switched(key: str, switch: str = "enable_thinking", **settings: Any) -> dict[str, Family]:
    """KEY does not reason, KEY-thinking does."""
    return {
        key: Family(key, {switch: False, **settings}),
        f"{key}-thinking": Family(key, {switch: True, **settings}),
    }


FAMILIES: dict[str, Family] = {
    **_switched("qwen3"),
    "prime-qwen3": Family("prime-qwen3"),
    **_switched("qwen3.5"),
    **_switched("qwen3.6", preserve_thinking=True),
    **_switched("qwen3.8", preserve_thinking=True),
    "qwen3-vl": Family("qwen3-vl"),
    "gemma4": Family("gemma4", {"enable_thinking": False, "preserve_thinking": True}, think=("", "")),
    "gemma4-thinking": Family(
        "gemma4", {"enable_thinking": True, "preserve_thinking": True}, think=("", ""), varies=True
    ),
    **_switched("glm-4.5"),
    **_switched("glm-5", clear_thinking=False),
    **_switched("glm-5.1", clear_thinking=False),
    "glm-5.3": Family("glm-5.3", {"clear_thinking": False}),
    "gpt-oss": Family(
        "gpt-oss", {"auto_drop_analysis": False, "conversation_start_date": _DATE}, tool_names=True, think=("", "")
    ),
    "hy3": Family(
        "hy3",
        {"reasoning_effort": "no_think", "preserved_thinking": True},
        think=("<think:opensource>", "</think:opensource>"),
    ),
    "hy3-thinking": Family(
        "hy3",
        {"reasoning_effort": "high", "preserved_thinking": True},
        think=("<think:opensource>", "</think:opensource>"),
    ),
    "inkling": Family("inkling", tool_names=True, think=("", "")),
    "kimi-k2": Family("kimi-k2", {"enable_thinking": False}, tool_names=True),
    "kimi-k2.5": Family("kimi-k2.5", {"thinking": False}, tool_names=True),
    "kimi-k2.5-thinking": Family("kimi-k2.5", {"thinking": True}, tool_names=True),
    **_switched("laguna-xs.2"),
    **_switched("laguna-m.1"),
    **_switched("laguna-xs-2.1"),
    **_switched("laguna-s-2.1", preserve_thinking=True),
    "llama-3": Family("llama-3", call_start="{"),
    "minimax-m2": Family("minimax-m2"),
    **_switched("nemotron-3", truncate_history_thinking=False),
    **_switched("nemotron-3-ultra", truncate_history_thinking=False),
    **_switched("nemotron-3.5", truncate_history_thinking=False),
    "deepseek-v3": Family("deepseek-v3"),
    "deepseek-r1": Family("deepseek-r1", varies=True),
    **_switched("deepseek-v4", drop_thinking=False),
}


class FamilyRenderer:
    """One family's renderer on one tokenizer. Stateless but for the cache of first prompts."""

    tools = True

    def __init__(self, tokenizer: FastTokenizer, key: str) -> None:
        family = FAMILIES[key]
        self.key = key
        self.tokenizer = tokenizer
        self._family = family
        config = _READ_CONFIG({"name": family.name, "thinking_retention": "all", **family.settings})
        self._inner = create_renderer(tokenizer, config)
        self.stop_ids: list[int] = list(self._inner.get_stop_token_ids())
        self._stops = frozenset(self.stop_ids)
        self.think_open, self.think_close = self._reasoning_marks(family.think)
        self.marks = (tokenizer.marks() | self._stops) - {self.think_open, self.think_close}
        self.call_start = family.call_start
        self.prompt = FirstPrompts(self._prompt)
        self._probe = self.prompt([_PROBE], None)
        self._opens = self._opens_behind(self._probe)
        self._close_reasoning = tokenizer.encode(family.think[1])

    def _reasoning_marks(self, think: tuple[str, str]) -> tuple[int | None, int | None]:
        """The tokens around reasoning, where they are tokens, and the family's own parser takes them for that."""
        opened, closed = (self.tokenizer.convert_tokens_to_ids(mark) if mark else None for mark in think)
        if opened is None or closed is None:
            return None, None
        said = self._inner.parse_response([opened, *self.tokenizer.encode("x"), closed])
        return (opened, closed) if said.reasoning_content else (None, None)

    def opens_in_reasoning(self, prompt_ids: list[int]) -> bool:
        return self._opens_behind(prompt_ids) if self._family.varies else self._opens

    def _opens_behind(self, prompt_ids: list[int]) -> bool:
        said = self._inner.parse_response(self.tokenizer.encode("x"), prompt_ids=prompt_ids)
        return bool(said.reasoning_content)

    def _prompt(self, messages: list[Message], tools: Tools) -> list[int]:
        try:
            ids = self._inner.render_ids(self._linked(messages), tools=tools, add_generation_prompt=True)
        except (ValueError, TypeError, KeyError) as error:
            raise RenderError(f"renderer {self.key!r} cannot render this conversation: {error}") from error
        return list(ids)

    def bridge(self, prompt_ids: list[int], ids: list[int], appended: list[Message]) -> list[int]:
        """The package's own bridge, over a short history in the place of the real one, so that its cost does not grow
        with that (tested equal). What the package refuses goes by what the family renders behind a short turn: a turn
        which closed inside open reasoning, nothing appended, several results."""
        calls = self.parse(ids, None, prompt_ids).calls if self._family.tool_names else []
        shown = self._linked([Message("assistant", calls=calls), *appended], sampled=True)[1:]
        closed = bool(ids) and ids[-1] in self._stops
        candidates = [ids]
        if closed:
            candidates.append([*(self._close_reasoning if self._opens else []), ids[-1]])
        for sampled in candidates:
            bridged = self._inner.bridge_to_next_turn(self._probe, sampled, shown)
            before = [*self._probe, *sampled]
            if bridged is not None and bridged.token_ids[: len(before)] == before:
                return [*prompt_ids, *ids, *bridged.token_ids[len(before) :]]
        close = [] if closed else self.stop_ids[:1]
        return [*prompt_ids, *ids, *close, *self._tail(self.parse(ids, None, prompt_ids).calls, appended)]

    def _tail(self, calls: list[Call], appended: list[Message]) -> list[int]:
        """What a full render puts behind the end of a short turn with these calls."""
        short = [_PROBE, Message("assistant", "" if calls else "x", calls)]
        before, asked = self._whole(short, sampled=True), len(self._whole([_PROBE]))
        whole = self._whole([*short, *appended], sampled=True, answer=True)
        end = max((i + 1 for i in range(asked, len(before)) if before[i] in self._stops), default=0)
        answer = self._probe[asked:]
        if end and whole[:end] == before[:end] and (appended or whole[-len(answer) :] == answer):
            return whole[end:]
        if not appended:  # families whose turns end where the next begins, or which see no need to answer twice
            return answer
        roles = ", ".join(m.role for m in appended)
        raise RenderError(f"renderer {self.key!r} cannot put {roles} behind a sampled turn")

    def _linked(self, messages: list[Message], sampled: bool = False) -> list[dict[str, Any]]:
        def call_id(call: Call, n: int) -> str:
            if sampled and call.id:
                return call.id
            return f"functions.{call.name}:{n}" if self._family.name.startswith("kimi") else f"call{n:05d}"

        return linked(messages, call_id)

    def assistant(self, message: Message) -> list[int]:
        """As the family renders it behind a first prompt; where history looks different there (reasoning left out, an
        empty block put in), what it says behind its reasoning."""
        plain = Message(message.role, message.content, message.calls)
        for shown in (message, plain):
            whole = self._whole([_PROBE, shown])
            if whole[: len(self._probe)] == self._probe:
                return self._upto_stop(whole[len(self._probe) :])
            text, head = self.tokenizer.decode(whole), self.tokenizer.decode(self._probe)
            if text.startswith(head):  # the same text in other tokens
                return self._upto_stop(self.tokenizer.encode(text[len(head) :]))
        start = next(i for i, (a, b) in enumerate(zip(whole, self._probe, strict=False)) if a != b)
        body = whole[start:]
        if self.think_close in body:
            body = body[body.index(self.think_close) + 1 :]
        if self._opens and self.think_close is not None:
            body = [*self.tokenizer.encode(message.reasoning), self.think_close, *body]
        return self._upto_stop(body)

    def _whole(self, messages: list[Message], *, sampled: bool = False, answer: bool = False) -> list[int]:
        try:
            shown = self._linked(messages, sampled=sampled)
            return list(self._inner.render_ids(shown, add_generation_prompt=answer))
        except (ValueError, TypeError, KeyError) as error:
            raise RenderError(f"renderer {self.key!r} cannot render this conversation: {error}") from error

    def parse(self, ids: list[int], tools: Tools = None, prompt_ids: list[int] | None = None) -> Parsed:
        behind = prompt_ids if prompt_ids is not None and self._family.varies else self._probe
        try:
            parsed = self._inner.parse_response(ids, prompt_ids=behind, tools=tools)
        except (RecursionError, ValueError):  # JSON nested too deeply, or a number of too many digits
            return Parsed(self.tokenizer.decode([t for t in ids if t not in self._stops]).strip(), malformed=1)
        if parsed.reasoning_complete is False and not self.opens_in_reasoning(behind):
            parsed.content = self.tokenizer.decode(self._said(ids))  # what was said before it
        calls: list[Call] = []
        broken: list[str] = []
        for call in parsed.tool_calls:
            if _understood(call):
                calls.append(Call(call.name, arguments_text(call.arguments), call.id or ""))
            else:
                start, end = call.token_span or (0, 0)
                broken.append(self.tokenizer.decode(ids[start:end]) if call.token_span else call.raw)
        content = "\n".join(part for part in [parsed.content.strip(), *broken] if part)
        return Parsed(content, (parsed.reasoning_content or "").strip(), calls, len(broken))

    def _said(self, ids: list[int]) -> list[int]:
        """The plain content of a turn that ended while reasoning: behind closed reasoning, up to a mark."""
        opened = ids.index(self.think_open) if self.think_open in ids else len(ids)
        if opened < len(ids) and not self.tokenizer.decode(ids[:opened]).strip():
            closed = ids.index(self.think_close, opened) if self.think_close in ids[opened:] else len(ids)
            ids = ids[closed + 1 :]
        return list(takewhile(lambda t: t not in self.marks and t != self.think_open, ids))

    def _upto_stop(self, ids: list[int]) -> list[int]:
        for i, token in enumerate(ids):
            if token in self._stops:
                return ids[: i + 1]
        return [*ids, self.stop_ids[0]]


def _understood(call: Any) -> bool:
    """Whether a parsed call can be handed to the agent: it has a name and arguments, though they may be of the wrong
    type or for a tool that is not there (the agent says so)."""
    handed = (ToolCallParseStatus.OK, ToolCallParseStatus.INVALID_JSON, ToolCallParseStatus.UNKNOWN_TOOL)
    return call.status in handed and is_name(call.name) and isinstance(call.arguments, dict)
