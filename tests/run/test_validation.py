"""Validation while training, its resume, and the policy that the rule chooses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_kit import crrl

from crrl.conf.load import load_recipe
from crrl.errors import UsageError
from crrl.learning.curriculum import Curriculum
from crrl.rollout.journal import Journal

pytestmark = pytest.mark.timeout(900)
SMALL = (
    *("quickstart", "trainer.max_steps=2", "trainer.save_steps=1", "trainer.keep_checkpoints=1"),
    *("objective.groups_per_step=2", "objective.group_size=2", "evaluation.before=false"),
    *("evaluation.tasks_per_split=2", "evaluation.splits=[rl_instances]", "evaluation.decodings=[greedy]"),
    *("evaluation.every=1", "evaluation.validation_tasks=2", "evaluation.checkpoint_rule=best_validation"),
    "trainer.tokens_per_micro_batch=2048",
)


def phases(run: Path) -> dict[str, int]:
    if not (run / "journal.sqlite").exists():
        return {}
    with Journal.open(run, read_only=True) as journal:
        return journal.phases()


def test_validation_in_a_run_that_is_killed_in_one(tmp_path: Path) -> None:
    process = crrl(tmp_path, "train", *SMALL, "run=r")
    run = tmp_path / "runs/r"
    deadline = time.monotonic() + 400
    while phases(run).get("validation", 0) < 3:  # in the second one
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    again = crrl(tmp_path, "train", "resume=r")
    _, err = again.communicate(timeout=450)
    assert again.returncode == 0, err
    assert phases(run) == {"train": 8, "validation": 4, "after": 2}
    with Journal.open(run, read_only=True) as journal:
        assert journal.meta["checkpoint_rule"] == "best_validation"
        metrics = [step.metrics for step in journal.steps()]
        sets = [{e.task for e in journal.episodes("validation") if f"/step-{n}/" in e.id} for n in (1, 2)]
    assert sets[0] == sets[1] and len(sets[0]) == 2
    scores = {int(k): v for k, v in json.loads((run / "checkpoints/scores.json").read_text()).items()}
    assert [m["validation"] for m in metrics] == [scores[n] for n in (1, 2)]
    best = min(scores, key=lambda n: (-scores[n], n))
    assert os.readlink(run / "checkpoints/best") == f"step-{best}"
    planned = subprocess.run(
        [sys.executable, "-m", "crrl.cli.main", "eval", "r", "--dry-run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"step-{best} (best_validation)" in planned.stdout, planned.stderr


def test_its_tasks_are_neither_trained_nor_evaluated_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from crrl.cli.main import main

    own = load_recipe("quickstart", ["evaluation.every=5", "evaluation.validation_tasks=30"])
    assert main(["tasks", "list", "generated", "count=8", "--json"]) == 0
    file = tmp_path / "own.jsonl"
    file.write_text(capsys.readouterr().out)
    words = [f"corpus.name={file}", "corpus.held_out=7", "evaluation.tasks_per_split=4", "evaluation.every=5"]
    of_file = load_recipe("quickstart", [*words, "evaluation.validation_tasks=3"])
    for config, number in ((own, 30), (of_file, 3)):
        curriculum = Curriculum(config)
        found = {task.id for task in curriculum.validation()}
        evaluated = {task.id for held in curriculum.held_out().values() for task in held}
        trained = {task.id for step in range(20) for task in curriculum.step(step)}
        assert len(found) == number and not found & (evaluated | trained)
    with pytest.raises(UsageError, match=r"corpus\.held_out=7 is too few"):
        load_recipe("quickstart", [*words, "evaluation.validation_tasks=4"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.checkpoint_rule=best_validation"], "needs a checkpoint at each validation"),
        (["evaluation.checkpoint_rule=best_validation", "evaluation.every=7"], "needs a checkpoint at each validation"),
        *(
            (
                ["evaluation.checkpoint_rule=best_validation", "evaluation.every=20", *ranks],
                f"is not there with {ranks[0]}",
            )
            for ranks in (["launch=ddp", "launch.processes=2"], ["launch=zero3", "launch.processes=2"])
        ),
        (["evaluation.checkpoint_rule=best"], "does not exist"),
        (["evaluation.validation_tasks=3"], "there is no validation"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe("quickstart", words)
