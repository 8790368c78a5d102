"""A run that trains an adapter, killed and resumed: proved pushes, exact rows, and a model to take away."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from command_kit import crrl, done

from crrl.engines.load import load_model
from crrl.rollout.journal import Journal

pytestmark = pytest.mark.timeout(900)  # it starts whole runs; a busy machine takes its time
WITHIN_S = 400
SMALL = (
    *("quickstart", "adapter=lora", "trainer.max_steps=2", "trainer.save_steps=1", "run=r"),
    *("objective.groups_per_step=2", "objective.group_size=2", "agent.turns=3", "evaluation.before=false"),
    *("evaluation.tasks_per_split=1", "evaluation.splits=[rl_instances]", "evaluation.decodings=[greedy]"),
)


def test_an_adapter_through_a_whole_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r"
    shared = tmp_path / "shared"
    process = crrl(tmp_path, "train", *SMALL, f"trainer.checkpoints_dir={shared}")
    deadline = time.monotonic() + 400
    while not (shared / "r" / "step-1").exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done(crrl(tmp_path, "train", "resume=r"), WITHIN_S)
    with Journal.open(run, read_only=True) as journal:
        assert [step.state for step in journal.steps()] == ["trained"] * 2
        assert all(step.metrics["skipped"] or step.metrics["push_error"] < 1e-4 for step in journal.steps())
    assert "rebuilt bit for bit" in done(crrl(tmp_path, "replay", "r"), WITHIN_S)
    last = run / "checkpoints" / "step-2"
    assert (last / "adapter_model.safetensors").is_file() and not (last / "model.safetensors").exists()
    assert json.loads((last / "base.json").read_text())["model"] == "tiny"
    done(crrl(tmp_path, "export", "r", "merged", "--merged"), WITHIN_S)
    merged, policy = load_model(tmp_path / "merged").state_dict(), load_model(last).state_dict()
    assert all((merged[name] == tensor).all() for name, tensor in policy.items())
    planned = json.loads(done(crrl(tmp_path, "eval", "r", "--dry-run", "--json"), WITHIN_S))
    assert Path(planned["checkpoint"]).name == "step-2"
