"""`crrl bench async`: episodes per hour where episodes may run s steps ahead of the trainer, against s = 0.

Heavy-tailed episodes: log-normal (sigma = 1), by a scripted engine that needs no cores; boxes, worker, gateway and
judge are real, and the plan, the journal and the source are those of a run. An update is a wait, as on another card.
Read the ratios: all of one run, and of the same episodes, whose lengths are functions of their ids.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from crrl.bench.demonstrated import demonstrating_engine
from crrl.conf.load import load_recipe
from crrl.engines.api import Request
from crrl.engines.load import load_tokenizer
from crrl.engines.wire import EngineServer
from crrl.learning.curriculum import Curriculum
from crrl.learning.source import RolloutSource
from crrl.models import model_folder
from crrl.rollout.client import RolloutClient
from crrl.rollout.config import RolloutConfig
from crrl.rollout.journal import Journal
from crrl.tasks.generator.generate import bug_of

AHEAD = (0, 1, 2)
STEPS, GROUPS, SIZE = 20, 2, 4
MEDIAN_S = 3.0  # of an episode, at the engine
UPDATE_S = 1.5
TURNS = 3  # of a demonstration
TARGETS = {1: 1.7, 2: 2.3}


@dataclass(frozen=True)
class AsyncBench:
    """`per_hour`: episodes, for each s of `AHEAD`; `ratio`: to s = 0; `waited`: the trainer's share of the time."""

    per_hour: list[float]
    ratio: list[float]
    waited: list[float]

    def lines(self) -> list[str]:
        head = (
            f"{STEPS} steps of {GROUPS} groups x {SIZE}, log-normal episodes (median {MEDIAN_S:g} s, sigma 1), an "
            f"update takes {UPDATE_S:g} s:"
        )
        rows = zip(AHEAD, self.per_hour, self.ratio, self.waited, strict=True)
        return [
            head,
            "  s   episodes/hour   ratio to s = 0   trainer waits",
            *(
                f"  {s}   {per_hour:13.0f}   {ratio:14.2f}   {waited:12.0%}"
                + (f"   (target: {TARGETS[s]:g})" if s in TARGETS else "")
                for s, per_hour, ratio, waited in rows
            ),
        ]


def bench() -> AsyncBench:
    measured = [_measure(s) for s in AHEAD]
    per_hour = [STEPS * GROUPS * SIZE / took * 3600 for took, _ in measured]
    return AsyncBench(per_hour, [rate / per_hour[0] for rate in per_hour], [waited / took for took, waited in measured])


def turn_s(request: Request) -> float:
    """The same for an episode's turns, whichever s."""
    return MEDIAN_S / TURNS * random.Random(request.scope).lognormvariate(0, 1)


def _measure(staleness: int) -> tuple[float, float]:
    """Wall seconds of a run, and of these, how long its trainer waited for episodes."""
    settings = [f"objective.groups_per_step={GROUPS}", f"objective.group_size={SIZE}", f"trainer.max_steps={STEPS}"]
    most = GROUPS * SIZE * (max(AHEAD) + 1)
    config = load_recipe("quickstart", [*settings, f"rollout.staleness={staleness}", f"rollout.concurrency={most}"])
    folder = model_folder("tiny")
    bugs = [bug_of("train", config.seed, i, config.corpus.rl_share) for i in range(STEPS * GROUPS)]
    engine = demonstrating_engine(bugs, load_tokenizer(folder), step=64, delay=turn_s)
    waited = 0.0
    with tempfile.TemporaryDirectory() as own, Journal.create(Path(own) / "run", {}) as journal:
        server = EngineServer(engine, Path(own) / "engine.sock")
        worker = RolloutConfig.from_config(config, folder, server.address)
        client = RolloutClient(worker, Path(own) / "log.txt", lambda *_: None)
        try:
            client.start()
            source = RolloutSource(config, Curriculum(config), client, journal, lambda _: None)
            began = time.monotonic()
            for step in range(STEPS):
                asked = time.monotonic()
                batch = source(step)
                waited += time.monotonic() - asked
                time.sleep(UPDATE_S)
                asyncio.run(engine.push(None, step + 1))
                journal.step_trained(step, batch.metrics, source.trained)
            return time.monotonic() - began, waited
        finally:
            client.close()
            server.close()
