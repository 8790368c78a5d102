"""Whole runs as a user starts them: to the end, killed and resumed, interrupted, and twice the same."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PreTrainedModel, Qwen3ForCausalLM

from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.engines import Request
from crrl.engines.load import load_local
from crrl.engines.local import LocalEngine
from crrl.errors import UsageError
from crrl.learning.ranks import ALONE
from crrl.learning.replay import replay
from crrl.models import model_folder
from crrl.rollout.journal import TRAIN, Journal
from crrl.run.folder import create
from crrl.run.run import Run, lent, threads_of

pytestmark = pytest.mark.timeout(600)  # each starts whole runs; a busy machine takes its time

SMALL = [
    "trainer.max_steps=3",
    "trainer.save_steps=2",
    "objective.groups_per_step=2",
    "objective.group_size=3",
    "evaluation.tasks_per_split=3",
    "evaluation.splits=[rl_instances,sft_instances]",
    "evaluation.decodings=[sampled]",
]
EVALUATED = 2 * 2 * 3
TRAINED = 3 * 2 * 3


def start(runs: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "crrl.cli.main", "train", *words, f"runs_dir={runs}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return out


def finished(run: Path) -> int:
    if not (run / "journal.sqlite").exists():
        return 0
    with Journal.open(run, read_only=True) as journal:
        return sum(journal.phases().values())


def when(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_whole(run: Path) -> dict:
    """Every planned episode once, every trained row rebuilt, every file there."""
    with Journal.open(run, read_only=True) as journal:
        assert journal.phases() == {"before": EVALUATED // 2, "after": EVALUATED // 2, TRAIN: TRAINED}
        assert [(s.step, s.state) for s in journal.steps()] == [(0, "trained"), (1, "trained"), (2, "trained")]
        assert all(s.metrics["skipped"] or s.metrics["push_error"] < 1e-4 for s in journal.steps())
        assert replay(journal.episodes(TRAIN), journal.trained_rows()).exact
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-2", "step-3"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["episodes"]["lost"] == 0
    assert summary["splits"]["rl_instances"]["sampled"]["difference"]["pairs"] == 3
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    return summary


def check_tracked(run: Path) -> None:
    """The tracker saw each update once, with the journal's numbers, and both evaluations."""
    read = EventAccumulator(str(run / "tensorboard"))
    read.Reload()
    with Journal.open(run, read_only=True) as journal:
        for step in journal.steps():
            shown = {name: [e.value for e in read.Scalars(name) if e.step == step.step + 1] for name in step.metrics}
            assert shown == {name: [pytest.approx(value)] for name, value in step.metrics.items()}
    assert {e.step for e in read.Scalars("evaluation/rl_instances/sampled/solved")} == {0, 3}
    assert "episodes/1/text_summary" in read.Tags()["tensors"]


def test_nothing_is_kept_of_an_episode_that_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    monkeypatch.setattr(LocalEngine, "forget", lambda self, scope: forgotten.append(scope))
    words = [*SMALL, "trainer.max_steps=1"]
    assert main(["train", "quickstart", "run=kept", f"runs_dir={tmp_path}", *words]) == 0
    with Journal.open(tmp_path / "kept", read_only=True) as journal:
        ids = [episode.id for phase in journal.phases() for episode in journal.episodes(phase)]
    assert sorted(forgotten) == sorted(ids) and len(ids) == EVALUATED + TRAINED // 3


def test_a_run_goes_from_start_to_end(tmp_path: Path) -> None:
    out = finish(start(tmp_path, "quickstart", "run=whole", *SMALL))
    assert "Held-out instances, families RL learns" in out and "crrl train resume=whole" in out
    check_whole(tmp_path / "whole")


@pytest.mark.parametrize("after", [1, EVALUATED // 2 + 5, EVALUATED // 2 + 13])
def test_kill_9_and_resume(tmp_path: Path, after: int) -> None:
    """In the first evaluation, in a step, after a checkpoint."""
    run = tmp_path / "killed"
    process = start(tmp_path, "quickstart", "run=killed", "tracker=tensorboard", "tracker.episodes=2", *SMALL)
    when(lambda: finished(run) >= after)
    process.kill()
    process.communicate()
    kept = finished(run)
    assert after <= kept < EVALUATED + TRAINED
    finish(start(tmp_path, "resume=killed"))
    since = check_whole(run)
    assert since["earlier_episodes"] >= kept  # others may have been written when it was killed
    sitting = sum(since["episodes"].values()) - since["earlier_episodes"]
    assert since["episodes_per_second"] == pytest.approx(sitting / since["seconds"]["total"], rel=0.1)
    check_tracked(run)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    process = start(tmp_path, "quickstart", "run=stopped", *SMALL)
    when(lambda: finished(run) >= 8)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130 and "crrl train resume=stopped" in err and "Traceback" not in err
    finish(start(tmp_path, "resume=stopped"))
    check_whole(run)


def test_same_seed_same_run(tmp_path: Path) -> None:
    """Invariant 10: at concurrency 1 two runs have equal ledgers."""
    less = ["trainer.max_steps=2", "evaluation.splits=[rl_instances]", "evaluation.tasks_per_split=2"]
    running = [start(tmp_path, "quickstart", f"run={n}", "rollout.concurrency=1", *SMALL, *less) for n in "ab"]
    for process in running:
        finish(process)
    hashes = set()
    for name in "ab":
        with Journal.open(tmp_path / name, read_only=True) as journal:
            hashes.add(journal.ledger_hash())
    assert len(hashes) == 1


async def test_while_the_trainer_computes_the_engine_rests_and_its_cores_are_lent() -> None:
    engine = load_local(model_folder("tiny"))
    before = torch.get_num_threads()
    try:
        all_cores = threads_of(load_recipe("quickstart", ["trainer.threads=0"]), ALONE)
        for threads, had in ((3, 3), (all_cores, len(os.sched_getaffinity(0)))):
            with pytest.raises(KeyError), lent(engine, threads):
                assert torch.get_num_threads() == had
                held = asyncio.ensure_future(_tokens(engine))
                await asyncio.sleep(0.1)
                assert not held.done()
                raise KeyError  # whatever becomes of the step
            assert torch.get_num_threads() == before
            assert await held == 8
    finally:
        engine.close()


def test_an_evaluation_holds_one_model(tmp_path: Path) -> None:
    """The engine's, where and in what the settings say; it is no trainer's."""
    config = load_recipe("quickstart", ["engine.context=512", f"runs_dir={tmp_path}", "run=one"])
    before = {id(o) for o in gc.get_objects() if isinstance(o, PreTrainedModel)}
    with Run.evaluation(config, {}, {}, live=False) as run:
        assert run.model is None
        models = [o for o in gc.get_objects() if isinstance(o, Qwen3ForCausalLM) and id(o) not in before]
        assert models == [run.engine._runner.model]
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        assert {(p.device.type, p.dtype) for p in models[0].parameters()} == {(auto, torch.float32)}
        assert asyncio.run(run.engine.info()).context == 512


def test_a_device_that_is_not_there_leaves_no_run_behind(tmp_path: Path) -> None:
    config = load_recipe("quickstart", ["engine.device=cuda:99", f"runs_dir={tmp_path}"])
    with pytest.raises(UsageError, match=r"engine\.device=cuda:99"):
        Run.open(config, resume=False, live=False)
    assert not list(tmp_path.iterdir())


async def _tokens(engine: LocalEngine) -> int:
    return sum([len(chunk.ids) async for chunk in engine.generate(Request("a", [1, 2], 8))])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """One that has the right shape, and another beginning."""
    less = ["evaluation.splits=[rl_instances]", "evaluation.tasks_per_split=2", "evaluation.before=false"]
    less += ["corpus.rl_share=1", "objective.group_size=8", "rewards.weights={diff_similarity: 1.0}"]  # rewards differ
    finish(start(tmp_path, "quickstart", "run=first", *SMALL, *less))
    second = [f"model.path={tmp_path / 'first' / 'checkpoints' / 'step-2'}", "run=second"]
    finish(start(tmp_path, "quickstart", *second, *SMALL, *less))
    for step in (tmp_path / "second" / "checkpoints").iterdir():
        shutil.rmtree(step)
    shutil.copytree(tmp_path / "first" / "checkpoints" / "step-2", tmp_path / "second" / "checkpoints" / "step-2")
    process = start(tmp_path, "resume=second")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1 and "is a checkpoint of another run" in err and "Traceback" not in err


def test_a_worker_that_dies_after_its_checkpoint_was_removed_is_started_again(tmp_path: Path) -> None:
    """What a restart reads lives as long as the run, and no checkpoint does."""
    words = ["trainer.save_steps=1", "trainer.keep_checkpoints=1"]
    run = tmp_path / "kept"
    first = start(tmp_path, "quickstart", "run=kept", "seed=1", *SMALL, *words)
    when(lambda: (run / "checkpoints/step-1").is_dir())
    first.kill()
    first.wait()
    second = start(tmp_path, "resume=kept", "trainer.max_steps=4")
    when(lambda: (run / "checkpoints/step-2").is_dir() and not (run / "checkpoints/step-1").exists())
    workers = [p for p in psutil.Process(second.pid).children() if "crrl.rollout.worker" in p.cmdline()]
    assert len(workers) == 1
    while True:  # one that has episodes to lose
        workers[0].suspend()
        time.sleep(0.1)  # what it sent is written
        if finished(run) % (TRAINED // 3):
            break
        workers[0].resume()
        time.sleep(0.02)
    workers[0].kill()
    finish(second)
    assert json.loads((run / "summary.json").read_text())["lost_tries"]["by_cause"]["worker_died"] > 0


CREATES = """
import os, sys
from pathlib import Path
from crrl.run.folder import create

counting, left = False, 0

def kill(event, arguments):
    global left
    left -= counting
    if counting and left == 0:
        os.kill(os.getpid(), 9)

sys.addaudithook(kill)
number, ended = 0, -9
while ended == -9:
    number += 1
    pid = os.fork()
    if pid == 0:
        counting, left = True, number
        create(Path(sys.argv[1], f"run{number}"), {"seed": 1}, "recipe: x").close()
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(number, ended)
"""


def test_a_run_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    """Killed before each thing that it does to the file system (each audited event of Python's) while it makes the
    folder: a new run of that name is accepted, or `resume` is."""
    done = subprocess.run([sys.executable, "-c", CREATES, str(tmp_path)], capture_output=True, text=True, check=True)
    last, ended = map(int, done.stdout.split())
    assert ended == 0, done.stderr
    there = 0
    for number in range(1, last + 1):
        folder = tmp_path / f"run{number}"
        if folder.exists():
            there += 1
            assert (folder / "config.yaml").read_text() == "recipe: x", number
            Journal.open(folder).close()
        else:
            create(folder, {"seed": 1}, "recipe: x").close()
        assert not list(tmp_path.glob(f".new-{folder.name}-*"))
    assert 1 < there < last


def test_a_full_disk_leaves_no_half_made_run(tmp_path: Path) -> None:
    for size in (0, 3, 40):
        folder = tmp_path / f"full{size}"
        code = (
            "import resource, signal, sys\nfrom pathlib import Path\nfrom crrl.errors import CrrlError\n"
            "from crrl.run.folder import create\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]) << 10,) * 2)\n"
            "try: create(Path(sys.argv[1]), {'seed': 'x' * 50000}, 'recipe: ' + 'x' * 2000).close()\n"
            "except CrrlError as error: print('REFUSED', error.message)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(folder), str(size)], capture_output=True, text=True)
        assert "REFUSED" in done.stdout and folder.name in done.stdout, (size, done.stdout, done.stderr[-500:])
        assert list(tmp_path.iterdir()) == []
