"""Which of several servers a request goes to: those of one session to the same one, whose prefix cache has the session;
a new session to the one with the fewest requests under way."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator

REMEMBERED = 1 << 16
"""Sessions. One that was forgotten costs a prefill."""


class Routes:
    def __init__(self, servers: int) -> None:
        self._running = [0] * servers
        self._given = [0] * servers
        self._of: OrderedDict[str, int] = OrderedDict()

    @contextlib.contextmanager
    def through(self, session: str) -> Iterator[int]:
        """The server for a request of `session` ("": of none), which is under way meanwhile."""
        server = self._of.get(session) if session else None
        if server is None:
            server = min(range(len(self._running)), key=lambda at: (self._running[at], self._given[at]))
            self._given[server] += 1
        if session:
            self._of[session] = server
            self._of.move_to_end(session)
            if len(self._of) > REMEMBERED:
                self._of.popitem(last=False)
        self._running[server] += 1
        try:
            yield server
        finally:
            self._running[server] -= 1
