"""The trainer's side of the rollout worker: starts it, sends it attempts, collects the episodes, restarts it.

A thread of its own reads what the worker sends, so episodes finish, and a dead worker is replaced, also while the
trainer computes. A worker that dies or hangs loses only the tries in flight. They start again under the same ids, in a
new worker.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from crrl.errors import CrrlError, LostError
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.config import RolloutConfig
from crrl.rollout.scheduler import OnEpisode

START_S = 60.0
STARTS = 3  # further ones, of a worker that dies while starting
SILENCE_S = 60.0  # a worker that sends nothing for this long is taken to hang
RESTARTS = 5  # in a row, without a finished episode in between: beyond that it is a bug, not bad luck

STACKS = signal.SIGUSR1  # a worker answers it with its stacks
LAST_LINES = 6  # of the worker's log, shown in an error

LostTry = Callable[[str, str, LostError], None]
"""(attempt id, task id, cause)."""


@dataclass(frozen=True)
class Usage:
    peak_memory_bytes: int = 0


class RolloutClient:
    """`start` attempts, `wait` for them, `close`. Callbacks come from the reading thread, one at a time.

    Args:
        log: file for the worker's stderr.
        on_lost_try: called for every try that our side lost.
    """

    def __init__(self, config: RolloutConfig, log: Path, on_lost_try: LostTry) -> None:
        self._config, self._log, self._on_lost_try = config, log, on_lost_try
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._reader: threading.Thread | None = None
        self._peak = 0
        self._changed = threading.Condition()  # guards what follows
        self._missing: dict[str, tuple[Attempt, OnEpisode]] = {}  # in the order in which they were started
        self._handed_over = False  # this worker has the missing ones, and takes more
        self._closing = False
        self._failed: BaseException | None = None

    @property
    def pid(self) -> int | None:
        """The running worker's."""
        return self._process.pid if self._process else None

    def ask_for_stacks(self) -> None:
        """The worker writes the stacks of its threads into the log."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(STACKS)

    def start(self, attempts: Sequence[Attempt] = (), on_episode: OnEpisode = lambda _: None) -> None:
        """Have the attempts run, behind those started before, and return; the worker is started if none runs.
        `on_episode` receives each episode as it finishes, in any order, lost ones included.

        Raises:
            CrrlError: the worker cannot run on this machine (no bubblewrap...), or keeps dying while it starts; and
                what `wait` raises.
        """
        if self._reader is None:
            self._closing, self._failed = False, None
            self._launch()
            self._hand_over()
            self._reader = threading.Thread(target=self._read, name="crrl-rollouts", daemon=True)
            self._reader.start()
        with self._changed:
            self._raise_failure()
            new = [attempt for attempt in attempts if attempt.id not in self._missing]
            self._missing.update({attempt.id: (attempt, on_episode) for attempt in new})
            if self._handed_over:
                self._send(new)

    def wait(self, ids: Collection[str]) -> None:
        """Return when all of these have finished, and their `on_episode` has returned.

        Raises:
            CrrlError: the worker keeps dying, or a plug-in fails; also what a callback raised.
        """
        with self._changed:
            while any(id in self._missing for id in ids):
                self._raise_failure()
                self._changed.wait()
            self._raise_failure()

    def fail(self, error: CrrlError) -> None:
        """Whoever waits for attempts gets this error instead: they cannot end any more."""
        with self._changed:
            self._failed = self._failed or error
            self._changed.notify_all()

    def run(self, attempts: Sequence[Attempt], on_episode: OnEpisode) -> None:
        """`start`, then `wait` for all of them."""
        self.start(attempts, on_episode)
        self.wait([attempt.id for attempt in attempts])

    def usage(self) -> Usage:
        """The worker's, with all its children."""
        return Usage(self._peak)

    def close(self) -> None:
        """End the worker and all its boxes; attempts in flight are dropped. Idempotent."""
        with self._changed:
            self._closing = True
        if self._reader is not None:
            while self._reader.is_alive():
                self._hang_up()  # again if it was just starting a worker
                self._reader.join(0.5)
            self._reader = None
        self._end()
        with self._changed:
            self._missing.clear()

    # The worker's process -------------------------------------------------------------------------------------

    def _launch(self) -> None:
        for last in (False,) * STARTS + (True,):
            try:
                return self._launch_once()
            except _Gone as gone:
                self._end()
                if last or self._closing:
                    said = self._last_words()
                    raise CrrlError(f"The rollout worker did not start, {STARTS + 1} times: {gone}.", said) from None

    def _launch_once(self) -> None:
        """Raises _Gone, CrrlError."""
        ours, theirs = Pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        try:
            log = open(self._log, "ab")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise CrrlError(
                f"The log {self._log} cannot be written: {error.strerror}.", "Remove what is there."
            ) from error
        with log, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "crrl.rollout.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # the trainer handles Ctrl-C
            )
        self._connection = ours
        with suppress(OSError):  # `_receive` reports it
            ours.send_bytes(msgspec.msgpack.encode(self._config))
        verb, *rest = self._receive(START_S)
        if verb == "error":
            self._end()
            raise CrrlError(*rest)

    def _hang_up(self) -> None:
        """The reader and the worker see the end of the pipe."""
        with self._changed, suppress(OSError):
            if self._connection is not None:
                with socket.socket(fileno=os.dup(self._connection.fileno())) as pipe:
                    pipe.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        with self._changed:
            self._handed_over = False
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        if self._process is not None:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _last_words(self) -> str:
        """The end of the worker's log: the file may be gone when somebody reads the error."""
        lines = self._log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"Its log ({self._log}) ends:", *lines]) if lines else "It left no log."

    def _hand_over(self) -> None:
        with self._changed:
            self._handed_over = True
            self._send([attempt for attempt, _ in self._missing.values()])

    def _send(self, attempts: Sequence[Attempt]) -> None:
        if attempts:
            assert self._connection is not None
            with suppress(OSError):  # `_receive` reports it
                self._connection.send_bytes(msgspec.msgpack.encode(list(attempts)))

    # The reading thread ---------------------------------------------------------------------------------------

    def _read(self) -> None:
        deaths = 0
        try:
            while True:
                try:
                    deaths = 0 if self._take(*self._receive(SILENCE_S)) else deaths
                except _Gone as gone:
                    if self._closing:
                        return
                    deaths += 1
                    self._replace(gone, deaths)
        except BaseException as error:  # whoever waits gets it
            with self._changed:
                self._failed = error
                self._changed.notify_all()

    def _take(self, verb: str, *rest: Any) -> bool:
        """Whether it was an episode that was missing."""
        if verb == "episode":
            episode = msgspec.convert(rest[0], Episode)
            known = self._missing.get(episode.id)
            if known is None:
                return False
            known[1](episode)
            with self._changed:
                self._missing.pop(episode.id, None)
                self._changed.notify_all()
            return True
        if verb == "lost_try":
            id, task, cause, detail = rest
            self._on_lost_try(id, task, LostError(cause, detail))
        elif verb == "error":
            raise CrrlError(*rest)
        return False

    def _replace(self, gone: _Gone, deaths: int) -> None:
        if deaths > RESTARTS:
            raise CrrlError(
                f"The rollout worker died {deaths} times in a row: {gone}.",
                f"Finished episodes are kept, and you can resume the run. {self._last_words()}",
            ) from None
        with self._changed:
            self._handed_over = False
            lost = [attempt for attempt, _ in self._missing.values()]
        for attempt in lost:
            self._on_lost_try(attempt.id, attempt.task.id, LostError("worker_died", str(gone)))
        self._end()
        self._launch()
        self._hand_over()

    def _receive(self, silence_s: float) -> list[Any]:
        """The next message other than a sign of life. Raises _Gone."""
        assert self._connection is not None and self._process is not None
        silent_since = time.monotonic()
        while True:
            try:
                if self._connection.poll(1.0):
                    message = msgspec.msgpack.decode(self._connection.recv_bytes())
                    silent_since = time.monotonic()
                    if message[0] != "beat":
                        return message
                    self._peak = max(self._peak, message[1])
                elif time.monotonic() - silent_since > silence_s:
                    self._process.kill()
                    raise _Gone(f"no sign of life for {silence_s:.0f} s")
            except (EOFError, OSError) as error:
                code = self._process.poll()
                raise _Gone(f"it ended ({type(error).__name__}, exit code {code})") from None

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed


class _Gone(Exception):
    pass
