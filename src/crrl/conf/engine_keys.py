"""Settings under `engine.` that are for some engines only: these get them (`run.engine`), with any other one they are
refused (`conf.ignored`, invariant 9)."""

from __future__ import annotations

# an engine's name -> the keys it has besides those of every engine
OWN: dict[str, tuple[str, ...]] = {
    "vllm": (
        *("url", "transport", "replicas", "share", "memory_gb", "memory_share", "tensor_parallel", "install"),
        "environment",
    ),
    "remote": ("url", "model", "key_variable"),
}

OF_A_SERVER_OF_OURS = ("max_batch", "threads", "device", *OWN["vllm"][2:])
"""Those that engine=vllm starts its own server with."""


def engines_with(key: str) -> list[str]:
    return [name for name, keys in OWN.items() if key in keys]
