"""`crrl bench episodes`: the cost of a three-turn episode without the model, and many agents at once.

The engine is scripted, which leaves box, workspace, agent, client, gateway, patch and judge. It counts the CPU-seconds
of this process and all its descendants. A second pass over the same tasks finds its verdicts cached: the difference is
the judge.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from crrl.bench.demonstrated import demonstrating_engine
from crrl.conf.load import load_recipe
from crrl.console.time_breakdown import tree_cpu_s
from crrl.engines.load import load_tokenizer
from crrl.models import model_folder
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.config import RolloutConfig
from crrl.rollout.episode import Parts, run_episode
from crrl.rollout.worker import build
from crrl.tasks.generator.generate import bug_of, generate

EPISODES = 96
AT_ONCE = 32
TARGET_S = 0.12


@dataclass(frozen=True)
class EpisodeBench:
    """CPU-seconds per episode: `whole`, and `judged_before` where its verdict was known. `lost`, `solved` and
    `per_second` (wall) of `EPISODES` episodes, `AT_ONCE` at a time."""

    whole: float
    judged_before: float
    per_second: float
    solved: int
    lost: int

    def lines(self) -> list[str]:
        judge = self.whole - self.judged_before
        return [
            f"{EPISODES} three-turn episodes, {AT_ONCE} at once, scripted engine; CPU-seconds per episode "
            f"(target: under {TARGET_S}):",
            f"  whole                  {self.whole:8.3f}",
            f"  of this the judge      {judge:8.3f}   (verdict known: {self.judged_before:.3f} in all)",
            f"  {self.per_second:.1f} episodes per second; {self.solved} solved, {self.lost} lost",
        ]


def bench() -> EpisodeBench:
    return asyncio.run(_bench())


async def _bench() -> EpisodeBench:
    folder = model_folder("tiny")
    config = RolloutConfig.from_config(load_recipe("quickstart"), folder, "unix:unused")
    indices = range(EPISODES)
    engine = demonstrating_engine([bug_of("train", 0, i) for i in indices], load_tokenizer(folder), step=64)
    attempts = [Attempt(f"bench-{i}", f"bench-{i}", generate("train", 0, i), 0, seed=i) for i in indices]
    async with AsyncExitStack() as closing:
        parts = await build(config, engine, closing)
        await run_episode(attempts[0], parts)  # made once: the judge's zygote, the launcher
        whole, wall, episodes = await _timed(attempts, parts)
        known, _, _ = await _timed(attempts, parts)
    return EpisodeBench(
        whole=whole / EPISODES,
        judged_before=known / EPISODES,
        per_second=EPISODES / wall,
        solved=sum(bool(e.verdict and e.verdict.solved) for e in episodes),
        lost=EPISODES - len(episodes),
    )


async def _timed(attempts: list[Attempt], parts: Parts) -> tuple[float, float, list[Episode]]:
    """(CPU-seconds, wall seconds, episodes that were not lost)."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(attempt: Attempt) -> Episode:
        async with slots:
            return await run_episode(attempt, parts)

    cpu, wall = tree_cpu_s(), time.monotonic()
    results = await asyncio.gather(*map(one, attempts), return_exceptions=True)
    return tree_cpu_s() - cpu, time.monotonic() - wall, [r for r in results if isinstance(r, Episode)]
