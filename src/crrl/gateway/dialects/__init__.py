"""The APIs that agents speak: one module each, and one line in `DIALECTS` below.

A dialect turns a body into an `Ask`, and `Turn`s into bodies, server-sent events and errors in its API's format.
It accepts unknown fields. A known field that would change the answer and is not supported is an error that names
the field, never ignored; it reads and records sampling parameters, and the recipe overrides them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from crrl.gateway.api import BadRequest
from crrl.gateway.dialects import chat, completions, messages, responses
from crrl.gateway.dialects.common import Answer, Incoming
from crrl.gateway.stream import Delta


class Events(Protocol):
    """The server-sent events of one streamed answer, in the order of the calls. `choice` is the index of a turn among
    the answers of a request for several."""

    def start(self) -> bytes: ...

    def delta(self, choice: int, delta: Delta) -> bytes: ...

    def finish(self, choice: int) -> bytes:
        """The turn is complete, and all its deltas have been sent."""
        ...

    def end(self) -> bytes: ...

    def keep_alive(self) -> bytes:
        """Says nothing, so that the client does not take silence for the end. After `start`, before `end`."""
        ...

    def broken(self, message: str) -> bytes:
        """The engine failed in the middle of it."""
        ...


class Dialect(Protocol):
    """The interface of a module in this package."""

    def read(self, raw: bytes, headers: Mapping[str, str]) -> Incoming:
        """Raises BadRequest naming the field. Header names are in lower case."""
        ...

    def whole(self, answer: Answer) -> bytes:
        """The body for a request without streaming. The turns are complete."""
        ...

    def events(self, answer: Answer) -> Events: ...

    def error(self, status: int, message: str, code: str | None = None, param: str | None = None) -> bytes: ...

    def context_full(self, message: str) -> bytes:
        """The body of the 400 that tells an agent to stop or to compact: a budget is used up."""
        ...


DIALECTS: dict[str, Dialect] = {
    "chat/completions": chat,
    "completions": completions,
    "messages": messages,
    "responses": responses,
}

__all__ = ["DIALECTS", "Answer", "BadRequest", "Dialect", "Events", "Incoming"]
