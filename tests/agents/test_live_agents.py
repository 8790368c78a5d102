"""Real third-party agents, unmodified, each repairing a real bug in a box: `make test-agents` installs and runs them.

All is real but the policy, which plays a repair in the agent's own tools. Those that compact their context are made to.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from agents_kit import COMPACTIONS, FILE, NEW, REPAIRS, SUMMARY, compacting_engine, gcd_task, repairing_engine
from rollout_kit import attempt, rollout_config

from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.learning.api import Row
from crrl.learning.replay import replay
from crrl.learning.rows import CREDIT, row_hash, rows_of
from crrl.models import model_folder
from crrl.rollout.api import Episode, TrainedRow
from crrl.rollout.episode import run_episode
from crrl.rollout.journal import TRAIN, Journal
from crrl.rollout.worker import build
from crrl.sandbox import default_state_dir

pytestmark = [pytest.mark.agents, pytest.mark.timeout(900)]
REQUIRED = ("nano-agent", "mini-swe-agent", "aider", "codex", "opencode", "pi", "claude-code", "qwen-code", "goose")
# A title of the session, asked for beside the main line; all else appends to it.
TITLES = {"opencode": 1, "goose": 1}
# Behind a summary: qwen-code puts its reminders back into the first message only with the next request.
RESUMED = {"qwen-code": ["compacted", "new"]}


@pytest.fixture
def installed() -> Path:
    """Where agents are: on a disk, below no HOME, as `make test-agents` puts them."""
    return default_state_dir()


def require(agent: str, state_dir: Path) -> None:
    if agent not in REQUIRED and not (state_dir / "agents" / agent / ".installed").is_file():
        pytest.skip(f"{agent} is not installed (python scripts/agents.py {agent})")


async def repaired(agent: str, engine: ScriptedEngine, installed: Path, test_data: Path) -> Episode:
    """The agent's episode, which solved the bug."""
    settings = (f"agent={agent}", "agent.turns=30", "agent.tokens=8192")
    async with AsyncExitStack() as closing:
        parts = await build(rollout_config(installed, "unix:unused", *settings), engine, closing)
        episode = await run_episode(attempt(task=gcd_task(test_data), id=agent), parts)
    assert (episode.outcome, episode.exit_reason) == ("scored", "finished"), episode.agent_output
    assert episode.verdict is not None and episode.verdict.solved, episode.agent_output
    assert episode.patch.count("diff --git") == 1 and FILE in episode.patch and f"+        {NEW}" in episode.patch
    assert all(sample.delivery == "delivered" for sample in episode.samples)
    assert len(engine.requests) == len(episode.samples)
    return episode


def assert_replays(episode: Episode, rows: list[Row], folder: Path) -> None:
    with Journal.create(folder, {}) as journal:
        journal.add_episode(TRAIN, episode)
        trained = [TrainedRow(episode.id, i, row_hash(row), 0.5) for i, row in enumerate(rows)]
        journal.plan_step(0, [episode.group], 0)
        journal.step_trained(0, {}, trained)
    with Journal.open(folder, read_only=True) as journal:
        report = replay(journal.episodes(TRAIN), journal.trained_rows())
    assert report.exact and report.rebuilt == len(rows), report.differing


@pytest.mark.parametrize("agent", [*REQUIRED, *sorted(set(REPAIRS) - set(REQUIRED))])
async def test_repairs_a_real_bug_and_its_rows_replay(agent, installed, test_data, tmp_path) -> None:
    require(agent, installed)
    episode = await repaired(agent, repairing_engine(agent), installed, test_data)
    main = [sample for sample in episode.samples if sample.kind == "main"]
    side = [sample for sample in episode.samples if sample.kind != "main"]
    assert [s.branch for s in main if s.branch not in ("", "new")] == ["first"]  # nothing rewritten or resampled
    assert len(main) == len(REPAIRS[agent]) and len(side) == TITLES.get(agent, 0)

    rows, counts = rows_of(episode, 0.5)
    assert len(rows) == 1 and counts.trained == sum(len(sample.ids) for sample in main)
    assert_replays(episode, rows, tmp_path / "run")


@pytest.mark.parametrize("agent", COMPACTIONS)
async def test_compacts_by_itself_and_both_halves_are_its_work(agent, installed, test_data, tmp_path) -> None:
    """The policy's context is small. The agent asks for a summary, and goes on from that: the summary is a compaction,
    what comes before and after it is main, in rows of their own."""
    episode = await repaired(agent, compacting_engine(agent), installed, test_data)
    samples = [sample for sample in episode.samples if sample.kind != "side"]
    assert len(episode.samples) - len(samples) == TITLES.get(agent, 0)
    at = [sample.kind for sample in samples].index("compaction")
    before, summary, after = samples[:at], samples[at], samples[at + 1 :]
    assert {sample.kind for sample in (*before, *after)} == {"main"} and len(before) > 2 and len(after) > 1
    branches = [sample.branch for sample in (*before, *after)]
    assert branches[0] == "first" and branches[len(before)] == "compacted" and summary.branch == "new"
    assert [branch for branch in branches if branch] == ["first", *RESUMED.get(agent, ["compacted"])]
    assert SUMMARY in load_tokenizer(model_folder("tiny")).decode(after[0].prompt_ids)
    assert len(after[0].prompt_ids) < len(before[-1].prompt_ids)

    rows, counts = rows_of(episode, 0.5)
    starts = [i for i, branch in enumerate(branches) if branch]
    parts = [(*before, *after)[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    assert [sum(row.loss_mask) for row in rows] == [sum(len(sample.ids) for sample in part) for part in parts]
    assert {row.weight for row in rows} == {1 / len(parts)}
    assert counts.left_out["compaction"] == len(summary.ids)
    assert_replays(episode, rows, tmp_path / "run")

    rows, counts = rows_of(episode, 0.5, {**CREDIT, "compaction": 1.0})
    assert counts.trained == sum(sum(row.loss_mask) for row in rows) == sum(len(sample.ids) for sample in samples)
