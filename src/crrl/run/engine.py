"""The engine of a run, made from its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crrl import engines
from crrl.conf.engine_keys import OWN
from crrl.conf.schema import Config


def engine_of(config: Config, model: Path, *, version: int = 0, trained: bool = False) -> Any:
    """The engine that `config.engine` names, serving a model folder as policy `version`; its owner calls `close()`.
    `trained`: weights will be pushed to it. Raises UsageError, CrrlError."""
    engine = config.engine
    return engines.make(
        engine.name,
        model,
        context=engine.context or None,
        max_batch=engine.max_batch,
        device=engine.device,
        dtype=engine.dtype,
        version=version,
        base=config.model.base,
        trained=trained,
        own={key: getattr(engine, key) for key in OWN.get(engine.name, ())},
    )
