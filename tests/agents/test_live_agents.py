"""Real third-party agents, unmodified, each repairing a real bug in a box: `make test-agents` installs and runs them.

All is real but the policy, which plays a repair in the agent's own tools.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from agents_kit import FILE, NEW, REPAIRS, gcd_task, repairing_engine
from rollout_kit import attempt, rollout_config

from crrl.learning.replay import replay
from crrl.learning.rows import row_hash, rows_of
from crrl.rollout.api import TrainedRow
from crrl.rollout.episode import run_episode
from crrl.rollout.journal import TRAIN, Journal
from crrl.rollout.worker import build
from crrl.sandbox import default_state_dir

pytestmark = [pytest.mark.agents, pytest.mark.timeout(900)]
REQUIRED = ("nano-agent", "mini-swe-agent", "aider", "codex", "opencode", "pi")
# A title of the session, asked for beside the main line; all else appends to it.
TITLES = {"opencode": 1, "goose": 1}


@pytest.fixture
def installed() -> Path:
    """Where agents are: on a disk, below no HOME, as `make test-agents` puts them."""
    return default_state_dir()


def require(agent: str, state_dir: Path) -> None:
    if agent not in REQUIRED and not (state_dir / "agents" / agent / ".installed").is_file():
        pytest.skip(f"{agent} is not installed (python scripts/agents.py {agent})")


@pytest.mark.parametrize("agent", [*REQUIRED, *(set(REPAIRS) - set(REQUIRED))])
async def test_repairs_a_real_bug_and_its_rows_replay(agent, installed, test_data, tmp_path) -> None:
    require(agent, installed)
    task = gcd_task(test_data)
    settings = (f"agent={agent}", "agent.turns=20", "agent.tokens=4096")
    async with AsyncExitStack() as closing:
        engine = repairing_engine(agent)
        parts = await build(rollout_config(installed, "unix:unused", *settings), engine, closing)
        episode = await run_episode(attempt(task=task, id=agent), parts)
    assert (episode.outcome, episode.exit_reason) == ("scored", "finished"), episode.agent_output
    assert episode.verdict is not None and episode.verdict.solved, episode.agent_output
    assert episode.patch.count("diff --git") == 1 and FILE in episode.patch and f"+        {NEW}" in episode.patch

    main = [sample for sample in episode.samples if sample.kind == "main"]
    side = [sample for sample in episode.samples if sample.kind != "main"]
    assert [s.branch for s in main if s.branch not in ("", "new")] == ["first"]  # nothing rewritten or resampled
    assert len(main) == len(REPAIRS[agent]) and len(side) == TITLES.get(agent, 0)
    assert all(sample.delivery == "delivered" for sample in episode.samples)
    assert len(engine.requests) == len(episode.samples)

    rows, counts = rows_of(episode, 0.5)
    assert len(rows) == 1 and counts.trained == sum(len(sample.ids) for sample in main)
    with Journal.create(tmp_path / "run", {}) as journal:
        journal.add_episode(TRAIN, episode)
        trained = [TrainedRow(episode.id, i, row_hash(row), 0.5) for i, row in enumerate(rows)]
        journal.plan_step(0, [episode.group], 0)
        journal.step_trained(0, {}, trained)
    with Journal.open(tmp_path / "run", read_only=True) as journal:
        report = replay(journal.episodes(TRAIN), journal.trained_rows())
    assert report.exact and report.rebuilt == 1, report.differing
