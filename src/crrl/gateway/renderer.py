"""Messages to token ids and back, by the `renderers` package, behind the few calls the gateway needs.

Keeps invariant 1's first half: `bridge` only ever appends to what the engine saw and sampled. What the agent
appended is rendered on its own and put behind the sampled ids, so no sampled token is ever re-tokenised, and
the cost of a turn is that of its new messages, not of the history.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from renderers import Qwen3RendererConfig, create_renderer  # type: ignore[import-untyped]
from renderers.base import ToolCallParseStatus  # type: ignore[import-untyped]
from tokenizers import Tokenizer

from crrl.errors import UsageError, nearest
from crrl.gateway.canonical import Call, Message

# "all": earlier reasoning stays in the prompt. With the package's default, Qwen3's bridge gives up at each
# new user message. The same must hold in deployment.
_CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen3": lambda: Qwen3RendererConfig(enable_thinking=False, thinking_retention="all"),
}
_CACHED_RENDERS = 256
_PROBE = Message("user", "x")


@dataclass(frozen=True)
class Parsed:
    """What sampled ids say. `malformed` calls are kept in `content` as they were produced."""

    content: str
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    malformed: int = 0


class _Tokenizer:
    """The fast tokenizer under a transformers one: `renderers` needs ids only, and the wrapper around them
    (offsets, padding, batches) costs ten times the encoding of a short message."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend = tokenizer
        self.name_or_path = ""
        self.unk_token_id = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return self.backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: int | Sequence[int], skip_special_tokens: bool = False, **_: Any) -> str:
        ids = [ids] if isinstance(ids, int) else list(ids)
        return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return self.backend.token_to_id(token)


class Renderer:
    """One tokenizer and one template. Stateless but for a cache of first prompts, which a group shares."""

    def __init__(self, tokenizer: Tokenizer, key: str) -> None:
        self.key = key
        self.tokenizer = _Tokenizer(tokenizer)
        self._inner = create_renderer(self.tokenizer, _CONFIGS[key]())
        self.stop_ids: list[int] = list(self._inner.get_stop_token_ids())
        self.tool_start = self.tokenizer.convert_tokens_to_ids("<tool_call>")
        self._stops = frozenset(self.stop_ids)
        opener = self.tokenizer.convert_tokens_to_ids("<|im_start|>")  # the parser skips a repeated header
        tool_end = self.tokenizer.convert_tokens_to_ids("</tool_call>")
        self.marks = self._stops | {self.tool_start, tool_end, opener}  # where plain content ends, or a call closes
        self.think_open = self.tokenizer.convert_tokens_to_ids("<think>")
        self.think_close = self.tokenizer.convert_tokens_to_ids("</think>")
        self.opens_in_reasoning = False  # does the generation prompt end inside open reasoning?
        self._renders: OrderedDict[bytes, list[int]] = OrderedDict()
        self._probe = self.prompt([_PROBE], None)

    def prompt(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> list[int]:
        """A whole conversation and the generation prompt."""
        key = msgspec.json.encode((messages, tools))
        ids = self._renders.get(key)
        if ids is None:
            rendered = [m.rendered() for m in messages]
            ids = self._inner.render_ids(rendered, tools=tools, add_generation_prompt=True)
            self._renders[key] = ids
            if len(self._renders) > _CACHED_RENDERS:
                self._renders.popitem(last=False)
        else:
            self._renders.move_to_end(key)
        return list(ids)

    def bridge(self, prompt_ids: list[int], ids: list[int], appended: list[Message]) -> list[int]:
        """`prompt_ids + ids`, the turn's close where sampling was cut short, `appended`, the generation
        prompt.

        `appended` holds no assistant message. Equal to the package's own bridge (tested), but its cost does
        not grow with the history, and it also bridges what that refuses: a turn which closed inside open
        reasoning.
        """
        rendered = [m.rendered() for m in appended]
        if not ids or ids[-1] not in self._stops:  # cut by a limit: let the package close what is open
            closed = self._inner.bridge_to_next_turn(self._probe, ids, rendered)
            if closed is not None:
                return prompt_ids + closed.token_ids[len(self._probe) :]
            ids = [*ids, self.stop_ids[0]]
        tail = self._inner.bridge_to_next_turn(self._probe, [ids[-1]], rendered)
        if tail is None:
            raise ValueError(f"renderer {self.key!r} cannot append roles {[m.role for m in appended]}")
        return prompt_ids + ids + tail.token_ids[len(self._probe) + 1 :]

    def assistant(self, message: Message) -> list[int]:
        """The ids a policy could have sampled for an assistant turn that it did not sample (context, never
        loss)."""
        head = self.tokenizer.decode(self._probe)
        for shown in (message, Message(message.role, message.content, message.calls)):
            rendered = [_PROBE.rendered(), shown.rendered()]
            text = self.tokenizer.decode(self._inner.render_ids(rendered))
            if text.startswith(head):
                return self._upto_stop(self.tokenizer.encode(text[len(head) :]))
        return self._upto_stop(self.tokenizer.encode(message.content))

    def parse(self, ids: list[int]) -> Parsed:
        """Sampled ids as content, reasoning and tool calls."""
        try:
            parsed = self._inner.parse_response(ids, prompt_ids=self._probe)
        except (RecursionError, ValueError):  # JSON nested too deeply, or a number of too many digits
            return Parsed(self.tokenizer.decode([t for t in ids if t not in self._stops]).strip(), malformed=1)
        calls: list[Call] = []
        broken: list[str] = []
        for call in parsed.tool_calls:
            if (
                call.status is ToolCallParseStatus.OK
                and isinstance(call.name, str)
                and isinstance(call.arguments, dict)
            ):
                calls.append(Call(call.name, _arguments(call.arguments)))
            else:
                start, end = call.token_span or (0, 0)
                broken.append(self.tokenizer.decode(ids[start:end]) if call.token_span else call.raw)
        content = "\n".join(part for part in [parsed.content, *broken] if part)
        return Parsed(content, (parsed.reasoning_content or "").strip(), calls, len(broken))

    def _upto_stop(self, ids: list[int]) -> list[int]:
        for i, token in enumerate(ids):
            if token in self._stops:
                return ids[: i + 1]
        return [*ids, self.stop_ids[0]]


def _arguments(arguments: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(arguments).decode()
    except (
        UnicodeEncodeError,
        ValueError,
        OverflowError,
    ):  # lone surrogates, huge numbers: ASCII can carry them
        return json.dumps(arguments)


def load_renderer(tokenizer: Any, key: str) -> Renderer:
    """A renderer for a `tokenizers.Tokenizer` or a fast transformers tokenizer.

    Raises:
        UsageError: unknown key, or a tokenizer without the template's special tokens.
    """
    if key not in _CONFIGS:
        raise UsageError(f"renderer: no renderer is called '{key}'.", nearest(key, _CONFIGS))
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    try:
        return Renderer(backend, key)
    except AssertionError as error:
        raise UsageError(
            f"renderer: '{key}' does not fit this model's tokenizer: {error}",
            "Choose the renderer of the model's family, or a tokenizer that has these tokens.",
        ) from error
