"""`Run`: what a run holds while it goes on, from its folder to its worker process; opened and closed in one place.

In this process: the trainer's model, the engine over its own copy, the journal's only writer, the display. The
gateway, the agents, their boxes and the judge are in the worker process behind `client`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from crrl import engines
from crrl.conf.load import to_yaml
from crrl.conf.schema import Config
from crrl.console.display import Display
from crrl.console.time_breakdown import TimeBreakdown, peak_memory_bytes
from crrl.engines.load import copy_tokenizer, load_model, load_tokenizer
from crrl.engines.wire import EngineServer
from crrl.errors import LostError
from crrl.evaluation.benchmark import Phase
from crrl.gateway.renderer import load_renderer
from crrl.learning import checkpoint as checkpoints
from crrl.learning.curriculum import Curriculum
from crrl.learning.push import push_and_prove
from crrl.models import model_folder
from crrl.report.exploit_rate import exploit_rates
from crrl.report.summary import Summary, versions
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.client import RolloutClient
from crrl.rollout.config import RolloutConfig
from crrl.rollout.journal import TRAIN, Journal
from crrl.run.folder import create
from crrl.sandbox import default_state_dir
from crrl.sandbox.cache import keep_within


class Run:
    """Made by `open` (a run folder) or `temporary` (evaluation only); a context manager.

    Attributes: `step`: updates done, which is also the policy's version. `checkpoint`: what the trainer resumes from.
    """

    def __init__(
        self, config: Config, folder: Path, journal: Journal, live: bool | None, *, trains: bool = True
    ) -> None:
        self.config, self.folder, self.journal, self.trains = config, folder, journal, trains
        self.spent = TimeBreakdown()
        self.step = 0
        self.phase: str = TRAIN
        self.checkpoint = checkpoints.latest(folder)
        self._closing = ExitStack()
        self.display = Display(live=live)
        self._closing.callback(self.display.close)
        self._closing.callback(journal.close)
        with self.spent("start"):
            self._start()

    @classmethod
    def open(cls, config: Config, *, resume: bool, live: bool | None) -> Run:
        """Make the run folder, or go on in it."""
        folder = Path(config.runs_dir) / config.run
        if resume:
            return cls(config, folder, Journal.open(folder), live)
        # A bad model folder leaves no run folder behind, nor does a template that breaks.
        named(config)
        meta = {"seed": config.seed, "recipe": config.recipe, "versions": versions()}
        meta["credit"] = config.objective.credit  # a replay must know the rule
        return cls(config, folder, create(folder, meta, to_yaml(config)), live)

    @classmethod
    @contextmanager
    def temporary(cls, config: Config, live: bool | None) -> Iterator[Run]:
        """For evaluation alone: its journal goes when it is done."""
        named(config)
        folder = Path(tempfile.mkdtemp(prefix="crrl-eval-"))
        try:
            journal = Journal.create(folder / "run", {"seed": config.seed})
            with cls(config, folder, journal, live, trains=False) as run:
                yield run
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _start(self) -> None:
        try:
            config = self.config
            self.display.phase("start", 0)
            torch.set_num_threads(config.engine.threads or torch.get_num_threads())
            if config.sandbox.cache_gb:
                state_dir = Path(config.sandbox.state_dir or default_state_dir())
                for note in keep_within(state_dir, int(config.sandbox.cache_gb * 1e9)):
                    self.display.note(note)
            self.curriculum = Curriculum(config, trains=self.trains)
            for note in self.curriculum.notes:
                self.display.note(note)
            source = self.checkpoint or model_folder(config.model.path)
            self.tokenizer = load_tokenizer(source)
            self.model = load_model(source)
            if self.checkpoint is None:
                self.journal.set_meta("policy", checkpoints.fingerprint(self.model))
            else:
                self.step = checkpoints.of_policy(self.checkpoint, self.journal.meta["policy"]).step
            engine = config.engine
            self.engine = engines.make(
                engine.name,
                source,
                context=engine.context or None,
                max_batch=engine.max_batch,
                version=self.step,
                trained=self.trains and self.step < config.trainer.max_steps,
            )
            self._closing.callback(self.engine.close)
            own = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="crrl-")))
            server = EngineServer(self.engine, own / "engine.sock")
            self._closing.callback(server.close)
            # A copy, which a worker that is started again finds: checkpoints are removed while the run goes on.
            copy_tokenizer(source, own / "tokenizer")
            self.client = RolloutClient(
                RolloutConfig.from_config(config, own / "tokenizer", server.address, self.curriculum.images()),
                self.folder / "log.txt",
                self._lost_try,
            )
            self._closing.callback(self.client.close)
            self.client.start()
        except BaseException:
            self._closing.close()
            raise

    # Episodes -------------------------------------------------------------------------------------------------

    def run_attempts(self, name: str, phase: Phase, attempts: list[Attempt]) -> None:
        """Run those that the journal does not have yet; each is journalled as it finishes."""
        self.phase = phase
        finished = self.journal.finished(phase)
        missing = [a for a in attempts if a.id not in finished]
        self.display.phase(name, len(attempts))
        self.display.advance(len(attempts) - len(missing))
        solved = done = 0

        def keep(episode: Episode) -> None:
            nonlocal solved, done
            self.journal.add_episode(phase, episode)
            done += 1
            solved += bool(episode.verdict and episode.verdict.solved)
            self.display.advance(1, solve=solved / done)

        with self.spent(name):
            self.client.run(missing, keep)

    def _lost_try(self, attempt: str, task: str, error: LostError) -> None:
        self.journal.add_lost_try(self.phase, attempt, task, error.cause, error.detail, version=self.step)

    def episode(self, attempt: Attempt) -> Episode:
        return self.journal.episode(attempt.id, attempt.id.split("/")[1])

    def count(self, episode: Episode) -> None:
        """Of a training episode that just finished."""
        self.spent.add_timings(episode.timings)

    def timed(self, source: Callable[[int], Any]) -> Callable[[int], Any]:
        def call(step: int) -> Any:
            with self.spent("rollouts"):
                return source(step)

        return call

    # Weights --------------------------------------------------------------------------------------------------

    def push(self, model: torch.nn.Module, version: int) -> float:
        """New weights go live, proved: the largest log-prob difference on the probe. Raises PushError."""
        return asyncio.run(push_and_prove(self.engine, model, version))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While the trainer computes: the engine rests, and torch has `trainer.threads` (0: every core this process
        may use)."""
        before = torch.get_num_threads()
        with self.engine.resting():
            torch.set_num_threads(self.config.trainer.threads or len(os.sched_getaffinity(0)))
            try:
                yield
            finally:
                torch.set_num_threads(before)

    # The end --------------------------------------------------------------------------------------------------

    def interrupted(self) -> None:
        self.display.note(f"Interrupted after step {self.step}. Go on with: crrl train resume={self.folder.name}")

    def summary(self, splits: dict[str, Any]) -> Summary:
        """Everything that `summary.json` says, `splits` as `assemble` gave them."""
        rows = self.journal.outline()
        outcomes = {o: sum(r.outcome == o for r in rows) for o in ("scored", "truncated", "lost")}
        parts = {name: wall_s for name, wall_s in self.spent.parts().items() if not name.startswith("episode ")}
        parts["training"] = parts.get("training", 0.0) - parts.get("rollouts", 0.0) - parts.get("push", 0.0)
        wall = self.spent.elapsed_s()
        usage = self.client.usage()
        return Summary(
            run=self.config.run,
            seed=self.config.seed,
            recipe=self.config.recipe,
            splits=splits,
            random_floor=random_floors(self.config, splits),
            episodes=outcomes,
            lost_tries=lost_tries(self.journal),
            exploits=exploit_rates(self.journal.attempted_exploits()),
            seconds={**{k: round(v, 2) for k, v in parts.items() if v > 0}, "total": round(wall, 2)},
            episodes_per_second=len(rows) / wall,
            peak_memory_bytes=peak_memory_bytes() + usage.peak_memory_bytes,
            steps=self.step,
            control=self.config.objective.shuffle_rewards,
        )


def named(config: Config) -> None:
    """Settle `renderer.key`: `auto` goes by the model's name, which neither checkpoints nor copies have."""
    tokenizer = load_tokenizer(model_folder(config.model.path))
    config.renderer.key = load_renderer(tokenizer, config.renderer.key).key


def lost_tries(journal: Journal) -> dict[str, Any]:
    """How many tries our side lost, by cause, policy version and task."""
    tries = journal.lost_tries()
    counts = {f"by_{key}": dict(Counter(str(t[key]) for t in tries)) for key in ("cause", "version", "task")}
    return {"total": len(tries), **counts}


def random_floors(config: Config, splits: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What a policy that edits at random would solve of each generated split."""
    from crrl.evaluation.statistics import wilson
    from crrl.tasks.generator.floor import random_floor

    if config.corpus.name != "generated":
        return {}
    floors = {}
    for split in splits:
        floor = random_floor(split, config.seed, config.evaluation.tasks_per_split)
        rate = floor.solved / floor.total
        ci95 = list(wilson(floor.solved, floor.total))
        floors[split] = {"solved": floor.solved, "total": floor.total, "rate": rate, "ci95": ci95}
    return floors
