"""`Run`: the parts of a run in progress, from its folder to its worker process, opened and closed in one place.

This process has the trainer's model, the engine with its own copy, the only writer of the journal, and the display. The
gateway, the agents, their boxes and the judge are in the worker process behind `client`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from crrl.conf.load import to_yaml
from crrl.conf.schema import Config
from crrl.console.display import Display
from crrl.console.time_breakdown import TimeBreakdown
from crrl.engines.api import Weights
from crrl.engines.device import device_of, dtype_of
from crrl.engines.fingerprint import fingerprint
from crrl.engines.load import copy_tokenizer, load_tokenizer
from crrl.engines.wire import serving
from crrl.errors import LostError
from crrl.evaluation.benchmark import Phase
from crrl.gateway.renderer import load_renderer
from crrl.learning import checkpoint as checkpoints
from crrl.learning import objective, older_checkpoint, plan, precision, sharding
from crrl.learning.curriculum import Curriculum
from crrl.learning.plan import Room
from crrl.learning.push import BOUND, bound_in, push_and_prove
from crrl.learning.ranks import ALONE, Ranks
from crrl.models import model_folder
from crrl.report.alarms import raised
from crrl.report.summary import versions
from crrl.rollout.api import Attempt, Episode
from crrl.rollout.client import RolloutClient
from crrl.rollout.config import RolloutConfig
from crrl.rollout.journal import TRAIN, Journal
from crrl.run.busy import Busy
from crrl.run.engine import engine_of, require_engine
from crrl.run.folder import create
from crrl.run.tracking import Tracking
from crrl.run.watchdog import Watchdog
from crrl.sandbox import default_state_dir
from crrl.sandbox.cache import keep_within


@dataclass(frozen=True)
class Begin:
    """What the other ranks are told: the settings, the run's folder, where the policy's weights are, and the checkpoint
    from which the trainer goes on."""

    config: Config
    folder: Path
    source: Path
    checkpoint: Path | None


class Run:
    """Made by `open` (train) or `evaluation` (evaluate only), each in a folder of its own; a context manager.

    Attributes: `step`: the number of updates, which is also the policy's version. `checkpoint`: where the trainer
    resumes. `model`: the trainer's; None where nothing is left to train, and the engine's is enough. `ranks`: those
    that train; the run is rank 0's.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        journal: Journal,
        live: bool | None,
        *,
        curriculum: Curriculum,
        trains: bool = True,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.config, self.folder, self.journal, self.trains = config, folder, journal, trains
        self.curriculum = curriculum
        self.spent = TimeBreakdown()
        self.earlier_episodes = sum(journal.phases().values())  # of sittings before this one
        self.step = 0
        self.others_bytes = 0  # peak memory of the other ranks
        self.moved = 0  # episodes and parts of updates: what the watchdog looks at
        self._in_step = 0
        self.phase: str = TRAIN
        if trains and config.trainer.checkpoints_dir:
            checkpoints.link(folder, config.trainer.checkpoints_dir)
        self.checkpoint = checkpoints.latest(folder)
        self._closing = ExitStack()
        self.display = Display(live=live)
        self._closing.callback(self.display.close)
        self._closing.callback(journal.close)
        with self.spent("start"):
            self._start()

    @classmethod
    def open(cls, config: Config, *, resume: bool, live: bool | None, ranks: Ranks = ALONE) -> Run:
        """Create the run folder, or resume in it."""
        folder = Path(config.runs_dir) / config.run
        can_compute(config)
        objective.require(config.objective)
        # First: tasks that cannot be trained on, a bad model folder, or a chat template that fails, leave no run folder
        # behind.
        curriculum = Curriculum(config)
        if resume:
            fits(config)
            return cls(config, folder, Journal.open(folder), live, curriculum=curriculum, ranks=ranks)
        named(config)
        fits(config)
        if config.trainer.checkpoints_dir:
            checkpoints.elsewhere(folder, config.trainer.checkpoints_dir)
        meta = {"seed": config.seed, "recipe": config.recipe, "versions": versions()}
        meta["credit"] = config.objective.credit  # a replay needs the rule
        meta["checkpoint_rule"] = config.evaluation.checkpoint_rule  # written down before training
        return cls(config, folder, create(folder, meta, to_yaml(config)), live, curriculum=curriculum, ranks=ranks)

    @classmethod
    def evaluation(
        cls, config: Config, meta: Mapping[str, Any] | None, files: Mapping[str, bytes], live: bool | None
    ) -> Run:
        """Evaluate only; trackers see nothing of it. `meta`: what is evaluated, and `files` of the folder; None: the
        folder is there, resume in it."""
        config.tracker.name = []
        folder = Path(config.runs_dir) / config.run
        can_compute(config)
        if meta is None:
            journal = Journal.open(folder)
        else:
            named(config)
            meta = {"seed": config.seed, "recipe": config.recipe, "versions": versions(), **meta}
            journal = create(folder, meta, to_yaml(config), files)
        try:
            curriculum = Curriculum(config, trains=False)  # it may read one of the files
        except BaseException:
            journal.close()
            raise
        return cls(config, folder, journal, live, curriculum=curriculum, trains=False)

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
            for note in self.curriculum.notes:
                self.display.note(note)
            source = self.checkpoint or model_folder(config.model.path)
            base = config.model.base
            self.tokenizer = load_tokenizer(source, base)
            if self.checkpoint is not None:
                if self.trains and older_checkpoint.is_older(self.checkpoint):
                    older_checkpoint.rewrite(self.checkpoint)
                self.step = checkpoints.of_policy(self.checkpoint, self.journal.meta["policy"]).step
            updates = self.trains and self.step < config.trainer.max_steps
            self.source = source
            # With several ranks all load it together (`main.fit`), when the engine, which rank 0 alone has, is there.
            self.model = sharding.load(config, source, self.ranks) if updates and self.ranks.size == 1 else None
            if updates and self.checkpoint is None:
                self.journal.set_meta("policy", fingerprint(source))
            self.tracking = Tracking(config, self.folder, self.journal, self.step, self.display.note)
            self._closing.callback(self.tracking.close)
            self.engine = engine_of(
                config,
                source,
                version=self.step,
                trained=updates,
                note=self.display.note,
                failed=lambda error: self.client.fail(error),
                log=self.folder / "vllm.log",
            )
            self._closing.callback(self.engine.close)
            self._bound = self.bound_of_pushes(self.model) if self.model is not None else BOUND
            own = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="crrl-")))
            server = self._closing.enter_context(serving(self.engine, own / "engine.sock"))
            # A copy for workers that restart later: the run deletes old checkpoints meanwhile.
            copy_tokenizer(source, own / "tokenizer", base)
            self.client = RolloutClient(
                RolloutConfig.from_config(
                    config, own / "tokenizer", server.address, self.curriculum.images(), private=str(own)
                ),
                self.folder / "log.txt",
                self._lost_try,
            )
            self._closing.callback(self.client.close)
            self.client.start()
            self.display.count_tokens(lambda: server.tokens)
            if config.rollout.watchdog_s:
                watchdog = Watchdog(
                    self.folder,
                    lambda: (server.tokens, self.moved),
                    self.client.ask_for_stacks,
                    config.rollout.watchdog_s,
                    self.display.note,
                )
                self._closing.callback(watchdog.close)
                watchdog.start()
        except BaseException:
            self._closing.close()
            raise

    # Episodes -------------------------------------------------------------------------------------------------

    def run_attempts(self, name: str, phase: Phase, attempts: list[Attempt]) -> None:
        """Run the attempts that are not in the journal yet, and add each episode to it as it finishes."""
        self.phase = phase
        finished = self.journal.finished(phase)
        missing = [a for a in attempts if a.id not in finished]
        self.display.phase(name, len(attempts))
        self.display.advance(len(attempts) - len(missing))
        solved = done = 0

        def keep(episode: Episode) -> None:
            nonlocal solved, done
            self.journal.add_episode(phase, episode)
            self.engine.forget(episode.id)
            self.moved += 1
            done += 1
            solved += bool(episode.verdict and episode.verdict.solved)
            self.display.advance(1, solve=solved / done)

        with self.spent(name):
            self.client.run(missing, keep)

    def _lost_try(self, attempt: str, task: str, error: LostError) -> None:
        self.engine.forget(attempt)
        phase = TRAIN if attempt.startswith(f"{TRAIN}/") else self.phase
        self.journal.add_lost_try(phase, attempt, task, error.cause, error.detail, version=self.step)

    def episode(self, attempt: Attempt) -> Episode:
        return self.journal.episode(attempt.id, attempt.id.split("/")[1])

    def count(self, episode: Episode) -> None:
        """Add the timings of a finished training episode, and show it."""
        self.engine.forget(episode.id)
        self.spent.add_timings(episode.timings)
        self.moved += 1
        if not episode.group.startswith(f"{TRAIN}/{self.step}/"):
            return  # of a step to come
        self._in_step += 1
        objective = self.config.objective
        self.display.within("episodes", self._in_step, objective.groups_per_step * objective.group_size)

    def alarm(self) -> None:
        """Tell the user what the latest update raised."""
        for alarm in raised(self.updates()):
            self.display.note(f"Alarm: {alarm.name}: {alarm.says}. {alarm.cause}")

    def updates(self) -> list[dict[str, Any]]:
        """The metrics of all updates, in order."""
        return [step.metrics for step in self.journal.steps() if step.state == "trained"]

    def updating(self, done: int, total: int) -> None:
        """Show that so many micro-batches of the update are done."""
        self.moved += 1
        self.display.within("micro-batches", done, total)

    def timed(self, source: Callable[[int], Any]) -> Callable[[int], Any]:
        self.busy = Busy(lambda: self.engine.busy_s)

        def call(step: int) -> Any:
            self._in_step = sum(id.startswith(f"{TRAIN}/{step}/") for id in self.journal.finished(TRAIN))
            with self.spent("rollouts"), self.busy.waiting():
                return source(step)

        return call

    # Weights --------------------------------------------------------------------------------------------------

    def push(self, model: torch.nn.Module, version: int) -> float:
        """Push new weights into the engine, and prove the push. Returns the largest log-prob difference on the probe.
        Raises PushError."""
        computing = precision.computing(self.config.trainer)
        return asyncio.run(push_and_prove(self.engine, model, version, self._bound, computing, self.ranks))

    def keep(self, version: int) -> None:
        """The engine's weights are policy `version`, too."""
        asyncio.run(self.engine.keep(version))

    def begin_together(self) -> PreTrainedModel:
        """The trainer's model, which all ranks load now."""
        if self.model is None:
            with self.ranks.stopping():
                self.display.note(f"{self.ranks.size} processes train: launch={self.config.launch.name}")
                self.ranks.share(Begin(self.config, self.folder, self.source, self.checkpoint))
            self.model = sharding.load(self.config, self.source, self.ranks)
        return self.model

    def ready(self) -> None:
        """The model that several ranks train can compute now."""
        if self.ranks.size > 1:
            self._bound = self.bound_of_pushes(self.model)

    def bound_of_pushes(self, model: Any) -> float:
        trainer = self.config.trainer
        if (self.config.engine.dtype, trainer.dtype) == ("float32", "float32"):
            return BOUND
        if self.ranks.size == 1:
            model.to(device_of("auto"))  # where it will be trained
        bound = asyncio.run(bound_in(self.engine, model, precision.computing(trainer), self.ranks))
        self.display.note(f"bfloat16: after a push, engine and trainer may differ by {bound:.2g} nats on the probe")
        return bound

    def resting(self) -> AbstractContextManager[None]:
        """While the trainer computes. An engine whose episodes run ahead goes on."""
        engine = None if self.config.rollout.staleness else self.engine
        return lent(engine, threads_of(self.config, self.ranks))

    # The end --------------------------------------------------------------------------------------------------

    def interrupted(self) -> None:
        self.display.note(f"Interrupted after step {self.step}. Resume with: crrl train resume={self.folder.name}")


def can_compute(config: Config) -> None:
    """Raises UsageError: this machine lacks the device, or the instructions, that the settings ask for."""
    dtype_of(config.engine.dtype, device_of(config.engine.device), "engine.dtype")
    require_engine(config)
    precision.require(config.trainer)


def fits(config: Config) -> None:
    """Raises DoesNotFit. On a GPU the trainer's dry step tells; on a CPU the kernel would kill the run instead."""
    if config.trainer.max_steps and (room := Room.here()).device == "cpu":
        plan.require(config, room)


def named(config: Config) -> None:
    """Resolve `renderer.key`: `auto` depends on the model's name, which checkpoints and copies lack."""
    tokenizer = load_tokenizer(model_folder(config.model.path), config.model.base)
    config.renderer.key = load_renderer(tokenizer, config.renderer.key).key


def threads_of(config: Config, ranks: Ranks) -> int:
    """For an update, of torch in one rank: it shares the cores with the others."""
    return config.trainer.threads or max(1, len(os.sched_getaffinity(0)) // ranks.size)


@contextmanager
def lent(weights: Weights | None, threads: int) -> Iterator[None]:
    """The engine, if there is one here, rests, and torch has so many threads in this thread."""
    before = torch.get_num_threads()
    with weights.resting() if weights is not None else nullcontext():
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
