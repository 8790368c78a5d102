"""Live progress of a run: one line with the numbers that matter.

On a terminal, a rich Live region; elsewhere plain lines, at most one every `PLAIN_EVERY_S` seconds. A step may take
minutes: what moves within one (`within`, and tokens sampled, which `count_tokens` tells) is shown, too. It never raises
into the run, and draws on stderr, which keeps stdout for the result (`--json`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crrl.console.plain import clean, seconds

PLAIN_EVERY_S = 10.0
WINDOW = 64  # the rate, and so the ETA, is taken over this many advances

# The format of metrics; others print with three significant digits.
FORMATS: dict[str, tuple[str, str]] = {
    "reward": ("reward", "{:.2f}"),
    "solve": ("solved", "{:.0%}"),
    "entropy": ("entropy", "{:.2f}"),
    "episodes_per_s": ("episodes/s", "{:.1f}"),
    "well_formed": ("well-formed", "{:.0%}"),
    "lost": ("lost", "{:.0f}"),
    "kl": ("kl", "{:.4f}"),
}


class Display:
    """`phase(name, total)`, `advance(n, **metrics)`, `note(text)`, `close()`; any thread may call them.

    Args:
        live: None: if `stream` is a terminal; `--json` passes False.
    """

    def __init__(self, *, live: bool | None = None, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._console = Console(file=self.stream, highlight=False)
        interactive = self._console.is_terminal and os.environ.get("TERM") != "dumb"
        self._live: Live | None = None
        self._lock = threading.RLock()
        self._started = time.monotonic()
        self._finished: list[tuple[str, float, dict[str, float]]] = []
        self._name, self._total, self._done = "", 0, 0
        self._metrics: dict[str, float] = {}
        self._phase_started = self._said = 0.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._inner = ""
        self._tokens: Callable[[], int] | None = None
        self._sampled: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._closed = threading.Event()
        if interactive if live is None else live:
            self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._render)
            self._live.start()

    def phase(self, name: str, total: int) -> None:
        """Begin a phase of `total` units (episodes or steps); 0: unknown."""
        with self._lock:
            self._end_phase()
            now = time.monotonic()
            self._name, self._total, self._done, self._metrics = name, total, 0, {}
            self._phase_started = self._said = now
            self._recent.clear()
            self._recent.append((now, 0))
            self._inner = ""
            if self._live is None:
                self._say(f"{name}" + (f" (0/{total})" if total else ""))

    def advance(self, n: int = 1, **metrics: float) -> None:
        """Count `n` more units; metrics replace those of the same name."""
        with self._lock:
            self._done += n
            self._metrics.update(metrics)
            self._inner = ""
            now = time.monotonic()
            self._recent.append((now, self._done))
            if self._live is None and (now - self._said >= PLAIN_EVERY_S or self._done == self._total):
                self._said = now
                self._say(self._line())

    def within(self, what: str, done: int, total: int) -> None:
        """Progress inside the unit that is under way: `episodes 12/64`, until the next `advance`."""
        with self._lock:
            self._inner = f"{what} {done}/{total}"
            if self._live is None and time.monotonic() - self._said >= PLAIN_EVERY_S:
                self._said = time.monotonic()
                self._say(self._line())

    def count_tokens(self, tokens: Callable[[], int]) -> None:
        """Show tokens per second from now on. `tokens`: how many have been sampled so far."""
        self._tokens = tokens
        threading.Thread(target=self._tick, name="crrl-display", daemon=True).start()

    def _tick(self) -> None:
        """Samples the counter, and without a terminal shows that a long unit is under way."""
        assert self._tokens is not None
        while not self._closed.wait(1.0):
            with self._lock:
                now = time.monotonic()
                self._sampled.append((now, self._tokens()))
                moved = self._sampled[-1][1] > self._sampled[0][1]
                if self._live is None and self._name and moved and now - self._said >= PLAIN_EVERY_S:
                    self._said = now
                    self._say(self._line())

    def _speed(self) -> str:
        """Tokens per second over the last ten seconds; "" while none are sampled."""
        recent = [s for s in self._sampled if s[0] >= self._sampled[-1][0] - 10]
        if len(recent) < 2 or recent[-1][1] == recent[0][1]:
            return ""
        return f"{(recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0]):,.0f} tokens/s"

    def note(self, text: str) -> None:
        """Print a line that stays (a restarted worker, a saved checkpoint)."""
        with self._lock:
            if self._live is None:
                self._say(clean(text))
            else:
                self._live.console.print(Text(clean(text), style="dim"))

    def close(self) -> None:
        """Idempotent. The last line stays on the screen."""
        self._closed.set()
        with self._lock:
            self._end_phase()
            self._name = ""
        if self._live is not None:  # outside the lock: stop() joins the thread that renders
            self._live.stop()
            self._live = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def eta_s(self) -> float | None:
        """Seconds to the end of the phase at the recent rate; None while unknown."""
        if len(self._recent) < 2 or not self._total:
            return None
        (t0, n0), (t1, n1) = self._recent[0], self._recent[-1]
        return (self._total - self._done) * (t1 - t0) / (n1 - n0) if n1 > n0 else None

    def _end_phase(self) -> None:
        if self._name:
            self._finished.append((self._name, time.monotonic() - self._phase_started, dict(self._metrics)))

    def _numbers(self, metrics: dict[str, float]) -> str:
        shown = []
        for name, value in metrics.items():
            label, form = FORMATS.get(name, (name, "{:.3g}"))
            shown.append(f"{label} {form.format(value)}")
        return "  ".join(shown)

    def _line(self) -> str:
        eta = self.eta_s()
        rest = f"  {seconds(eta)} left" if eta is not None and self._done < self._total else ""
        inner = "".join(f"  {part}" for part in (self._inner, self._speed()) if part)
        return f"{self._name} {self._done}/{self._total or '?'}{inner}  {self._numbers(self._metrics)}{rest}".rstrip()

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed pipe or stream must not end a training run
            print(f"[{seconds(time.monotonic() - self._started):>9}] {text}", file=self.stream, flush=True)

    def _render(self) -> Group:
        with self._lock:
            table = Table.grid(padding=(0, 2))
            for name, took, metrics in self._finished:
                table.add_row(Text("✓", style="green"), name, Text(seconds(took), style="dim"), self._numbers(metrics))
            if not self._name:
                return Group(table)
            now = Table.grid(padding=(0, 2))
            bar = ProgressBar(total=self._total or None, completed=self._done, width=24, pulse=not self._total)
            eta = self.eta_s()
            left = f"{seconds(eta)} left" if eta is not None else ""
            now.add_row(
                Text("›", style="bold cyan"),
                Text(self._name, style="bold"),
                bar,
                f"{self._done}/{self._total or '?'}",
                Text(left, style="dim"),
            )
            inner = "".join(f"{part}  " for part in (self._inner, self._speed()) if part)
            numbers = Text(f"   {inner}{self._numbers(self._metrics)}", style="cyan")
            return Group(table, now, numbers)
