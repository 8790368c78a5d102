"""A run that hangs says what each of its processes waits for; one that moves is left alone."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from crrl.run.watchdog import FILE, Watchdog


def when(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hangs_here(end: threading.Event) -> None:
    end.wait()


def test_silence_is_written_down_once_and_again_after_something_moved(tmp_path: Path) -> None:
    moved, said, asked, end = [0], [], [], threading.Event()
    hanging = threading.Thread(target=hangs_here, args=(end,))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "token=hush-hush"])
    watchdog = Watchdog(tmp_path, lambda: moved[0], lambda: asked.append(1), 0.2, said.append)
    hanging.start()
    watchdog.start()
    try:
        when(lambda: len(said) == 1)
        time.sleep(0.6)
        assert len(said) == 1, "one silence, one note"
        text = (tmp_path / FILE).read_text()
        assert "hangs_here" in text and str(child.pid) in text and "hush-hush" not in text
        moved[0] += 1
        when(lambda: len(said) == 2)
        assert len(asked) == 2 and str(tmp_path / FILE) in said[0]
    finally:
        watchdog.close()
        end.set()
        child.kill()
        child.wait()
        hanging.join()


def test_a_run_that_moves_is_left_alone(tmp_path: Path) -> None:
    moved = iter(range(10**9))
    watchdog = Watchdog(tmp_path, lambda: next(moved), lambda: None, 0.1, lambda text: None)
    watchdog.start()
    time.sleep(0.5)
    watchdog.close()
    assert not (tmp_path / FILE).exists()
