"""rollout.staleness=0 is the synchronous run of before there was the setting: the same ledger, sample for sample."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from crrl.bench.demonstrated import demonstrating_engine
from crrl.conf.load import load_recipe
from crrl.engines.load import load_tokenizer
from crrl.engines.wire import EngineServer
from crrl.learning.curriculum import Curriculum
from crrl.learning.source import RolloutSource
from crrl.models import model_folder
from crrl.rollout.client import RolloutClient
from crrl.rollout.config import RolloutConfig
from crrl.rollout.journal import TRAIN, Journal
from crrl.tasks.generator.generate import bug_of

STEPS, GROUPS, SIZE = 3, 2, 3
BEFORE = "c2445d409f42170f85d5c8367458e44f"  # by the code of before, commit dfb8733


async def test_the_ledger_is_that_of_before(state_dir: Path, tmp_path: Path) -> None:
    settings = [f"sandbox.state_dir={state_dir}", "rollout.concurrency=1", f"objective.groups_per_step={GROUPS}"]
    config = load_recipe("quickstart", [*settings, f"objective.group_size={SIZE}"])
    bugs = [bug_of("train", config.seed, i, config.corpus.rl_share) for i in range(STEPS * GROUPS)]
    engine = demonstrating_engine(bugs, load_tokenizer(model_folder("tiny")), step=16)
    with tempfile.TemporaryDirectory() as short, Journal.create(tmp_path / "run", {}) as journal:
        server = EngineServer(engine, Path(short) / "engine.sock")
        worker = RolloutConfig.from_config(config, model_folder("tiny"), server.address)
        client = RolloutClient(worker, tmp_path / "log.txt", lambda *_: None)
        client.start()
        source = RolloutSource(config, Curriculum(config), client, journal, lambda _: None)
        for step in range(STEPS):
            batch = source(step)
            await engine.push(None, step + 1)
            journal.step_trained(step, batch.metrics, source.trained)
        client.close()
        server.close()
        found = [
            (
                e.id,
                e.task,
                e.seed,
                e.outcome,
                [(s.appended, s.ids, s.logprobs, s.versions, s.params) for s in e.samples],
            )
            for e in journal.episodes(TRAIN)
        ]
        plans = [(s.step, s.groups, s.version) for s in journal.steps()]
    assert len(found) == STEPS * GROUPS * SIZE
    text = json.dumps([found, plans], sort_keys=True)
    assert hashlib.blake2b(text.encode(), digest_size=16).hexdigest() == BEFORE
