"""An answer that the client began: a last assistant message, whose text the policy goes on from.

Both APIs know it as a prefill. What the client wrote is context outside the loss; what is sampled behind it is the
sample, and the answer that the client gets is that alone. When the turn comes back, it is one turn: its beginning and
what was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crrl.gateway.canonical import Message, split_reasoning
from crrl.gateway.renderer import Renderer, RenderError


def split(messages: Sequence[Message]) -> tuple[list[Message], Message | None]:
    """A conversation, and the answer that it ends with, if that is begun. RenderError: it has calls, which wait for
    results."""
    *before, last = messages
    if last.role != "assistant":
        return list(messages), None
    if last.calls:
        raise RenderError("The last message has tool calls; their results must follow it.")
    return before, last if last.content or last.reasoning else None


def ids_of(renderer: Renderer, message: Message) -> list[int]:
    """The tokens of a begun answer: a whole turn's, without its end. RenderError: the family writes more than that
    behind the text."""
    ids = renderer.assistant(split_reasoning(message))
    text = message.content.strip()
    edge = message.content[len(message.content.rstrip()) :] if text else ""
    while ids and (ids[-1] in renderer.stop_ids or (text and _is_no_text(renderer, ids[-1]))):
        ids.pop()
    if not renderer.tokenizer.decode(ids).endswith(text):
        raise RenderError(f"renderer {renderer.key!r} cannot go on from an assistant message; end with another one.")
    return [*ids, *renderer.tokenizer.encode(edge)]


def behind(renderer: Renderer, prompt_ids: list[int], ids: list[int]) -> list[int]:
    """A turn that says something, behind this prompt: where that opens reasoning which a turn of the family does not
    close (Gemma 4 behind a result), it is closed."""
    said = renderer.parse(ids, None, prompt_ids)
    if said.content or said.calls or not said.reasoning:
        return ids
    shown = renderer.tokenizer.decode(renderer.assistant(Message("assistant", "<2>", reasoning="<1>")))
    return [*renderer.tokenizer.encode(shown.partition("<1>")[2].partition("<2>")[0]), *ids]


def _is_no_text(renderer: Renderer, token: int) -> bool:
    return token in renderer.marks or renderer.tokenizer.decode([token]).isspace()


def joined(begun: Message, message: Message) -> Message:
    """One turn of two messages: its beginning, and the rest."""
    return replace(message, content=begun.content + message.content, reasoning=begun.reasoning + message.reasoning)
