"""Engines: token ids in; token ids, log-probs and policy versions out (`api.Engine`); weights in (`api.Weights`).

| engine | what it is |
|---|---|
| `local.LocalEngine` | any transformers causal model, in this process, on its own thread |
| `vllm.engine.VllmEngine` | a vLLM server, which it starts, watches and ends; the worker speaks to it directly |
| `remote.Endpoint` | a model behind an OpenAI-compatible endpoint, which answers in text: a baseline, never trained |
| `wire.RemoteEngine` | an engine in another process, over a unix socket (`wire.EngineServer` is the other end) |
| `scripted.ScriptedEngine` | plays given token lists: for tests of anything that uses an engine |

**Adding an engine.** Write one file with a class that has the methods of `api.Engine`, made as `make` calls it, and one
line: here in `ENGINES`, or in a distribution of your own (docs/plugins.md). A run trains on it if the class has those
of `api.Weights`, too. The rollout worker reaches it through a socket of the run's, or directly if it has those of
`api.Served`: its kind of address is then one line in `CONNECTIONS`. Three things must hold:
log-probs are log softmax(logits / T) before any truncation; every token carries the version of the weights that made
it; the noise of a token derives from (request seed, position) alone (`sampling.uniform`). Raise `EngineError` if the
engine fails (the episode is lost and retried) and `ContextLengthError` if prompt + 1 > context.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from crrl import registry
from crrl.engines.api import Chunk, Connection, Engine, EngineInfo, Probe, Request, Served, Weights, WeightSource
from crrl.errors import LostError, UsageError

ENGINES = {
    "local": "crrl.engines.load:load_local",
    "vllm": "crrl.engines.vllm.engine:VllmEngine",
    "remote": "crrl.engines.remote:RemoteEngine",
}
# scheme of an address -> class, made with the part behind the colon
CONNECTIONS = {
    "unix": "crrl.engines.wire:RemoteEngine",
    "vllm": "crrl.engines.vllm.client:VllmClient",
    "remote": "crrl.engines.remote:Endpoint",
}


def make(
    name: str,
    model: Path,
    *,
    context: int | None,
    max_batch: int,
    device: str = "auto",
    dtype: str = "float32",
    version: int = 0,
    base: str = "",
    trained: bool = False,
    own: Mapping[str, Any] | None = None,
) -> Any:
    """The engine called `name` on a model folder, serving it as policy `version`; its owner calls `close()`.
    `context`: None, the model's own. `device`, `dtype`: words of the settings (`engines.device`). `base`: where the
    base of the adapter in `model` was moved to, given only then. `trained`: weights will be pushed to it. `own`: the
    settings that only this engine has (`conf.engine_keys`). Raises UsageError, CrrlError."""
    part = registry.find("crrl.engines", name)
    own = {**(own or {}), **({"base": base} if base else {})}
    made = part.make(model, context=context, max_batch=max_batch, device=device, dtype=dtype, version=version, **own)
    return part.require(made, Engine, *([Weights] if trained else []))


def connect(address: str) -> Connection:
    """The engine that listens at `unix:/path/of/its.sock`; it is reached at first use. Raises UsageError: no such
    kind of address."""
    scheme, colon, rest = address.partition(":")
    if not (colon and rest and scheme in CONNECTIONS):
        raise UsageError(f"'{address}' is not an engine's address.", "Write unix:/path/of/its.sock")
    module, _, name = CONNECTIONS[scheme].partition(":")
    connection: Connection = getattr(import_module(module), name)(rest)
    return connection


class EngineError(LostError):
    """The engine failed during a generation: the caller loses an episode, not a point."""

    def __init__(self, detail: str) -> None:
        super().__init__("engine_failed", detail)


class ContextLengthError(ValueError):
    """The prompt leaves no room for one token. The gateway checks this first, so it is a bug in the caller."""

    def __init__(self, prompt: int, context: int) -> None:
        super().__init__(f"prompt of {prompt} tokens + 1 > context of {context}")
        self.prompt = prompt
        self.context = context


__all__ = [
    "Chunk",
    "Connection",
    "ContextLengthError",
    "Engine",
    "EngineError",
    "EngineInfo",
    "Probe",
    "Request",
    "Served",
    "WeightSource",
    "Weights",
    "connect",
    "make",
]
