"""Pushed weights as a folder, for a server in another process: a whole model, or an adapter.

Invariant 7: all names, shapes and values are checked while the folder is written, before the server hears of it; a push
that cannot be right changes nothing. The folder is also what a server that died is started again from.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from crrl.engines.adapter import CONFIG, WEIGHTS
from crrl.engines.api import WeightSource
from crrl.errors import CrrlError

SHARD_BYTES = 1 << 30
SETTINGS = ("config.json", "generation_config.json")
INDEX = "model.safetensors.index.json"


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a model folder, by name."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                found[name] = tuple(tensors.get_slice(name).get_shape())
    return found


def write(source: WeightSource, model: Path, shapes: dict[str, tuple[int, ...]], target: Path, dtype: str) -> None:
    """Makes the folder `target`: the weights of `source`, the settings and tokenizer of `model`. At most one shard is
    in memory. `shapes`: what the server was started with.

    Raises:
        CrrlError: a name is unknown or missing, a shape differs, or a value is not finite. There is no folder.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.index.json", ".*"))
    try:
        _write(source, shapes, target, getattr(torch, dtype))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _write(source: WeightSource, shapes: dict[str, tuple[int, ...]], target: Path, dtype: torch.dtype) -> None:
    missing, wrong = set(shapes), []
    shard: dict[str, torch.Tensor] = {}
    index: dict[str, str] = {}
    size = shards = 0

    def flush() -> None:
        nonlocal size, shards
        if shard:
            name = f"model-{shards:05d}.safetensors"
            save_file(shard, target / name, metadata={"format": "pt"})
            index.update(dict.fromkeys(shard, name))
            shard.clear()
            size, shards = 0, shards + 1

    tied = _tied(target)
    for name, tensor in source.tensors():
        if name not in shapes:
            if name not in tied:
                wrong.append(f"{name}: the served model has no such tensor")
            continue
        missing.discard(name)
        if tuple(tensor.shape) != shapes[name]:
            wrong.append(f"{name}: shape {tuple(tensor.shape)}, the served model's is {shapes[name]}")
        elif not torch.isfinite(tensor).all():
            wrong.append(f"{name}: holds NaN or infinity")
        elif not wrong:
            shard[name] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
            size += shard[name].nbytes
            if size >= SHARD_BYTES:
                flush()
    wrong += [f"{name}: missing" for name in sorted(missing)]
    if wrong:
        raise CrrlError(
            "The pushed weights do not fit the served model, which keeps the old ones: " + "; ".join(wrong[:8]),
            "Push the same architecture, with Hugging Face state-dict names and adapters merged.",
        )
    flush()
    (target / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


PREFIX = "base_model.model."
"""Of the names in an adapter's file."""
SIDES = ("lora_A", "lora_B")


def write_adapter(source: WeightSource, shapes: dict[str, tuple[int, ...]], target: Path) -> None:
    """Makes the folder `target`: the adapter of `source`. `shapes`: of its base.

    Raises:
        CrrlError: there is no adapter, a layer is unknown, a shape does not fit its base, a matrix is missing, or a
            value is not finite. There is no folder.
    """
    adapter = source.adapter()
    if adapter is None:
        raise CrrlError("All weights are trained: there is no adapter to push.", "Leave engine.transport out.")
    rank, wrong = int(adapter.config["r"]), []
    found: dict[str, torch.Tensor] = {}
    for name, tensor in adapter.tensors:
        layer, _, side = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        whole = shapes.get(f"{layer}.weight")
        if whole is None or side not in SIDES:
            wrong.append(f"{name}: the served model has no such layer")
        elif tuple(tensor.shape) != (wanted := (rank, whole[1]) if side == "lora_A" else (whole[0], rank)):
            wrong.append(f"{name}: shape {tuple(tensor.shape)}, the served model's layer takes {wanted}")
        elif not torch.isfinite(tensor).all():
            wrong.append(f"{name}: holds NaN or infinity")
        else:
            found[name] = tensor.detach().to("cpu", copy=True).contiguous()
    layers = {name.rpartition(".lora_")[0] for name in found}
    both = {f"{layer}.{side}.weight" for layer in layers for side in SIDES}
    wrong += [f"{name}: missing" for name in sorted(both - set(found))]
    if wrong or not found:
        raise CrrlError(
            "The pushed adapter does not fit the served model, which keeps the old one: "
            + ("; ".join(wrong[:8]) or "it is empty"),
            "Push adapters of plain LoRA, of one rank, on the model that is served.",
        )
    _write_adapter(adapter.config, found, target)


def linear_layers(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """The last parts of the names of what may be a linear layer inside the model."""
    inside = [name for name, shape in shapes.items() if ".layers." in name and len(shape) == 2]
    return sorted({name.removesuffix(".weight").rpartition(".")[2] for name in inside if name.endswith(".weight")})


def write_identity(shapes: dict[str, tuple[int, ...]], target: Path) -> None:
    """Makes the folder of an adapter that changes nothing. Raises CrrlError: the model has no layer to put it on."""
    name = next((name for name in sorted(shapes) if name.endswith("_proj.weight") and len(shapes[name]) == 2), None)
    if name is None or ".layers." not in name:
        raise CrrlError("This model has no linear layer that vLLM adapts.", "Leave engine.transport out.")
    layer, (outputs, inputs) = name.removesuffix(".weight"), shapes[name]
    sides = {"lora_A": torch.zeros(1, inputs), "lora_B": torch.zeros(outputs, 1)}
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": [layer]}
    _write_adapter(config, {f"{PREFIX}{layer}.{side}.weight": value for side, value in sides.items()}, target)


def _write_adapter(config: dict[str, Any], tensors: dict[str, torch.Tensor], target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (target / CONFIG).write_text(json.dumps(config, default=str))
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})


def _tied(folder: Path) -> set[str]:
    """Names that are another tensor's: they are in a state dict, and not in the files."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    return {"lm_head.weight"} if config.get("tie_word_embeddings", text.get("tie_word_embeddings")) else set()
