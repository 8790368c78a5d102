"""The renderer of one family of the `renderers` package (`families.py`) on one tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, pairwise, takewhile
from typing import Any

from pydantic import TypeAdapter
from renderers import RendererConfig, create_renderer  # type: ignore[import-untyped]
from renderers.base import ToolCallParseStatus  # type: ignore[import-untyped]

from crrl.gateway.canonical import Call, Message, is_object
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
from crrl.gateway.renderer.arguments import Schemas, declared, invocations, spelled, written
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.renderer.lenient import Read, strict
from crrl.gateway.renderer.places import Places

# What families raise at what their template has no form for (arguments that are a list, a schema without a type...).
_CANNOT = (ValueError, TypeError, KeyError, AttributeError, IndexError, AssertionError)
_PROBE = Message("user", "x")
_THOUGHT = "thought"
# What ends a call, or a block of them; without its last letters where a mark is inside.
_CLOSED = re.compile(r"(?:\s*(?:</[^<>\s]*>?|<\|[^<>\s]*_end\|>|<｜[^<>\s]*▁end｜>))*")
_READ_CONFIG = TypeAdapter(RendererConfig).validate_python


class FamilyRenderer:
    """One family's renderer on one tokenizer. Stateless but for the cache of first prompts."""

    tools = True

    def __init__(self, tokenizer: FastTokenizer, key: str) -> None:
        family = FAMILIES[key]
        self.key = key
        self.tokenizer = tokenizer
        self._family = family
        self.reads: Read = strict
        config = _READ_CONFIG({"name": family.name, "thinking_retention": "all", **family.settings})
        self._inner = create_renderer(tokenizer, config)
        self.stop_ids: list[int] = list(self._inner.get_stop_token_ids())
        self._stops = frozenset(self.stop_ids)
        self.think_open, self.think_close = self._reasoning_marks(family.think)
        mark = tokenizer.convert_tokens_to_ids(family.call_mark[1])
        own = self._stops if mark is None else self._stops | {mark}
        self.marks = (tokenizer.marks() | own) - {self.think_open, self.think_close}
        self.call_start = family.call_start
        self.lead = family.call_mark[0]
        self._places = Places(self._text, tools=True)
        self.prompt = FirstPrompts(self._prompt)
        self._probe = self.prompt([_PROBE], None)
        self._opens = self._opens_behind(self._probe)
        self._said_x = self.assistant(Message("assistant", "x"))
        self._python = self._writes_python()
        self._drops_text = self._loses_text()

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

    @property
    def systems(self) -> str:
        """Where it shows system messages (`places.py`)."""
        return self._places.rule

    def _writes_python(self) -> bool:
        """Whether its calls say `False` for `false` (Qwen3.5, Nemotron 3)."""
        call = Call("f", '{"x":false}')
        return "False" in self.tokenizer.decode(self._whole([_PROBE, Message("assistant", "", [call])]))

    def _prompt(self, messages: list[Message], tools: Tools) -> list[int]:
        return self._shown(self._places.placed(messages), tools)

    def _text(self, messages: list[Message], tools: Tools) -> str:
        return self.tokenizer.decode(self._shown(messages, tools))

    def _shown(self, messages: list[Message], tools: Tools) -> list[int]:
        tools = declared(tools) if self._family.declares else spelled(tools)
        return self._render(messages, tools=tools, add_generation_prompt=True)

    def _render(self, messages: list[Message], sampled: bool = False, **how: Any) -> list[int]:
        """Arguments that are no object (of a turn that was not sampled here) stand in one where a family cannot render
        them."""
        for shown in (messages, [_with_objects(m) for m in messages]):
            try:
                return list(self._inner.render_ids(self._linked(shown, sampled=sampled), **how))
            except _CANNOT as error:
                why = error
        raise RenderError(f"renderer {self.key!r} cannot render this conversation: {why}") from why

    def bridge(self, prompt_ids: list[int], ids: list[int], appended: list[Message]) -> list[int]:
        """The package's own bridge, over a short history in place of the real one, so that its cost does not grow
        with that (tested equal). What the package refuses goes by what the family renders behind a short turn: a turn
        which closed inside open reasoning, nothing appended, several results."""
        asks = self._family.tool_names or self._places.counts(appended)
        calls = self.parse(ids, None, prompt_ids).calls if asks else []
        appended = self._places.behind(appended, len(calls))
        shown = self._linked([Message("assistant", calls=calls), *appended], sampled=True)[1:]
        closed = bool(ids) and ids[-1] in self._stops
        candidates = [ids]
        if closed:
            candidates.append([*self._said_x[:-1], ids[-1]])
        for sampled in candidates:
            bridged = self._inner.bridge_to_next_turn(self._probe, sampled, shown)
            before = [*self._probe, *sampled]
            if bridged is not None and bridged.token_ids[: len(before)] == before:
                return [*prompt_ids, *ids, *bridged.token_ids[len(before) :]]
        close = [] if closed else self.stop_ids[:1]
        return [
            *prompt_ids,
            *ids,
            *close,
            *self._tail(calls if asks else self.parse(ids, None, prompt_ids).calls, appended),
        ]

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
        if self._opens and self.think_close is None and not message.reasoning:
            return self._behind_empty_reasoning(plain)
        for shown in (message, plain):
            whole = self._whole([_PROBE, shown])
            if whole[: len(self._probe)] == self._probe:
                return self._upto_end(whole[len(self._probe) :])
            text, head = self.tokenizer.decode(whole), self.tokenizer.decode(self._probe)
            if text.startswith(head):  # the same text in other tokens
                return self._upto_end(self.tokenizer.encode(text[len(head) :]))
        start = next(i for i, (a, b) in enumerate(zip(whole, self._probe, strict=False)) if a != b)
        body = whole[start:]
        if self.think_close in body:
            body = body[body.index(self.think_close) + 1 :]
        if self._opens and self.think_close is not None:
            body = [*self.tokenizer.encode(message.reasoning), self.think_close, *body]
        return self._upto_end(body)

    def _behind_empty_reasoning(self, message: Message) -> list[int]:
        """Where reasoning is open, and its end is no token (gpt-oss): of a policy that thought nothing."""
        head = self.tokenizer.decode(self._probe)
        text = self.tokenizer.decode(self._whole([_PROBE, replace(message, reasoning=_THOUGHT)]))
        if not text.startswith(head + _THOUGHT):
            raise RenderError(f"renderer {self.key!r} does not keep its own generation prompt before this answer")
        return self._upto_end(self.tokenizer.encode(text[len(head) + len(_THOUGHT) :]))

    def _whole(self, messages: list[Message], *, sampled: bool = False, answer: bool = False) -> list[int]:
        return self._render(messages, sampled, add_generation_prompt=answer)

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
        schemas = Schemas(tools, python=self._python)
        for text, call in self._texts(parsed.tool_calls, ids):
            if _understood(call):
                calls.append(Call(call.name, arguments_text(_as_written(call, text, schemas)), call.id or ""))
            else:
                start, end = call.token_span or (0, 0)
                broken.append(self.tokenizer.decode(ids[start:end]) if call.token_span else call.raw)
        behind_calls = self._behind_calls(parsed.tool_calls, ids) if self._drops_text else []
        content = "\n".join(part for part in [parsed.content.strip(), *broken, *behind_calls] if part)
        said = Parsed(content, (parsed.reasoning_content or "").strip(), calls, len(broken))
        return self.reads(said, tools)

    def _texts(self, calls: list[Any], ids: list[int]) -> Iterator[tuple[str, Any]]:
        """Calls, each with its sampled text ("" where the family does not tell)."""
        for span, group in groupby(calls, key=lambda call: call.token_span):
            same = list(group)
            text = self.tokenizer.decode(ids[span[0] : span[1]]) if span else ""
            texts = invocations(text) if text else []
            yield from zip(texts if len(texts) == len(same) else [""] * len(same), same, strict=True)

    def _behind_calls(self, calls: list[Any], ids: list[int]) -> Iterator[str]:
        """Plain text behind each call, up to the next mark."""
        spans = sorted({call.token_span for call in calls if call.token_span})
        stop = next((i for i, token in enumerate(ids) if token in self._stops), len(ids))
        for (_, end), (following, _) in pairwise([*spans, (stop, stop)]):
            between = ids[end:following]
            marks = [i for i, token in enumerate(between) if token in self.marks]
            parts = ((i, self.tokenizer.decode(between[last + 1 : i + 1])) for last, i in pairwise([-1, *marks]))
            upto = next((i for i, part in parts if not _CLOSED.fullmatch(part)), None)
            text = self.tokenizer.decode(between[:upto])
            text = text if upto is None else text.removesuffix(self.lead)
            yield _CLOSED.sub("", text, count=1).strip()

    def _loses_text(self) -> bool:
        """Whether its parser leaves out what is said behind a call."""
        called = self.assistant(Message("assistant", "", [Call("f", "{}")]))
        said = [*called[:-1], *self.tokenizer.encode("x"), called[-1]]
        parsed = self._inner.parse_response(said, prompt_ids=self._probe)
        return bool(parsed.tool_calls) and "x" not in (parsed.content or "")

    def _said(self, ids: list[int]) -> list[int]:
        """The plain content of a turn that ended while reasoning: behind closed reasoning, up to a mark."""
        opened = ids.index(self.think_open) if self.think_open in ids else len(ids)
        if opened < len(ids) and not self.tokenizer.decode(ids[:opened]).strip():
            closed = ids.index(self.think_close, opened) if self.think_close in ids[opened:] else len(ids)
            ids = ids[closed + 1 :]
        return list(takewhile(lambda t: t not in self.marks and t != self.think_open, ids))

    def _upto_end(self, ids: list[int]) -> list[int]:
        """To its end: without what stands between turns."""
        end = next((i for i in range(len(ids), 0, -1) if ids[i - 1] in self._stops), 0)
        return ids[:end] if end else [*ids, self.stop_ids[0]]


def _with_objects(message: Message) -> Message:
    if all(is_object(call.arguments) for call in message.calls):
        return message
    calls = [
        c if is_object(c.arguments) else replace(c, arguments=arguments_text({"arguments": c.arguments}))
        for c in message.calls
    ]
    return replace(message, calls=calls)


def _as_written(call: Any, text: str, schemas: Schemas) -> dict[str, Any]:
    """The call's arguments; those between tags as they were sampled, to their last white space."""
    given: dict[str, Any] = dict(call.arguments)
    if not given and '"parameters"' in text:
        given = _parameters(text)
    for name, value in written(text).items():
        if name in given:
            given[name] = schemas.read(call.name, name, value)
    return given


def _parameters(text: str) -> dict[str, Any]:
    """The arguments of a JSON call that says `parameters` for them."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    except (ValueError, RecursionError):
        return {}
    found = value.get("parameters") if isinstance(value, dict) and "arguments" not in value else None
    return found if isinstance(found, dict) else {}


def _understood(call: Any) -> bool:
    """Whether a parsed call can be handed to the agent: it has a name and arguments, though they may be of the wrong
    type or for a tool that is not there (the agent says so)."""
    handed = (ToolCallParseStatus.OK, ToolCallParseStatus.INVALID_JSON, ToolCallParseStatus.UNKNOWN_TOOL)
    return call.status in handed and is_name(call.name) and isinstance(call.arguments, dict)
