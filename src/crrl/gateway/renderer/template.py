"""A model's own chat template (Jinja), as text: rendered by transformers, as it is in deployment."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import datetime
from typing import Any

from crrl import limited
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer.api import RenderError, Tools, linked

# Templates that write the date get this one: with today's, the same seed would not give the same run.
_DATE = datetime(2024, 7, 26)
_NOW = re.compile(r"""strftime_now\(\s*(?:"([^"]*)"|'([^']*)')\s*\)""")
_TOOLS = [{"type": "function", "function": {"name": "look", "description": "To look.", "parameters": {}}}]
# Switches by which some templates keep earlier reasoning; the others ignore them.
KEEP_REASONING = {"clear_thinking": False, "preserve_thinking": True, "truncate_history_thinking": False}


class Refusal(Exception):
    """A template that breaks: at which turn, and how."""

    def __init__(self, turn: str, why: str) -> None:
        super().__init__(f"At {turn}: {why}.")
        self.turn, self.why = turn, why

    @classmethod
    def at(cls, turn: str, why: str, before: str, after: str) -> Refusal:
        """Two texts that should begin alike."""
        at = next(
            (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(map(len, (before, after)))
        )
        was, now = (text[max(0, at - 20) : at + 40] for text in (before, after))
        return cls(turn, f"it {why}: {was!r} becomes {now!r}")


class ChatTemplate:
    """Args:
    tokenizer: of transformers, with its template and special tokens.

    Raises:
        Refusal: the template takes more memory or time than a template needs.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.source = _NOW.sub(lambda m: repr(_DATE.strftime(m[1] or m[2])), tokenizer.chat_template)
        self._tokenizer = tokenizer
        if not limited.ends(self._trial):
            raise Refusal("a conversation of five messages", f"it takes {limited.MEANT} to render")

    def _trial(self) -> None:
        """What templates write their parts for; what they do not render is told when it is needed."""
        call = Call("look", '{"at":"here"}')
        whole = [
            Message("system", "Be brief."),
            Message("user", "ask"),
            Message("assistant", "said", [call], "thought"),
        ]
        whole += [Message("tool", "result"), Message("user", "more")]
        for end in range(1, len(whole) + 1):
            for tools in (None, _TOOLS):
                for first in (0, 1):
                    for answer in (True, False):
                        with contextlib.suppress(RenderError):
                            self.render(whole[first:end], tools, answer=answer)

    def render(self, messages: list[Message], tools: Tools = None, *, answer: bool) -> str:
        """`answer`: with the generation prompt. RenderError: the template's own words."""
        try:
            return self._tokenizer.apply_chat_template(
                [_decoded(m) for m in linked(messages, _call_id)],
                tools=tools,
                tokenize=False,
                add_generation_prompt=answer,
                chat_template=self.source,
                **KEEP_REASONING,
            )
        except MemoryError:
            raise
        except Exception as error:  # a template is a program, and may fail in any way
            raise RenderError(f"the model's chat template does not render this conversation: {error}") from error


def _call_id(call: Call, n: int) -> str:
    return call.id or f"call{n:05d}"  # nine letters and digits: all that Mistral's templates allow


def _decoded(message: dict[str, Any]) -> dict[str, Any]:
    """Arguments as objects, which is what templates expect (text that is no JSON object stays text)."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        function = dict(call["function"])
        try:
            value = json.loads(function["arguments"])
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            function["arguments"] = value
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls}
