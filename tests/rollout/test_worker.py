"""The worker process and its client: killed, stopped, refused; 32 agents at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rollout_kit import attempt, rollout_config

from crrl.engines.scripted import ScriptedEngine
from crrl.engines.wire import EngineServer
from crrl.errors import CrrlError, LostError
from crrl.rollout import client as client_module
from crrl.rollout.api import Episode
from crrl.rollout.client import RolloutClient


class Running:
    """A client with its worker, and what it reported."""

    def __init__(self, client: RolloutClient) -> None:
        self.client = client
        self.lost: list[LostError] = []
        self.episodes: list[Episode] = []

    def run(self, count: int) -> list[Episode]:
        self.client.run([attempt(i) for i in range(count)], self.episodes.append)
        return self.episodes


@pytest.fixture
def running(state_dir: Path, engine: ScriptedEngine, tmp_path: Path) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as short:  # the path of a socket is limited to 107 characters
        server = EngineServer(engine, Path(short) / "engine.sock")
        lost: list[LostError] = []
        config = replace(rollout_config(state_dir, server.address), private=short)
        client = RolloutClient(config, tmp_path / "log.txt", lambda _id, _task, error: lost.append(error))
        made = Running(client)
        made.lost = lost
        client.start()
        yield made
        client.close()
        assert Path(short).exists()  # whatever became of workers
        server.close()


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_32_agents_at_once_and_none_lost(running: Running) -> None:
    episodes = running.run(32)
    assert sorted(e.id for e in episodes) == sorted(f"a{i}" for i in range(32))
    assert {e.outcome for e in episodes} == {"scored"} and running.lost == []
    assert all(e.verdict and e.verdict.solved for e in episodes)
    assert running.client.usage().peak_memory_bytes > 10_000_000


def test_a_killed_worker_loses_no_finished_episode(running: Running) -> None:
    """kill -9 in the middle: what was in flight starts again under the same ids, what was done is not repeated."""
    first = running.client.pid
    assert first is not None
    below: list[psutil.Process] = []

    def kill() -> None:
        while len(running.episodes) < 4:
            time.sleep(0.01)
        below.extend(descendants(first))
        os.kill(first, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    episodes = running.run(24)
    killer.join()
    assert sorted(e.id for e in episodes) == sorted(f"a{i}" for i in range(24))
    assert {e.outcome for e in episodes} == {"scored"} and running.client.pid != first
    assert running.lost and {error.cause for error in running.lost} == {"worker_died"}
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []  # no box, no judge outlives its worker


def test_a_hanging_worker_is_replaced(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_S", 5.0)
    assert running.client.pid is not None
    os.kill(running.client.pid, signal.SIGSTOP)
    assert {e.outcome for e in running.run(3)} == {"scored"}
    assert {error.cause for error in running.lost} == {"worker_died"}


def test_a_worker_that_cannot_work_says_why(state_dir: Path, tmp_path: Path) -> None:
    config = rollout_config(state_dir, f"unix:{tmp_path}/nobody.sock")
    client = RolloutClient(config, tmp_path / "log.txt", lambda *_: None)
    with pytest.raises(CrrlError, match="engine"):
        client.start()


def test_close_ends_everything(running: Running) -> None:
    running.run(2)
    assert running.client.pid is not None
    below = [psutil.Process(running.client.pid), *descendants(running.client.pid)]
    running.client.close()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []


OWNER = """
import sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {kit!r})
from rollout_kit import BUGS, attempt, rollout_config
from crrl.engines.load import load_tokenizer
from crrl.engines.wire import EngineServer
from crrl.models import model_folder
from crrl.rollout.client import RolloutClient
from crrl.bench.demonstrated import demonstrating_engine
engine = demonstrating_engine(BUGS, load_tokenizer(model_folder("tiny")), step=4, delay=0.2)
server = EngineServer(engine, Path({sockets!r}) / "e.sock")
config = replace(rollout_config(Path({state!r}), server.address), private={sockets!r})
client = RolloutClient(config, Path({sockets!r}) / "log.txt", lambda *_: None)
client.start()
print(client.pid, flush=True)
client.run([attempt(i) for i in range(8)], lambda e: None)
"""


def test_a_worker_ends_with_the_process_that_owns_it(state_dir: Path) -> None:
    """kill -9 of the trainer: the worker, its boxes, its judge and the run's temporary folder go too."""
    with tempfile.TemporaryDirectory() as temporary:
        sockets = f"{temporary}/run"
        Path(sockets).mkdir()
        code = OWNER.format(kit=str(Path(__file__).parents[1] / "kits"), sockets=sockets, state=str(state_dir))
        owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        worker = psutil.Process(int(owner.stdout.readline()))
        deadline = time.monotonic() + 30
        while len(below := descendants(worker.pid)) < 12 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(below) >= 12  # boxes are up
        owner.kill()
        owner.wait()
        _, alive = psutil.wait_procs([worker, *below], timeout=20)
        assert alive == [] and not Path(sockets).exists()


STUCK = """
import asyncio, os, sys
from multiprocessing import Pipe
from crrl.rollout import worker
worker.LEAVE_S = 0.5
ours, theirs = Pipe()
made = worker.Worker(theirs)
made._private, made._run = sys.argv[1], 1  # as if the run were gone
async def main():
    from threading import Thread
    Thread(target=made._listen, args=(asyncio.get_running_loop(), asyncio.Queue()), daemon=True).start()
    ours.close()
    await asyncio.sleep(100)
asyncio.run(main())
"""


def test_a_worker_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """Nobody is there to do it once the run is killed."""
    (tmp_path / "private").mkdir()
    argv = [sys.executable, "-c", STUCK, str(tmp_path / "private")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1 and "does not end by itself" in done.stderr and "STUCK" not in done.stderr
    assert not (tmp_path / "private").exists()


def test_a_worker_that_keeps_dying_ends_the_run_with_its_last_words(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no more memory for this')\n")
    client = RolloutClient(rollout_config(state_dir), tmp_path / "log.txt", lambda *_: None)
    with pytest.raises(CrrlError, match="no more memory for this"):
        client.start()


def test_a_worker_killed_while_it_starts_is_started_again(running: Running) -> None:
    running.client.close()
    killed: set[int] = set()

    def kill() -> None:
        while len(killed) < 2:
            pid = running.client.pid
            if pid is not None and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    running.client.start()
    killer.join()
    assert running.client.pid not in killed
    assert {e.outcome for e in running.run(2)} == {"scored"}


def test_a_worker_that_never_comes_up_ends_the_run_with_its_last_words(running: Running) -> None:
    running.client.close()
    killed: set[int] = set()
    done = threading.Event()

    def kill() -> None:
        while not done.is_set():
            pid = running.client.pid
            if pid is not None and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(CrrlError, match=f"did not start, {client_module.STARTS + 1} times"):
        running.client.start()
    done.set()
    killer.join()
    assert len(killed) == client_module.STARTS + 1


# Started, and not waited for ----------------------------------------------------------------------------------


def test_episodes_finish_and_a_worker_is_replaced_while_nobody_waits(running: Running) -> None:
    """As while the trainer computes; later attempts come behind, and `wait` is by attempt."""
    client, first = running.client, running.client.pid
    client.start([attempt(i) for i in range(4)], running.episodes.append)
    client.start([attempt(i) for i in range(4, 12)], running.episodes.append)
    assert first is not None
    when(lambda: len(running.episodes) >= 2)
    os.kill(first, signal.SIGKILL)
    when(lambda: client.pid not in (None, first) and len(running.episodes) >= 5)
    client.wait([f"a{i}" for i in range(4)])
    assert {e.id for e in running.episodes} >= {f"a{i}" for i in range(4)}
    client.start([attempt(12)], running.episodes.append)
    client.wait([f"a{i}" for i in range(13)])
    assert sorted(e.id for e in running.episodes) == sorted(f"a{i}" for i in range(13))
    client.wait([])
    client.wait([f"a{i}" for i in range(13)])  # what has finished is not waited for again


def test_whoever_waits_gets_the_error_of_a_callback(running: Running) -> None:
    """A full disk, when an episode is journalled."""

    def full(_: Episode) -> None:
        raise CrrlError("The disk is full.")

    running.client.start([attempt(0)], full)
    with pytest.raises(CrrlError, match="disk is full"):
        running.client.wait(["a0"])
    with pytest.raises(CrrlError, match="disk is full"):
        running.client.start([attempt(1)], running.episodes.append)


def test_closing_while_episodes_run_leaves_nothing_and_it_opens_again(running: Running) -> None:
    running.client.start([attempt(i) for i in range(16)], running.episodes.append)
    when(lambda: len(running.episodes) >= 1)
    pid = running.client.pid
    assert pid is not None
    below = descendants(pid)
    running.client.close()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert alive == [] and not psutil.pid_exists(pid) and running.lost == []
    running.client.close()
    running.client.start([attempt(20)], running.episodes.append)
    running.client.wait(["a20"])


def when(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
