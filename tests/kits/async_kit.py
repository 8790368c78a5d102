"""A run without a model, to be killed: `python async_kit.py FOLDER STATE_DIR STALENESS STEPS` begins or resumes it.

Source, plan, journal, client, worker, gateway, boxes and judge are the real ones. The engine is scripted; the turns of
an episode take log-normally long. In place of the trainer something waits, pushes, and writes a checkpoint at every
second step, so that a resumed run takes steps again.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from crrl.bench.demonstrated import demonstrating_engine
from crrl.conf.load import load_recipe
from crrl.conf.schema import Config
from crrl.engines.api import Request
from crrl.engines.load import load_tokenizer
from crrl.engines.wire import EngineServer
from crrl.errors import LostError
from crrl.learning.curriculum import Curriculum
from crrl.learning.source import RolloutSource
from crrl.models import model_folder
from crrl.rollout.client import RolloutClient
from crrl.rollout.config import RolloutConfig
from crrl.rollout.journal import FILE, TRAIN, Journal
from crrl.tasks.generator.generate import bug_of

GROUPS, SIZE, TURN_S, UPDATE_S = 2, 3, 0.1, 0.2
CHECKPOINT = "checkpoint"


def config_of(state_dir: str, staleness: int, steps: int) -> Config:
    settings = [f"objective.groups_per_step={GROUPS}", f"objective.group_size={SIZE}", f"trainer.max_steps={steps}"]
    settings += [f"sandbox.state_dir={state_dir}", f"rollout.staleness={staleness}", "rollout.tries=50"]
    return load_recipe("quickstart", settings)


def turn_s(request: Request) -> float:
    return TURN_S * min(20.0, random.Random(request.scope).lognormvariate(0, 1))


def main(folder: Path, state_dir: str, staleness: int, steps: int) -> None:
    config = config_of(state_dir, staleness, steps)
    bugs = [bug_of("train", config.seed, i, config.corpus.rl_share) for i in range(steps * GROUPS)]
    engine = demonstrating_engine(bugs, load_tokenizer(model_folder("tiny")), step=64, delay=turn_s)
    journal = Journal.open(folder) if (folder / FILE).exists() else Journal.create(folder, {})

    def lost(id: str, task: str, error: LostError) -> None:
        journal.add_lost_try(TRAIN, id, task, error.cause, error.detail, version=engine.version)

    with tempfile.TemporaryDirectory() as short, journal:
        server = EngineServer(engine, Path(short) / "engine.sock")
        worker = RolloutConfig.from_config(config, model_folder("tiny"), server.address)
        client = RolloutClient(worker, folder / "log.txt", lost)
        checkpoint = folder / CHECKPOINT
        engine.version = int(checkpoint.read_text()) if checkpoint.exists() else 0
        client.start()
        source = RolloutSource(config, Curriculum(config), client, journal, lambda _: None)
        for step in range(engine.version, steps):
            batch = source(step)
            time.sleep(UPDATE_S)
            asyncio.run(engine.push(None, step + 1))
            journal.step_trained(step, batch.metrics, source.trained)
            if step % 2:
                (folder / "new").write_text(str(step + 1))
                (folder / "new").rename(checkpoint)
        client.close()
        server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
