"""The renderer's interface: messages to token ids and back, for one tokenizer and one chat template.

Keeps the first half of invariant 1: `bridge` only ever appends to the ids that the engine saw and sampled. It renders
the agent's new messages separately and appends them to the sampled ids, so it never re-tokenises a sampled token, and
the cost of a turn depends on its new messages, not on the history.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import msgspec
from tokenizers import Tokenizer

from crrl.engines.marks import is_mark
from crrl.gateway.canonical import Call, Message

_CACHED_RENDERS = 256
_LONG = 1 << 14  # characters from which on the interpreter's lock is let go of: other threads go on


Tools = list[dict[str, Any]] | None  # in the form of chat completions


class RenderError(Exception):
    """The template cannot express this conversation. The agent gets a 400 with this message."""


@dataclass(frozen=True)
class Parsed:
    """What sampled ids say. No white space at the edges of `content` and `reasoning`; `malformed` calls are kept in
    `content` as they were produced. A call's `id` is the one it was sampled with, where the format has one. `read`: how
    calls were read that are not in the family's own form (`lenient.py`)."""

    content: str
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    malformed: int = 0
    read: str = ""


class Renderer(Protocol):
    """Args:
    stop_ids: tokens that end a turn; the first is the template's own.
    marks: tokens at which plain content may no longer be shown: turns, calls, channels begin or end there.
    think_open, think_close: the tokens around reasoning, where they are tokens.
    call_start: content that begins with this text may turn out to be a call ("": calls begin with a mark).
    lead: text in front of a call's mark that is the call's: content that ends with it is not shown yet.
    reads: what else is read as a call (`lenient.py`); `parse` ends with it.
    tools: False: it can render only text.
    """

    key: str
    tokenizer: FastTokenizer
    stop_ids: list[int]
    marks: frozenset[int]
    think_open: int | None
    think_close: int | None
    call_start: str
    lead: str
    reads: Callable[[Parsed, Tools], Parsed]
    tools: bool

    def __hash__(self) -> int: ...

    def prompt(self, messages: list[Message], tools: Tools) -> list[int]:
        """A whole conversation and the generation prompt. RenderError."""
        ...

    def bridge(self, prompt_ids: list[int], ids: list[int], appended: list[Message]) -> list[int]:
        """`prompt_ids + ids`, the turn's close where sampling was cut short, `appended` (no assistant message; tool
        results answer the turn's calls in their order), the generation prompt. RenderError."""
        ...

    def assistant(self, message: Message) -> list[int]:
        """Ids that a policy could have sampled for an assistant turn that it did not sample (context, never loss)."""
        ...

    def opens_in_reasoning(self, prompt_ids: list[int]) -> bool:
        """Whether the generation prompt ends inside open reasoning."""
        ...

    def parse(self, ids: list[int], tools: Tools = None, prompt_ids: list[int] | None = None) -> Parsed:
        """Sampled ids as content, reasoning and calls. `tools`: those of the request (none: []), which tell the types
        of arguments that are written without quotes; None: nobody says which there were.
        `prompt_ids`: what they were sampled behind; None: a user's message."""
        ...


class FastTokenizer:
    """The fast tokenizer under a transformers one: renderers need ids only, and the wrapper around them (offsets,
    padding, batches) costs ten times the encoding of a short message."""

    unk_token_id = None
    eos_token_id = None

    def __init__(self, tokenizer: Tokenizer, name: str = "", chat_template: str = "") -> None:
        self.backend = tokenizer
        self.name_or_path, self.chat_template = name, chat_template  # these distinguish variants of some families

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        if len(text) > _LONG:
            return self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        return self.backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: int | Sequence[int], skip_special_tokens: bool = False, **_: Any) -> str:
        ids = [ids] if isinstance(ids, int) else list(ids)
        return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def marks(self) -> frozenset[int]:
        """Tokens that structure a conversation."""
        added = self.backend.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if is_mark(token.content, token.special))


class FirstPrompts:
    """A cache of rendered conversations: the attempts of a group share their first prompt."""

    def __init__(self, render: Callable[[list[Message], Tools], list[int]]) -> None:
        self._render = render
        self._known: OrderedDict[bytes, list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, messages: list[Message], tools: Tools) -> list[int]:
        key = msgspec.json.encode((messages, tools))
        with self._lock:
            ids = self._known.pop(key, None)
        if ids is None:
            ids = self._render(messages, tools)
        with self._lock:
            self._known[key] = ids  # the last used last
            if len(self._known) > _CACHED_RENDERS:
                self._known.popitem(last=False)
        return list(ids)


def linked(messages: list[Message], call_id: Callable[[Call, int], str], first: int = 0) -> list[dict[str, Any]]:
    """Messages in chat form, tool results linked to the calls that they answer, calls named by us.

    An agent's own call ids never reach the prompt: they are random, so the same seed would not give the same run, and
    some formats allow only their own. `first`: how many calls there were before.
    """
    shown: list[dict[str, Any]] = []
    calls: list[tuple[str, str]] = []
    answered = 0
    count = first
    for message in messages:
        form: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning:
            form["reasoning_content"] = message.reasoning
        if message.calls:
            ids = [call_id(call, count + i) for i, call in enumerate(message.calls)]
            count += len(ids)
            calls, answered = list(zip(ids, (c.name for c in message.calls), strict=True)), 0
            form["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for id, c in zip(ids, message.calls, strict=True)
            ]
        elif message.role == "assistant":
            calls = []
        elif message.role == "tool":
            place = answered if message.place is None else message.place
            answered = place + 1
            if place < len(calls):
                form["tool_call_id"], form["name"] = calls[place]
        shown.append(form)
    return shown


def arguments_text(arguments: dict[str, Any]) -> str:
    """JSON, in which an infinite number is null. ASCII where it must be: lone surrogates, huge numbers."""
    try:
        return msgspec.json.encode(arguments).decode()
    except (UnicodeEncodeError, ValueError, OverflowError):
        return json.dumps(json.loads(json.dumps(arguments), parse_constant=lambda _: None))


def is_name(name: Any) -> TypeGuard[str]:
    """Of a tool, that can be sent to an agent: JSON can say half characters, UTF-8 cannot."""
    return isinstance(name, str) and bool(name) and name.isprintable()
