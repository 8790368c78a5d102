"""Whole runs of `crrl train engine=vllm` on the CPU, whose server is killed while agents are at work, or which are
killed themselves: `make test-vllm`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from vllm_kit import ENVIRONMENT

from crrl.learning.replay import replay
from crrl.rollout.journal import FILE, TRAIN, Journal

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]
STEPS, GROUPS, SIZE, STALENESS = 3, 3, 4, 1
SMALL = [
    f"trainer.max_steps={STEPS}",
    f"objective.groups_per_step={GROUPS}",
    f"objective.group_size={SIZE}",
    f"rollout.staleness={STALENESS}",
    "rollout.concurrency=16",
    "evaluation.tasks_per_split=2",
    "evaluation.splits=[rl_instances]",
    "evaluation.decodings=[sampled]",
    "engine.memory_gb=1",
    f"engine.environment={ENVIRONMENT}",
]


def finished(run: Path) -> int:
    if not (run / FILE).exists():
        return 0
    with Journal.open(run, read_only=True) as journal:
        return len(journal.finished(TRAIN))


def servers(trainer: int) -> list[psutil.Process]:
    keepers = []
    for process in psutil.Process(trainer).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # git, say
            keepers += [process] * any("keeper.py" in word for word in process.cmdline())
    return [child for keeper in keepers for child in keeper.children(recursive=True)]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """For temporary files, sockets among them: a short name."""
    with tempfile.TemporaryDirectory(prefix="crrl-") as folder:
        yield Path(folder)


def crrl_train(folder: Path, temporary: Path, *words: str) -> subprocess.Popen[bytes]:
    """Its output goes to `log`."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "crrl.cli.main", "train", *words, f"runs_dir={folder}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
        )


def left_in(temporary: Path) -> list[str]:
    """Of us and of vLLM; wandb makes folders of its own when TRL imports it, and drops them at a regular end only."""
    return [path.name for path in temporary.iterdir() if not path.name.startswith("tmp")]


def test_it_trains_and_its_server_may_die(tmp_path: Path, temporary: Path) -> None:
    run = tmp_path / "r"
    training = crrl_train(tmp_path, temporary, "quickstart", "engine=vllm", *SMALL, "run=r")
    try:
        while finished(run) < GROUPS * SIZE + 1:
            assert training.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        at_work = servers(training.pid)
        assert at_work
        for process in at_work:
            process.kill()
        assert training.wait() == 0, (tmp_path / "log").read_text()
    finally:
        training.kill()
    print((tmp_path / "log").read_text())
    with Journal.open(run, read_only=True) as journal:
        steps, episodes, tries = journal.steps(), list(journal.episodes(TRAIN)), journal.lost_tries()
        replayed = replay(journal.episodes(TRAIN), journal.trained_rows())
    assert [step.state for step in steps] == ["trained"] * STEPS
    assert max(step.metrics["push_error"] for step in steps if "push_error" in step.metrics) < 1e-4
    assert len(episodes) == len({episode.id for episode in episodes}) == STEPS * GROUPS * SIZE
    assert {episode.outcome for episode in episodes} <= {"scored", "truncated"}, "none was given up, none scored for it"
    assert {lost["cause"] for lost in tries} <= {"engine_failed"}
    for episode in episodes:
        step = int(episode.id.split("/")[1])
        versions = {version for sample in episode.samples for version in sample.versions}
        assert max(0, step - STALENESS) <= min(versions) <= max(versions) <= step
    assert replayed.exact and replayed.trained_rows > 0
    assert (run / "vllm.log").stat().st_size > 0
    assert not left_in(temporary)


def test_a_run_that_is_killed_leaves_nothing_and_goes_on(tmp_path: Path, temporary: Path) -> None:
    run = tmp_path / "r"
    training = crrl_train(tmp_path, temporary, "quickstart", "engine=vllm", *SMALL, "run=r")
    try:
        while finished(run) < GROUPS * SIZE + 1:
            assert training.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        all_of_it = psutil.Process(training.pid).children(recursive=True)
        assert len(servers(training.pid)) >= 3
    finally:
        training.kill()
        training.wait()
    _, left = psutil.wait_procs(all_of_it, 60)
    assert not left, "processes outlive their run"
    assert not left_in(temporary), "weights and sockets outlive their run"
    with Journal.open(run, read_only=True) as journal:
        before = {episode.id: episode.outcome for episode in journal.episodes(TRAIN)}
    again = crrl_train(tmp_path, temporary, "resume=r")
    try:
        assert again.wait() == 0, (tmp_path / "log").read_text()
    finally:
        again.kill()
    with Journal.open(run, read_only=True) as journal:
        steps, after = journal.steps(), {episode.id: episode.outcome for episode in journal.episodes(TRAIN)}
        replayed = replay(journal.episodes(TRAIN), journal.trained_rows())
    assert [step.state for step in steps] == ["trained"] * STEPS
    assert len(after) == STEPS * GROUPS * SIZE and before.items() <= after.items()
    assert replayed.exact and replayed.trained_rows > 0
