"""`crrl train launch=ddp` end to end: a rank that is killed ends the run with one error, and it resumes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from crrl.learning.replay import replay
from crrl.rollout.journal import FILE, TRAIN, Journal

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(1200)]
STEPS = 40
SETTINGS = [
    *("launch=ddp", "launch.processes=2", f"trainer.max_steps={STEPS}", "trainer.save_steps=1"),
    "trainer.tokens_per_micro_batch=1024",
    *("objective.groups_per_step=1", "objective.group_size=2", "evaluation.tasks_per_split=1"),
    *("evaluation.splits=[rl_instances]", "evaluation.decodings=[sampled]", "evaluation.before=false"),
]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    told = [sys.executable, "-m", "crrl.cli.main", "train", *words, f"runs_dir={folder}"]
    return subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(found: Callable[[], object], process: subprocess.Popen[str], limit_s: float = 500.0) -> None:
    deadline = time.monotonic() + limit_s
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ranks(launcher: int) -> list[psutil.Process]:
    """Rank 0 and rank 1: torch starts them in this order."""
    children = psutil.Process(launcher).children()
    return sorted((c for c in children if "crrl.cli.main" in " ".join(c.cmdline())), key=lambda c: c.create_time())


def trained(run: Path) -> int:
    if not (run / FILE).exists():
        return 0
    with Journal.open(run, read_only=True) as journal:
        return sum(step.state == "trained" for step in journal.steps())


def gone(processes: list[psutil.Process], limit_s: float = 60.0) -> bool:
    return not psutil.wait_procs(processes, timeout=limit_s)[1]


@pytest.mark.parametrize(("victim", "number"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGTERM)])
def test_a_rank_that_is_killed_ends_all_and_the_run_resumes(tmp_path: Path, victim: int, number: int) -> None:
    run = tmp_path / "mine"
    process = start(tmp_path, "quickstart", "run=mine", *SETTINGS)
    until(lambda: trained(run) >= 1, process)
    both = ranks(process.pid)
    both[victim].send_signal(number)
    assert gone(both)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.count("error:") == 1, said
    assert f"Rank {victim} of 2 was killed by {signal.Signals(number).name}" in said and "resume=mine" in said
    assert "Traceback" not in said
    before = trained(run)
    again = start(tmp_path, "resume=mine", f"trainer.max_steps={before + 1}")
    _, said = again.communicate()
    assert again.returncode == 0, said
    with Journal.open(run, read_only=True) as journal:
        assert [(s.step, s.state) for s in journal.steps()] == [(n, "trained") for n in range(before + 1)]
        assert replay(journal.episodes(TRAIN), journal.trained_rows()).exact


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_launchers_end_is_that_of_all_ranks(tmp_path: Path, number: int) -> None:
    process = start(tmp_path, "quickstart", "run=mine", *SETTINGS)
    until(lambda: trained(tmp_path / "mine") >= 1, process)
    both = ranks(process.pid)
    process.send_signal(number)
    assert gone(both)
    out, said = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert "Resume with: crrl train resume=mine" in out + said
