"""What one agent may send: so that none can stop the others, whatever it sends.

Keeps invariant 2 (no agent can make another's episode lost). The worker serves all agents on one event loop, so

- a body is no larger than a context's worth of tokens can be, and a prompt that cannot fit is never rendered;
- a large one is parsed, rendered and tokenised in a thread, one at a time for each agent, where small requests of
  others overtake it (the tokenizer releases the interpreter's lock: `FastTokenizer.encode`);
- an agent has a bounded number of requests and of bytes under way.

What an agent's own request breaks is answered with its API's error, and the agent's to deal with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from crrl.gateway.api import Ask, BadRequest
from crrl.gateway.renderer import Renderer

Receive = Callable[[], Awaitable[dict[str, Any]]]

LEAST_BODY, MOST_BODY = 1 << 20, 8 << 20  # bytes: tools around a small context; several contexts of a large one
ESCAPED = 6  # bytes of JSON that one byte of text may take: \u0000
REQUESTS = 64  # under way at once: more sub-agents than any agent was seen to run
BODIES = 2  # largest bodies under way at once
SMALL = 1 << 16  # bytes of a body that is read on the loop: some milliseconds
_PIECE = 1 << 16  # characters that are counted at once


class Gone(Exception):
    """The client left before its request was read."""


class TooLong(Exception):
    """The prompt cannot fit into the context."""


class Limits:
    """Of one gateway.

    Args:
        context: tokens. renderer: its tokenizer says how many characters a token may have.
    """

    def __init__(self, context: int, renderer: Renderer) -> None:
        self.context = context
        self._tokenizer = renderer.tokenizer
        self.longest = max(map(len, renderer.tokenizer.backend.get_vocab()))
        self.body = min(max(context * self.longest * ESCAPED, LEAST_BODY), MOST_BODY)

    def check(self, ask: Ask) -> None:
        """Raises TooLong: more messages, or more text, than a context can hold."""
        texts = [text for m in ask.messages for text in (m.content, m.reasoning, *(c.arguments for c in m.calls))]
        if isinstance(ask.prompt, str):
            texts.append(ask.prompt)
        elif ask.prompt is not None and len(ask.prompt) > self.context:
            raise TooLong
        if len(ask.messages) > self.context:
            raise TooLong
        characters = sum(map(len, texts))
        if ask.tools and characters < self.context * self.longest:
            characters += len(msgspec.json.encode(ask.tools))
        if characters > self.context * self.longest:
            raise TooLong
        if characters > 16 * self.context and self._counted(texts) > self.context:
            raise TooLong

    def _counted(self, texts: list[str]) -> int:
        """Tokens, no fewer than a little below the real number; counting ends where it is past the context."""
        tokens = 0
        for text in texts:
            for start in range(0, len(text), _PIECE):
                found = len(self._tokenizer.encode(text[start : start + _PIECE]))
                tokens += found - min(found, 8)  # a cut makes more of the tokens at it
                if tokens > self.context:
                    return tokens
        return tokens


class Intake:
    """Of one agent (one session), over its gateway's limits. `requests`: under way at once."""

    def __init__(self, limits: Limits, requests: int = REQUESTS) -> None:
        self.limits = limits
        self.reading = asyncio.Lock()  # of large bodies: threads are few, and for all agents
        self._most = requests
        self._requests = self._bytes = 0

    @contextmanager
    def request(self) -> Iterator[Body]:
        """One request, from its first byte to its last. Raises BadRequest (429): there are too many."""
        if self._requests >= self._most:
            raise BadRequest(f"More than {self._most} requests at once.", code="rate_limit_exceeded", status=429)
        self._requests += 1
        body = Body(self)
        try:
            yield body
        finally:
            self._requests -= 1
            body.read()

    def hold(self, size: int) -> None:
        """Bytes of a body that is not read yet (negative: that is). Raises BadRequest (429)."""
        if size > 0 and self._bytes + size > BODIES * self.limits.body:
            raise BadRequest(
                "Too many bytes of requests at once; send one after the other.", code="rate_limit_exceeded", status=429
            )
        self._bytes += size


class Body:
    """The bytes of one request as they come."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._size = 0

    async def receive(self, receive: Receive, announced: str | None) -> bytes:
        """All of it. Raises BadRequest (413, 429), Gone."""
        most = self._intake.limits.body
        if announced is not None and announced.isdecimal() and int(announced) > most:
            raise _too_large(most)
        parts = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            if self._size + len(part) > most:
                raise _too_large(most)
            self._intake.hold(len(part))
            self._size += len(part)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    def read(self) -> None:
        """It is no longer held."""
        self._intake.hold(-self._size)
        self._size = 0


def _too_large(most: int) -> BadRequest:
    return BadRequest(
        f"The request body is larger than {most} bytes, more than the context can hold.",
        code="context_length_exceeded",
        status=413,
    )
