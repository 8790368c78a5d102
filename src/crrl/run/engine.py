"""The engine of a run, made from its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from crrl import engines
from crrl.conf.engine_keys import OWN
from crrl.conf.schema import Config
from crrl.engines.api import Started
from crrl.errors import CrrlError
from crrl.sandbox import default_state_dir


def engine_of(
    config: Config,
    model: Path,
    *,
    version: int = 0,
    trained: bool = False,
    note: Callable[[str], None],
    failed: Callable[[CrrlError], None] = lambda error: None,
) -> Any:
    """The engine that `config.engine` names, serving a model folder as policy `version`; its owner calls `close()`.
    `trained`: weights will be pushed to it. `note`, `failed`: see `Started`. Raises UsageError, CrrlError."""
    engine = config.engine
    own: dict[str, Any] = {key: getattr(engine, key) for key in OWN.get(engine.name, ())}
    if own.get("environment") == "":
        own["environment"] = str(Path(config.sandbox.state_dir or default_state_dir()) / "engines" / engine.name)
    made = engines.make(
        engine.name,
        model,
        context=engine.context or None,
        max_batch=engine.max_batch,
        device=engine.device,
        dtype=engine.dtype,
        version=version,
        base=config.model.base,
        trained=trained,
        own=own,
    )
    if isinstance(made, Started):
        try:
            made.start(note, failed)
        except BaseException:
            made.close()
            raise
    return made
