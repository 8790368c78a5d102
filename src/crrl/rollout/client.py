"""The trainer's side of the rollout worker: starts it, sends it attempts, collects the episodes, restarts it.

A worker that dies or hangs loses only the tries in flight. They start again under the same ids, in a new worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
    """Args:
    log: file for the worker's stderr.
    on_lost_try: called for every try that our side lost.
    """

    def __init__(self, config: RolloutConfig, log: Path, on_lost_try: LostTry) -> None:
        self._config, self._log, self._on_lost_try = config, log, on_lost_try
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._peak = 0

    @property
    def pid(self) -> int | None:
        """The running worker's."""
        return self._process.pid if self._process else None

    def ask_for_stacks(self) -> None:
        """The worker writes the stacks of its threads into the log."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(STACKS)

    def start(self) -> None:
        """Raises CrrlError, with the remedy: the worker cannot run on this machine (no bubblewrap...), or keeps dying
        while it starts."""
        for last in (False,) * STARTS + (True,):
            try:
                return self._start()
            except _Gone as gone:
                self.close()
                if last:
                    said = self._last_words()
                    raise CrrlError(f"The rollout worker did not start, {STARTS + 1} times: {gone}.", said) from None

    def _start(self) -> None:
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
            self.close()
            raise CrrlError(*rest)

    def run(self, attempts: Sequence[Attempt], on_episode: OnEpisode) -> None:
        """Run all attempts. `on_episode` receives each episode as it finishes, in any order, lost ones included.

        Raises:
            CrrlError: the worker keeps dying, or a plug-in fails.
        """
        missing = {attempt.id: attempt for attempt in attempts}
        deaths = 0
        self._hand_over(missing)
        while missing:
            try:
                verb, *rest = self._receive(SILENCE_S)
            except _Gone as gone:
                deaths += 1
                if deaths > RESTARTS:
                    raise CrrlError(
                        f"The rollout worker died {deaths} times in a row: {gone}.",
                        f"Finished episodes are kept, and you can resume the run. {self._last_words()}",
                    ) from None
                for attempt in missing.values():
                    self._on_lost_try(attempt.id, attempt.task.id, LostError("worker_died", str(gone)))
                self.close()
                self.start()
                self._hand_over(missing)
                continue
            if verb == "episode":
                episode = msgspec.convert(rest[0], Episode)
                if missing.pop(episode.id, None) is not None:
                    deaths = 0
                    on_episode(episode)
            elif verb == "lost_try":
                id, task, cause, detail = rest
                self._on_lost_try(id, task, LostError(cause, detail))
            elif verb == "error":
                self.close()
                raise CrrlError(*rest)

    def usage(self) -> Usage:
        """The worker's, with all its children."""
        return Usage(self._peak)

    def close(self) -> None:
        """End the worker and all its boxes. Idempotent."""
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

    def _hand_over(self, missing: dict[str, Attempt]) -> None:
        if missing:
            assert self._connection is not None, "start() first"
            try:
                self._connection.send_bytes(msgspec.msgpack.encode(list(missing.values())))
            except OSError:
                return  # `_receive` reports it

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
            except (EOFError, OSError) as error:
                code = self._process.poll()
                raise _Gone(f"it ended ({type(error).__name__}, exit code {code})") from None
            if time.monotonic() - silent_since > silence_s:
                self._process.kill()
                raise _Gone(f"no sign of life for {silence_s:.0f} s")


class _Gone(Exception):
    pass
