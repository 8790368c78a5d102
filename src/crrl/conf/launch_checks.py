"""What `launch` cannot be combined with (invariant 9)."""

from __future__ import annotations

from crrl.conf.schema import Config
from crrl.errors import UsageError

LAUNCHED = "CRRL_LAUNCHED"
"""Set for the processes that `run/launch.py` starts: its process id. What a job scheduler sets (RANK) means nothing."""


def check_launch(config: Config) -> None:
    """Raises UsageError."""
    launch, trainer = config.launch, config.trainer
    if launch.name == "local":
        return
    if launch.processes < 2:
        raise UsageError(
            f"launch={launch.name} is for two processes or more.",
            f"Write launch={launch.name} launch.processes=2, or launch=local.",
        )
    if launch.name != "zero3":
        return
    if trainer.dtype == "bfloat16":
        raise UsageError(
            "launch=zero3 keeps float32 copies of the weights that it updates, which trainer.dtype=bfloat16 does not.",
            "Write trainer.dtype=mixed.",
        )
    if trainer.optimizer != "adamw":
        raise UsageError(
            f"launch=zero3 shards the moments of adamw, not those of trainer.optimizer={trainer.optimizer}.",
            "Write trainer.optimizer=adamw.",
        )
    if config.objective.beta:
        raise UsageError(
            f"objective.beta={config.objective.beta:g}: a reference policy is not sharded by launch=zero3.",
            "Write objective.beta=0, or launch=ddp.",
        )
