"""Invariants 6, 8 and 10 with episodes ahead of the trainer: kill -9 of the trainer or its worker, at random instants.

`make test` kills a few times; `make test-async` CRRL_KILLS times (40), and stops an engine's world for a minute.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import async_kit
import psutil
import pytest

from crrl.learning.curriculum import Curriculum
from crrl.learning.replay import replay
from crrl.rollout.content import content_hash
from crrl.rollout.journal import FILE, TRAIN, Journal

STEPS = 4


def start(folder: Path, state_dir: Path, staleness: int, steps: int) -> subprocess.Popen[bytes]:
    words = [async_kit.__file__, str(folder), str(state_dir), str(staleness), str(steps)]
    with open(folder.with_suffix(".log"), "ab") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, env=environment)


def kept(folder: Path) -> dict[str, str]:
    if not (folder / FILE).exists():
        return {}
    with Journal.open(folder, read_only=True) as journal:
        return {episode.id: content_hash(episode) for episode in journal.episodes(TRAIN)}


def check_whole(folder: Path, state_dir: Path, staleness: int, steps: int) -> None:
    """Each attempt once, in the plan that a run has that nobody kills; versions in bounds; every row rebuilt."""
    config = async_kit.config_of(str(state_dir), staleness, steps)
    curriculum = Curriculum(config)
    with Journal.open(folder, read_only=True) as journal:
        planned = [(s.step, s.groups, s.tasks, s.state) for s in journal.steps()]
        assert planned == [
            (k, [f"train/{k}/{g}" for g in range(async_kit.GROUPS)], [t.id for t in curriculum.step(k)], "trained")
            for k in range(steps)
        ]
        episodes = {episode.id: episode for episode in journal.episodes(TRAIN)}
        assert len(episodes) == steps * async_kit.GROUPS * async_kit.SIZE
        assert {e.outcome for e in episodes.values()} <= {"scored", "truncated"}
        for id, episode in episodes.items():
            step = int(id.split("/")[1])
            versions = {version for sample in episode.samples for version in sample.versions}
            assert max(0, step - staleness) <= min(versions) <= max(versions) <= step, (id, versions)
            assert planned[step][2][int(id.split("/")[2])] == episode.task
        report = replay(journal.episodes(TRAIN), journal.trained_rows())
        assert report.exact
        order = [row.episode for row in journal.trained_rows()]
        assert order == sorted(order)


def killed(folder: Path, state_dir: Path, staleness: int, steps: int, kills: int, chance: random.Random) -> None:
    """A run to its end, and so many kills on its way."""
    done, known, process = Counter[str](), dict[str, str](), start(folder, state_dir, staleness, steps)
    deadline = time.monotonic() + 600 + 120 * kills
    while True:
        before = len(known)
        while process.poll() is None and done.total() < kills and len(kept(folder)) <= before:
            assert time.monotonic() < deadline, folder.with_suffix(".log").read_text()[-2000:]
            time.sleep(0.05)  # a run that gets no further than its kills would not end
        time.sleep(chance.uniform(0.0, 0.5) if done.total() < kills else 0.05)
        known = kept(folder)
        if process.poll() is not None:
            assert process.returncode == 0, folder.with_suffix(".log").read_text()[-3000:]
            break
        assert time.monotonic() < deadline, folder.with_suffix(".log").read_text()[-2000:]
        if done.total() >= kills:
            continue
        victim = chance.choice(["trainer", "trainer", "worker"])
        workers = [p for p in psutil.Process(process.pid).children() if "crrl.rollout.worker" in p.cmdline()]
        if victim == "worker" and workers:
            workers[0].send_signal(signal.SIGKILL)
        elif victim == "trainer":
            process.kill()
            process.wait()
            now = kept(folder)
            assert now.items() >= known.items()
            known = now
            process = start(folder, state_dir, staleness, steps)
        else:
            continue
        done[victim] += 1
    check_whole(folder, state_dir, staleness, steps)


@pytest.mark.timeout(1500)  # a busy machine takes its time
def test_a_few_kills(tmp_path: Path, state_dir: Path) -> None:
    killed(tmp_path / "run", state_dir, 2, STEPS, 2, random.Random(2))


@pytest.mark.kills
@pytest.mark.timeout(0)
def test_many_kills(tmp_path: Path, state_dir: Path) -> None:
    kills = int(os.environ.get("CRRL_KILLS", "40"))
    chance = random.Random(int(os.environ.get("CRRL_KILLS_SEED", "0")))
    for number, left in enumerate(range(kills, 0, -8)):
        staleness = (2, 1, 4, 0)[number % 4]
        killed(tmp_path / f"run{number}", state_dir, staleness, 10, min(8, left), chance)
        print(f"{kills - left + min(8, left)} kills; run {number}, staleness {staleness}: whole", flush=True)


@pytest.mark.kills
@pytest.mark.timeout(0)
def test_a_trainer_and_its_engine_stopped_for_a_minute(tmp_path: Path, state_dir: Path) -> None:
    """Nothing is lost, and no episode is cut for time: its requests were at the engine."""
    folder = tmp_path / "run"
    process = start(folder, state_dir, 2, STEPS)
    while process.poll() is None and len(kept(folder)) < 4:
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    time.sleep(61.0)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    check_whole(folder, state_dir, 2, STEPS)
    with Journal.open(folder, read_only=True) as journal:
        assert {row.outcome for row in journal.outline(TRAIN)} == {"scored"} and journal.lost_tries() == []
