"""A server ends with its run, with all its processes, whatever ends the run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from crrl.engines.vllm import keeper

# A server with a process that ignores SIGTERM, as a hanging one does.
SERVER = """
import subprocess, sys, time, signal
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""


class Kept:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "private"
        self.folder.mkdir()
        told = folder / "child"
        command = [sys.executable, keeper.__file__, str(self.folder), sys.executable, "-c", SERVER, str(told)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        wait(lambda: told.is_file() and told.read_text() != "")
        own = psutil.Process(self.process.pid)
        self.processes = [own, *own.children(recursive=True)]
        assert len(self.processes) == 3

    def running(self) -> list[psutil.Process]:
        self.process.poll()
        return [process for process in self.processes if alive(process)]


def alive(process: psutil.Process) -> bool:
    """One that has ended stays a zombie for as long as who inherited it likes: this process, if another test made it
    a subreaper."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_the_run_is_gone(kept: Kept) -> None:
    assert kept.process.stdin is not None
    kept.process.stdin.close()
    wait(lambda: not kept.running() and not kept.folder.exists())


def test_the_run_ends_it(kept: Kept) -> None:
    """And keeps the folder: it may start another."""
    assert kept.process.stdin is not None
    kept.process.stdin.write(b"end")
    kept.process.stdin.close()
    wait(lambda: not kept.running())
    assert kept.folder.exists()


def test_the_server_dies(kept: Kept) -> None:
    kept.processes[1].kill()
    wait(lambda: not kept.running())
    assert kept.process.wait(60) == 128 + signal.SIGKILL


def test_signals_of_a_terminal_do_not_reach_it(kept: Kept) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        kept.process.send_signal(number)
    time.sleep(0.3)
    assert len(kept.running()) == 3
    test_the_run_ends_it(kept)
