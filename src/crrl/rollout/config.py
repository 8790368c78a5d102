"""The rollout worker's share of a run's settings, serialisable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crrl.conf.schema import Agent, Config
from crrl.sandbox import default_state_dir
from crrl.sandbox.api import Limits


@dataclass(frozen=True)
class RolloutConfig:
    """Args:
    engine: address of the engine (`engines.connect`). tokenizer: folder with the policy's tokenizer.json.
    images: the container engine. needed_images: of the run's tasks; without them it does not start.
    limits: of one box. reward_weights, reward_options: by reward name. tries: of one attempt, when our side fails.
    private: the run's temporary folder, which a worker removes if the run is killed.
    """

    engine: str
    tokenizer: str
    renderer: str
    calls: str
    agent: Agent
    sandbox: str
    images: str
    cpus: float
    needed_images: list[str]
    state_dir: str
    limits: Limits
    reward_weights: dict[str, float]
    reward_options: dict[str, dict[str, Any]]
    judges: int
    concurrency: int
    tries: int
    private: str = ""

    @classmethod
    def from_config(
        cls, config: Config, tokenizer: Path, engine: str, needed_images: Sequence[str] = (), private: str = ""
    ) -> RolloutConfig:
        sandbox, rollout = config.sandbox, config.rollout
        return cls(
            engine=engine,
            tokenizer=str(tokenizer),
            renderer=config.renderer.key,
            calls=config.renderer.calls,
            agent=config.agent,
            sandbox=sandbox.name,
            images=sandbox.images,
            cpus=sandbox.cpus,
            needed_images=list(needed_images),
            state_dir=sandbox.state_dir or str(default_state_dir()),
            limits=Limits(
                memory_bytes=(sandbox.memory_mb + config.agent.memory_mb) << 20,
                processes=sandbox.processes,
                disk_bytes=sandbox.disk_mb << 20,
            ),
            reward_weights=dict(config.rewards.weights),
            reward_options=config.rewards.options,
            judges=rollout.judges,
            concurrency=rollout.concurrency,
            tries=rollout.tries,
            private=private,
        )
