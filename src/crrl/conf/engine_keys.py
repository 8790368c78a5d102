"""Settings under `engine.` that are for some engines only: these get them (`run.engine`), with any other one they are
refused (`conf.ignored`, invariant 9)."""

from __future__ import annotations

# an engine's name -> the keys it has besides those of every engine
OWN: dict[str, tuple[str, ...]] = {
    "vllm": ("memory_gb", "memory_share", "tensor_parallel", "install", "environment"),
}


def engines_with(key: str) -> list[str]:
    return [name for name, keys in OWN.items() if key in keys]
