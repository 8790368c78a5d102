"""Invariant 8 under `make test-kills`: kill -9 of every kind of process of a run, at random instants.

A run is started, and resumed whenever its trainer was killed, until it is complete. After each death of the trainer the
journal must still have every episode that it ever had, unchanged; at the end every planned episode is there once, none
was lost for good, every trained row is rebuilt from the ledger, and nothing of the run is left on the machine.
`CRRL_KILLS`: how many kills in all. `CRRL_KILLS_SEED`: of their instants and victims.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from crrl.learning.replay import replay
from crrl.rollout.content import content_hash
from crrl.rollout.journal import FILE, TRAIN, Journal

pytestmark = [pytest.mark.kills, pytest.mark.timeout(0)]

KILLS = int(os.environ.get("CRRL_KILLS", "200"))
SEED = int(os.environ.get("CRRL_KILLS_SEED", "0"))
STEPS, GROUPS, SIZE, TASKS = 6, 2, 4, 4
SETTINGS = [
    *(f"trainer.max_steps={STEPS}", "trainer.save_steps=2", f"objective.groups_per_step={GROUPS}"),
    *(f"objective.group_size={SIZE}", f"evaluation.tasks_per_split={TASKS}", "evaluation.splits=[rl_instances]"),
    *("evaluation.decodings=[sampled]", "rollout.tries=20"),  # of one attempt: more than it can meet kills
]
VICTIMS = {"worker": 2, "judge": 4, "launcher": 1, "box": 6}  # besides the trainer; how often, where there are such
PAUSE = 0.3  # at most between two kills of these, in times that a start takes
LIFE = 3.0  # at most of a trainer, in the same
STUCK_S = 1800.0


@dataclass
class Run:
    """A run in `folder`, whose trainer may be dead."""

    folder: Path
    seed: int
    kept: dict[tuple[str, str], str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Resume what there is, or begin: a run is created whole or not at all."""
        there = self.folder.is_dir()
        words = [f"resume={self.folder.name}"] if there else ["quickstart", f"run={self.folder.name}", *SETTINGS]
        words += [] if there else [f"seed={self.seed}", f"rollout.staleness={self.seed % 3}"]
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crrl.cli.main", "train", *words, f"runs_dir={self.folder.parent}"],
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def ended(self) -> bool:
        """Whether it came to its end. Raises AssertionError: it failed."""
        assert self.process is not None
        if self.process.poll() is None:
            return False
        assert self.process.returncode == 0, self.folder.with_suffix(".log").read_text()[-3000:]
        return True

    def check_kept(self) -> None:
        """No finished episode is gone, and none has changed."""
        if not (self.folder / FILE).exists():
            assert not self.kept
            return
        with Journal.open(self.folder, read_only=True) as journal:
            now = {(phase, e.id): content_hash(e) for phase in journal.phases() for e in journal.episodes(phase)}
        assert now.items() >= self.kept.items(), self.kept.keys() - now.keys()
        self.kept = now

    def check_whole(self) -> Counter[str]:
        """Raises AssertionError. Returns the causes of the tries that were lost."""
        with Journal.open(self.folder, read_only=True) as journal:
            assert journal.phases() == {"before": TASKS, "after": TASKS, TRAIN: STEPS * GROUPS * SIZE}
            assert [(s.step, s.state) for s in journal.steps()] == [(n, "trained") for n in range(STEPS)]
            assert {row.outcome for row in journal.outline()} <= {"scored", "truncated"}
            assert replay(journal.episodes(TRAIN), journal.trained_rows()).exact
            for episode in journal.episodes(TRAIN):
                step = int(episode.id.split("/")[1])
                versions = {version for sample in episode.samples for version in sample.versions}
                assert versions <= set(range(step - self.seed % 3, step + 1)), (episode.id, versions)
            return Counter(lost["cause"] for lost in journal.lost_tries())


def processes(trainer: int) -> dict[str, list[psutil.Process]]:
    """Of a run, by kind. What ends meanwhile is left out."""
    found: dict[str, list[psutil.Process]] = {kind: [] for kind in ("trainer", *VICTIMS)}
    try:
        root = psutil.Process(trainer)
        found["trainer"].append(root)
        workers = [child for child in root.children() if "crrl.rollout.worker" in child.cmdline()]
        found["worker"] += workers
        for child in (child for worker in workers for child in worker.children()):
            if any("crrl.sandbox.launcher" in word for word in child.cmdline()):
                found["launcher"].append(child)
                found["box"] += child.children(recursive=True)
            else:
                found["judge"] += [child, *child.children(recursive=True)]
    except psutil.Error:
        pass
    return found


def test_kill_9_loses_and_repeats_nothing(tmp_path: Path) -> None:
    chance, killed, lost = random.Random(SEED), Counter[str](), Counter[str]()
    runs, start_s = 0, 0.0
    while killed.total() < KILLS:
        run = Run(tmp_path / f"run{runs}", SEED + runs)
        runs += 1
        began = time.monotonic()
        run.start()
        start_s = start_s or _until_it_works(run, began)
        dies_at = time.monotonic() + chance.uniform(0.0, LIFE * start_s)
        while not run.ended():
            now = time.monotonic()
            assert now < began + STUCK_S, f"{run.folder} does not end"
            time.sleep(min(chance.uniform(0.0, PAUSE * start_s), max(0.0, dies_at - now)))
            if killed.total() >= KILLS:
                continue
            assert run.process is not None
            ours = time.monotonic() >= dies_at
            kind = "trainer" if ours else chance.choices([*VICTIMS], [*VICTIMS.values()])[0]
            there = processes(run.process.pid)[kind]
            try:
                chance.choice(there).send_signal(signal.SIGKILL)
            except (IndexError, psutil.NoSuchProcess):
                continue
            killed[kind] += 1
            if ours:
                run.process.wait()
                run.check_kept()
                run.start()
                dies_at = time.monotonic() + chance.uniform(0.0, LIFE * start_s)
            print(f"{killed.total()} kills: {dict(killed)}, {len(run.kept)} episodes kept in run {runs}", flush=True)
        run.check_kept()
        lost += run.check_whole()
    print(f"{killed.total()} kills ({dict(killed)}), {runs} runs, tries lost and retried: {dict(lost)}")
    deadline = time.monotonic() + 20
    while left := [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _until_it_works(run: Run, began: float) -> float:
    """Seconds until the first box: on a busy machine everything takes longer, the time between kills, too."""
    while not run.ended():
        assert run.process is not None
        if processes(run.process.pid)["box"]:
            break
        time.sleep(0.05)
    return time.monotonic() - began
