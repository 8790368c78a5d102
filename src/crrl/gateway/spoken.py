"""Turns whose answer is text of a remote endpoint (`engines.chat`), where they differ from turns that are sampled.

The conversation goes out as the agent sent it, in the form of chat completions, whatever API the agent speaks. The
answer comes back to the agent as the endpoint gave it. The tree needs tokens to put turns in their places, and viewers
show them: they are those that the run's own renderer has for the answer, with log-probs that are no numbers, so that
none can ever be trained on. Budgets and metrics count the endpoint's tokens (`params`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from crrl.engines.chat import Question, Said
from crrl.gateway.api import Ask, BadRequest
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Parsed, Renderer
from crrl.gateway.stream import Delta
from crrl.gateway.turn import Turn

NO_VERSION = -1


def question_of(turn: Turn, ask: Ask, top_p: float) -> Question:
    return Question(
        id=turn.id,
        messages=chat_of(ask.messages),
        max_tokens=cast(int, turn.params["max_tokens"]),
        tools=ask.tools,
        tool_choice=ask.tool_choice if ask.tool_choice == "none" else "auto",
        parallel_calls=ask.parallel_calls,
        temperature=cast(float, turn.params["temperature"]),
        top_p=top_p,
        stop=ask.stop,
        seed=cast(int, turn.params["seed"]),
    )


def chat_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """In the form of chat completions; the ids of calls are made here, and their results have them. Reasoning stays
    out, as endpoints want it."""
    chat: list[dict[str, Any]] = []
    ids: list[str] = []  # of the latest turn's calls
    waiting: list[str] = []
    for i, message in enumerate(messages):
        if message.role == "tool":
            id = ids[message.place] if message.place is not None and message.place < len(ids) else ""
            id = id or (waiting[0] if waiting else f"call_{i}")
            waiting = [other for other in waiting if other != id]
            chat.append({"role": "tool", "tool_call_id": id, "content": message.content})
            continue
        said: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "assistant" and message.calls:
            ids = [f"call_{i}_{n}" for n in range(len(message.calls))]
            waiting = list(ids)
            said["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for id, call in zip(ids, message.calls, strict=True)
            ]
        chat.append(said)
    return chat


def take(turn: Turn, said: Said, renderer: Renderer) -> None:
    """The answer is the turn's."""
    calls = [Call(name, arguments) for name, arguments in said.calls]
    turn.parsed = turn.said = Parsed(said.content.strip(), said.reasoning.strip(), calls)
    message = Message("assistant", turn.said.content, calls, turn.said.reasoning)
    ids = renderer.assistant(message) if renderer.tools or not calls else _as_text(message, renderer)
    if said.finish == "length" and ids and ids[-1] in renderer.stop_ids:
        ids = ids[:-1]
    turn.sampled(ids, [math.nan] * len(ids), [NO_VERSION] * len(ids))
    if turn.said.reasoning:
        turn.deltas.append(Delta("reasoning", turn.said.reasoning, upto=len(ids)))
    if turn.said.content:
        turn.deltas.append(Delta("content", turn.said.content, upto=len(ids)))
    turn.deltas += [Delta("call", "", call, i, len(ids)) for i, call in enumerate(calls)]
    turn.params |= {"prompt_tokens": said.prompt_tokens, "completion_tokens": said.tokens}


def _as_text(message: Message, renderer: Renderer) -> list[int]:
    calls = msgspec.json.encode([(call.name, call.arguments) for call in message.calls]).decode()
    return renderer.assistant(Message("assistant", f"{message.content}\n{calls}".strip(), [], message.reasoning))


def check(ask: Ask) -> None:
    """Raises BadRequest: a remote endpoint cannot be asked so."""
    if ask.prompt is not None:
        raise BadRequest("The engine behind this server answers conversations; it continues no text.", "prompt")
    if ask.messages and ask.messages[-1].role == "assistant":
        raise BadRequest("The engine behind this server cannot go on from an assistant message.", "messages")
