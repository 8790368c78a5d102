"""A watchdog: when nothing has moved for a stated time, it writes the stacks of our processes, and changes nothing.

A run that hangs at night is understood from `stacks.txt` in the morning: every thread of the trainer, every thread of
the worker (in its log), and what each process below them waits for in the kernel.
"""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil

FILE = "stacks.txt"


class Watchdog:
    """Started by `start`, ended by `close`.

    Args:
        folder: the run's.
        moved: a value that changes whenever something moves: an episode, a token, a micro-batch.
        ask_worker: makes the worker write its stacks into its log (`RolloutClient.ask_for_stacks`).
        silence_s: seconds without a change after which stacks are written, once for each silence.
        note: tells the user.
    """

    def __init__(
        self,
        folder: Path,
        moved: Callable[[], Hashable],
        ask_worker: Callable[[], None],
        silence_s: float,
        note: Callable[[str], None],
    ) -> None:
        self._folder, self._moved, self._ask_worker = folder, moved, ask_worker
        self._silence_s, self._note = silence_s, note
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="crrl-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        last, since, told = self._moved(), time.monotonic(), False
        while not self._end.wait(min(self._silence_s / 4, 10.0)):
            if (now := self._moved()) != last:
                last, since, told = now, time.monotonic(), False
            elif not told and time.monotonic() - since >= self._silence_s:
                told = True
                with suppress(OSError):  # a full disk must not end the run
                    self._write()
                self._note(
                    f"Nothing has moved for {self._silence_s:.0f} s: see {self._folder / FILE} for what each process "
                    "waits for (and the end of log.txt for the worker)."
                )

    def _write(self) -> None:
        with open(self._folder / FILE, "a", encoding="utf-8") as file:
            file.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')}: nothing has moved for {self._silence_s:.0f} s\n\n")
            file.write("The trainer's threads:\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
            _processes(file)
        self._ask_worker()


def _processes(file: TextIO) -> None:
    """A line for each process below this one. No command lines: they may hold secrets."""
    file.write("\nProcesses (pid, parent, state, CPU seconds, waits in, name):\n")
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, OSError):
            times = process.cpu_times()
            waits = Path(f"/proc/{process.pid}/wchan").read_text() or "-"
            file.write(
                f"{process.pid} {process.ppid()} {process.status()} {times.user + times.system:.1f} {waits} "
                f"{process.name()}\n"
            )
