"""The engine of a run, made from its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from crrl import engines
from crrl.conf.engine_keys import OWN
from crrl.conf.schema import Config
from crrl.engines.adapter import is_adapter
from crrl.engines.api import Started
from crrl.engines.device import device_of
from crrl.engines.vllm.install import python_of
from crrl.errors import CrrlError, UsageError
from crrl.sandbox import default_state_dir
from crrl.sandbox.in_use import use_mount


def engine_of(
    config: Config,
    model: Path,
    *,
    version: int = 0,
    trained: bool = False,
    note: Callable[[str], None],
    failed: Callable[[CrrlError], None] = lambda error: None,
    log: Path | None = None,
) -> Any:
    """The engine that `config.engine` names, serving a model folder as policy `version`; its owner calls `close()`.
    `trained`: weights will be pushed to it. `note`, `failed`: see `Started`. `log`: of a server of its own. Raises
    UsageError, CrrlError."""
    engine = config.engine
    own: dict[str, Any] = {key: getattr(engine, key) for key in OWN.get(engine.name, ())}
    if engine.name == "vllm":
        environment = _environment(config)
        own["environment"] = str(environment)
        if not engine.url:
            use_mount(environment, Path(config.sandbox.state_dir or default_state_dir()))
        own["rank"] = config.adapter.r if trained and config.adapter.name == "lora" else 0
        own["share"] = trained and engine.share
        if engine.transport == "adapter" and not (own["rank"] or is_adapter(model)):  # of a run whose base this is
            note("There is no adapter: vLLM serves the model as it is")
            own["transport"] = "disk"
    if engine.name == "vllm" and log is not None:
        own["log"] = str(log)
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


def require_engine(config: Config) -> None:
    """Before a run folder is made. Raises UsageError: this machine lacks what the engine's settings ask for."""
    engine = config.engine
    if engine.name == "vllm" and not (engine.url or engine.install):
        cuda = device_of(engine.device).type == "cuda"
        python_of(_environment(config), cuda=cuda, install=False, note=lambda said: None)


def require_for_training(config: Config) -> None:
    """Of engine=vllm. Raises UsageError: pushes could not get to it, or it would compute on a GPU of the trainer's."""
    engine = config.engine
    if engine.transport == "adapter" and config.adapter.name != "lora":
        raise UsageError(
            "engine.transport=adapter pushes an adapter, and all weights are trained.",
            "Add adapter=lora, or leave engine.transport out.",
        )
    if not engine.url:
        _require_a_card(config)


def _environment(config: Config) -> Path:
    state_dir = Path(config.sandbox.state_dir or default_state_dir())
    return Path(config.engine.environment or state_dir / "engines" / "vllm")


def _require_a_card(config: Config) -> None:
    """Raises UsageError: the servers would compute on a GPU that the trainer has, or should and would not."""
    engine, trainers = config.engine, config.launch.processes
    where = device_of(engine.device)
    here = where.type == "cuda" and (where.index or 0) < trainers
    if here and not engine.share:
        raise UsageError(
            f"engine.device={engine.device}: the trainer computes there.",
            f"Write engine.device=cuda:{trainers}, engine.share=true (they take turns), or engine=local.",
        )
    if engine.share and where.type == "cpu":
        raise UsageError(
            "engine.share=true is for a GPU: on a CPU vLLM does not sleep, and what it has stays its own.",
            "Leave it out.",
        )
    if engine.share and not (here and engine.replicas == engine.tensor_parallel == trainers == 1):
        raise UsageError(
            "engine.share=true is for one GPU, with one trainer and one server.",
            "Write engine.device=cuda:0, without engine.replicas, engine.tensor_parallel and launch.",
        )
