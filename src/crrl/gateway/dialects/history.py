"""Puts an agent's history in order: which result answers which call, and which messages form one turn.

Call ids say both, in every API. The ids are the agent's own and never reach a prompt, so this resolves them, once:
results stand in the order of their calls, and a turn that came back as several messages (goose sends each call with its
result) is one message again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from crrl.gateway.canonical import Call, Message

_OURS = re.compile(r"(?:call|toolu|fc|ctc)_([0-9a-f]{24})_[0-9]+")


def put_in_order(messages: Sequence[Message]) -> list[Message]:
    """Messages whose `answers` are call ids -> the same conversation, with `place` in place of ids."""
    return _results(_whole_turns(messages))


def _whole_turns(messages: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    at: dict[str, int] = {}  # the sampled turn that call ids name -> its message
    for message in messages:
        turn = _turn_of(message.calls)
        earlier = found[at[turn]] if turn in at else None
        if turn and earlier is not None and _goes_on(earlier, message, found[at[turn] + 1 :]):
            reasoning = earlier.reasoning or message.reasoning
            found[at[turn]] = replace(earlier, calls=[*earlier.calls, *message.calls], reasoning=reasoning)
            continue
        if turn:
            at[turn] = len(found)
        found.append(message)
    return found


def _turn_of(calls: Sequence[Call]) -> str:
    """The sampled turn of these calls, by our own ids; "": not told, or several."""
    names = {match[1] if (match := _OURS.fullmatch(call.id)) else "" for call in calls}
    return names.pop() if len(names) == 1 else ""


def _goes_on(earlier: Message, message: Message, between: Sequence[Message]) -> bool:
    known = {call.id for call in earlier.calls}
    return (
        all(m.role == "tool" for m in between)
        and message.content.strip() in ("", earlier.content.strip())
        and not any(call.id in known for call in message.calls)
    )


def _results(messages: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    calls: list[str] = []
    run: list[Message] = []  # consecutive results

    def close() -> None:
        if all(m.place is not None for m in run):
            run.sort(key=lambda m: m.place or 0)
        found.extend(replace(m, place=None) if m.place == i else m for i, m in enumerate(run))
        run.clear()

    for message in messages:
        if message.role == "tool":
            place = calls.index(message.answers) if message.answers and message.answers in calls else None
            run.append(replace(message, answers="", place=place))
            continue
        close()
        if message.role == "assistant":
            calls = [call.id for call in message.calls]
        found.append(message)
    close()
    return found
