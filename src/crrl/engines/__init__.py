"""Engines: token ids in; token ids, log-probs and policy versions out; weights in (`api.Engine` is the protocol).

| engine | what it is |
|---|---|
| `local.LocalEngine` | any transformers causal model, in this process, on its own thread |
| `wire.RemoteEngine` | an engine of another process, over a unix socket (`wire.EngineServer` is its other end) |
| `scripted.ScriptedEngine` | plays given token lists: for the tests of whatever stands on an engine |

**Adding an engine.** Write one file with a class that has the methods of `api.Engine`, made as `make` calls it, and one
line: here in `ENGINES`, or in a distribution of your own (docs/plugins.md). Three things must hold:
log-probs are log softmax(logits / T) before any truncation; every token carries the version of the weights that made
it; the noise of a token derives from (request seed, position) alone (`sampling.uniform`). Raise `EngineError` when the
engine failed (the episode is lost and retried) and `ContextLengthError` when prompt + 1 > context.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crrl import registry
from crrl.engines.api import Chunk, Engine, EngineInfo, Probe, Request, WeightSource
from crrl.errors import LostError

ENGINES = {
    "local": "crrl.engines.load:load_local",
}


def make(name: str, model: Path, *, context: int | None, max_batch: int, version: int = 0) -> Any:
    """The engine called `name` on a model folder, serving it as policy `version`. `context`: None, the model's own.
    Raises UsageError, CrrlError."""
    return registry.find("crrl.engines", name).make(model, context=context, max_batch=max_batch, version=version)


class EngineError(LostError):
    """The engine failed under a generation: whoever asked has lost an episode, not a point."""

    def __init__(self, detail: str) -> None:
        super().__init__("engine_failed", detail)


class ContextLengthError(ValueError):
    """The prompt leaves no room for one token. The gateway checks first, so this is a bug of the caller."""

    def __init__(self, prompt: int, context: int) -> None:
        super().__init__(f"prompt of {prompt} tokens + 1 > context of {context}")
        self.prompt = prompt
        self.context = context


__all__ = [
    "Chunk",
    "ContextLengthError",
    "Engine",
    "EngineError",
    "EngineInfo",
    "Probe",
    "Request",
    "WeightSource",
]
