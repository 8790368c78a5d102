"""`crrl train` on the episodes of an unmodified third-party agent: mini-swe-agent, two updates (`make test-agents`).

The shipped tiny policy knows the built-in agent's tools and 1,024 tokens of context. So mini-swe-agent is given a short
prompt (a configuration of its own), and the policy is first shown, by a few supervised steps on real mini-swe-agent
episodes of the run's first tasks, what a call of `bash` looks like. From there on all is as any run: sampled episodes
in boxes, the judge, groups, updates, pushes, journal and replay.
"""

# ruff: noqa: ASYNC221 (blocking calls are fine in tests)
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import torch
from agents_kit import call
from rollout_kit import BUGS, attempt

from crrl.conf.load import load_recipe
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.learning.api import Row
from crrl.learning.rows import rows_of
from crrl.models import model_folder
from crrl.rollout.config import RolloutConfig
from crrl.rollout.episode import run_episode
from crrl.rollout.journal import TRAIN, Journal
from crrl.rollout.worker import build
from crrl.warmstart.demonstrations import shortest_unique

pytestmark = [pytest.mark.agents, pytest.mark.timeout(1200)]
RECIPE = """
defaults: [quickstart, agent: mini-swe-agent, _self_]
agent:
  command: >-
    /opt/agent/bin/python -m minisweagent.run.mini -c ~/short.yaml
    -m openai/{{ model }} -t {{ instruction }} -y --exit-immediately
  files:
    short.yaml: |
      {% raw %}
      agent: {system_template: "", instance_template: "{{task}}", step_limit: 6, cost_limit: 0}
      model: {observation_template: "{{output.output}}", format_error_template: "error: {{error}}"}
      {% endraw %}
rewards: {weights: {tests: 1.0, diff_similarity: 0.5, format: 0.3}}
objective: {groups_per_step: 2, group_size: 4}
trainer: {max_steps: 2, warmup_steps: 0, learning_rate: 1e-4, save_steps: 1}
rollout: {concurrency: 2}
evaluation: {tasks_per_split: 1, splits: [sft_instances], decodings: [sampled], before: false}
"""
TASKS = 4  # all that two steps of two groups see


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mini.yaml"
    path.write_text(RECIPE)
    return path


async def demonstrations(recipe: Path) -> list[Row]:
    """Real episodes of mini-swe-agent on the run's tasks, in which the policy plays the repair."""
    tokenizer = load_tokenizer(model_folder("tiny"))
    rows: list[Row] = []
    config = RolloutConfig.from_config(load_recipe(str(recipe)), model_folder("tiny"), Path("unused"))
    for index, bug in enumerate(BUGS[:TASKS]):
        old, new = shortest_unique(bug.buggy, bug.old_line, bug.new_line)
        old, new = (text.replace("\\", "\\\\").replace("|", "\\|").replace("&", "\\&") for text in (old, new))
        old = old.replace("[", "\\[").replace("*", "\\*").replace(".", "\\.")
        turns = [f"cat {bug.path}", f"sed -i '\\''s|{old}|{new}|'\\'' {bug.path}".replace("'\\''", "'")]
        turns += ["echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"]
        ids = [tokenizer(f"{call('bash', command=t)}<|im_end|>", add_special_tokens=False)["input_ids"] for t in turns]
        async with AsyncExitStack() as closing:
            parts = await build(config, ScriptedEngine(ids, context=1024, step=16), closing)
            episode = await run_episode(attempt(index), parts)
        assert episode.verdict is not None and episode.verdict.solved, (turns, episode.agent_output)
        rows += rows_of(episode, 1.0)[0]
    return rows


def taught(rows: list[Row], folder: Path) -> None:
    """The tiny policy, shown these rows until it mostly, not always, says the same: then a group has a spread."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    shutil.copytree(model_folder("tiny"), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    loss = 1.0
    for _ in range(120):
        loss = 0.0
        for row in rows:
            labels = [id if trained else -100 for id, trained in zip(row.ids, row.loss_mask, strict=True)]
            part = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels])).loss / len(rows)
            part.backward()
            loss += part.item()
        if loss < 0.01:  # nats per token, of 165 an episode
            break
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.01
    model.save_pretrained(folder)


async def test_two_updates_on_episodes_of_mini_swe_agent(recipe: Path, tmp_path: Path) -> None:
    taught(await demonstrations(recipe), tmp_path / "policy")
    words = [f"model.path={tmp_path / 'policy'}", f"runs_dir={tmp_path}", "run=mini"]
    crrl = [sys.executable, "-m", "crrl.cli.main"]
    done = subprocess.run([*crrl, "train", str(recipe), *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    with Journal.open(tmp_path / "mini", read_only=True) as journal:
        steps, episodes = journal.steps(), list(journal.episodes(TRAIN))
        trained = journal.trained_rows()
    assert [step.state for step in steps] == ["trained", "trained"] and len(episodes) == 16
    assert {episode.outcome for episode in episodes} <= {"scored", "truncated"}
    assert sum(step.metrics["groups_trained"] for step in steps) > 0 and trained
    assert any(episode.patch for episode in episodes) and all(episode.samples for episode in episodes)
    replayed = subprocess.run([*crrl, "replay", str(tmp_path / "mini"), "--json"], capture_output=True, text=True)
    report = json.loads(replayed.stdout)
    assert replayed.returncode == 0 and report["exact"] and report["rebuilt"] == len(trained)
