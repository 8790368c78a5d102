"""Steps without rows: no weight changes, nothing is pushed, and the policy's version goes on."""

import hashlib
from pathlib import Path

from crrl.conf.load import load_recipe
from crrl.rollout.journal import TRAIN, Journal
from crrl.run.main import train

SETTINGS = [
    "run=flat",
    "rewards.weights={blocks: 1.0}",  # it does not apply to this agent: every attempt has the same reward
    "trainer.max_steps=2",
    "trainer.save_steps=1",
    "objective.groups_per_step=1",
    "objective.group_size=2",
    "agent.turns=2",
    "evaluation.before=false",
    "evaluation.tasks_per_split=1",
    "evaluation.splits=[rl_instances]",
    "evaluation.decodings=[greedy]",
]


def test_a_step_without_rows_pushes_nothing(tmp_path: Path) -> None:
    assert train(load_recipe("quickstart", [*SETTINGS, f"runs_dir={tmp_path}"]), json=True) == 0
    with Journal.open(tmp_path / "flat", read_only=True) as journal:
        steps = journal.steps()
        assert [(s.state, s.metrics["skipped"], s.metrics["rows"]) for s in steps] == [("trained", 1.0, 0.0)] * 2
        assert not any("push_error" in s.metrics for s in steps)
        versions = [
            {
                v
                for e in journal.episodes(TRAIN)
                if e.id.startswith(f"{TRAIN}/{k}/")
                for s in e.samples
                for v in s.versions
            }
            for k in (0, 1)
        ]
        assert versions == [{0}, {1}]
    one, two = (tmp_path / "flat" / "checkpoints" / f"step-{k}" / "model.safetensors" for k in (1, 2))
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()
