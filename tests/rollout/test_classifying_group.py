"""A group at a pair of functions, whole: planned, asked, judged, rewarded as a pair, trained on; the engine plays."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crrl.conf.load import load_recipe
from crrl.conf.schema import Config
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.evaluation.classification import classified
from crrl.label import Answer, read, write
from crrl.learning.advantages import centred
from crrl.learning.curriculum import Curriculum
from crrl.learning.pairs import paired
from crrl.learning.source import step_batch
from crrl.learning.step_plan import StepPlan
from crrl.models import model_folder
from crrl.rollout.api import Group
from crrl.rollout.config import RolloutConfig
from crrl.rollout.episode import Parts, run_episode
from crrl.rollout.journal import Journal
from crrl.rollout.worker import build

TOKENIZER = load_tokenizer(model_folder("tiny"))
RIGHT = 0.7  # of the answers


@pytest.fixture
def config(state_dir: Path) -> Config:
    words = [f"model.path={model_folder('tiny')}", f"sandbox.state_dir={state_dir}", "agent.tokens=200"]
    return load_recipe("classify", [*words, "objective.groups_per_step=2", "objective.group_size=6"])


@pytest.fixture
async def parts(config: Config) -> AsyncIterator[Parts]:
    """A policy that mostly knows the answer, and now and then writes none."""
    tasks = [task for leader in Curriculum(config).step(0) for task in Curriculum(config).members(leader)]
    rng = random.Random(1)

    def answer(prompt_ids: list[int]) -> list[int]:
        asked = TOKENIZER.decode(prompt_ids)
        shown = {task.id: "\n".join(_numbered(*(task.source.files or {}).values())) for task in tasks}
        (task,) = [task for task in tasks if shown[task.id] in asked]
        assert task.test.label is not None
        vulnerable = task.test.label.vulnerable is (rng.random() < RIGHT)
        said = write(Answer("vulnerable" if vulnerable else "not vulnerable", ("CWE-1",) * vulnerable, 0.9))
        text = "I do not know." if rng.random() < 0.15 else said.rstrip("\n")
        return list(TOKENIZER.encode(f"{text}<|im_end|>"))

    rollout = RolloutConfig.from_config(config, model_folder("tiny"), "unix:unused")
    async with AsyncExitStack() as closing:
        yield await build(rollout, ScriptedEngine(answer, step=50), closing)


def _numbered(code: str) -> list[str]:
    return [f"{number}: {line}" for number, line in enumerate(code.removesuffix("\n").split("\n"), 1)]


async def test_a_step_at_pairs(config: Config, parts: Parts, tmp_path: Path) -> None:
    with Journal.create(tmp_path / "run", {}) as journal:
        attempts = StepPlan(config, Curriculum(config), journal).begin(0, version=0)
    episodes = [await run_episode(attempt, parts) for attempt in attempts]
    tasks = {attempt.task.id: attempt.task for attempt in attempts}
    readable = 0
    for episode in episodes:
        truth, verdict = tasks[episode.task].test.label, episode.verdict
        assert truth is not None and verdict is not None and episode.outcome == "scored"
        if episode.agent_output == "I do not know.":
            assert (verdict.solved, verdict.components["label"], episode.well_formed) == (False, -3.0, False)
            continue
        readable += 1
        answer = read(episode.agent_output)
        assert verdict.solved is (answer.label == truth.said) and episode.well_formed
        assert verdict.components["label"] == pytest.approx(0.96 if verdict.solved else -2.24)
        named = 0.0 if answer.label == "not vulnerable" or truth.vulnerable else -1.0
        assert verdict.components["cwe"] == named
        assert "diff_similarity" not in verdict.components
        assert verdict.reward == pytest.approx(verdict.components["label"] + 0.1 * named)
    assert 6 < readable < len(episodes) == 12
    groups = [Group(f"train/0/{g}", "", [e for e in episodes if e.group == f"train/0/{g}"]) for g in (0, 1)]
    batch = step_batch([paired(group, config.objective.pair) for group in groups], centred)
    assert len(batch.rows) == 12 and batch.metrics["reward/pair"] > 0
    for group in groups:
        rewarded = [row.advantage for row in batch.rows if row.group == group.id]
        assert sum(rewarded) == pytest.approx(0.0)
    found = classified(tasks, {("train", "sampled"): episodes})["train"]["sampled"]
    assert found["samples"] == 12 and found["unreadable"] == pytest.approx(1 - readable / 12)
