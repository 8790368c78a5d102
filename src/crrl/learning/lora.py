"""The model that a trainer trains: all weights of it, or a LoRA adapter on it (arXiv:2106.09685).

A new adapter begins as the identity, so the first policy is the base model. An adapter's folder as `model.path` is gone
on with under `adapter=lora`, and merged into its base where all weights are trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel

from crrl.conf.schema import Adapter
from crrl.engines import adapter as folders
from crrl.engines.load import load_model
from crrl.errors import CrrlError, UsageError


def trainable(
    source: Path, adapter: Adapter, seed: int, *, dtype: torch.dtype = torch.float32, base: str = ""
) -> PreTrainedModel:
    """The model in `source` (a whole one, or an adapter's folder), ready to be trained.

    Args:
        seed: of a new adapter's weights.
        base: of an adapter's folder, where its base model is now ("": where it was).

    Raises:
        UsageError: the adapter's settings do not fit the model, or the adapter in `source`.
        CrrlError: the folder is damaged, or of another base.
    """
    if adapter.name == "none":
        return load_model(source, dtype=dtype, base=base)
    if not folders.is_adapter(source):
        return new(load_model(source, dtype=dtype, base=base), adapter, seed)
    found = folders.configuration(source)
    require_same(adapter, found, source)
    on = folders.base_folder(source, base)
    return _trained(folders.put_on(load_model(on, dtype=dtype), source, trained=True), on)


def new(model: PreTrainedModel, adapter: Adapter, seed: int) -> PreTrainedModel:
    """Raises UsageError: no such layers, or layers that cannot be adapted."""
    wanted = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=0.0,
        target_modules=list(adapter.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    folder = Path(model.name_or_path or "")
    remedy = "Write the last parts of its linear layers' names (q_proj, up_proj), or leave it out: all of them."
    told = f"adapter.targets={','.join(adapter.targets)}"
    if foreign := [name for name in adapter.targets if not _named(model, name)]:
        raise UsageError(f"{told}: the model has no modules {', '.join(foreign)}.", remedy)
    if _head(model) in adapter.targets:
        raise UsageError(
            f"{told}: the output layer cannot be adapted, log-probs are computed from its weights.", remedy
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            made = folders.wrapped(model, wanted)
        except ValueError as error:
            raise UsageError(f"{told}: {' '.join(str(error).split())[:200]}", remedy) from error
    try:
        folders.require_mergeable(made)
    except CrrlError as error:
        raise UsageError(f"{told}: {error.message}", error.remedy) from error
    return _trained(made, folder)


def require_same(adapter: Adapter, found: LoraConfig, source: Path) -> None:
    """Raises UsageError: the settings ask for another adapter than the one in `source`."""
    for key, value in {"r": found.r, "alpha": found.lora_alpha}.items():
        if (asked := getattr(adapter, key)) != value:
            raise UsageError(
                f"adapter.{key}={asked}, but the adapter in {source} has {value}.",
                f"To go on with it: adapter.{key}={value}. For a new one, first: crrl export {source} FOLDER --merged",
            )
    targets = found.target_modules or ""
    if adapter.targets and set(adapter.targets) != ({targets} if isinstance(targets, str) else set(targets)):
        raise UsageError(
            f"adapter.targets={','.join(adapter.targets)}, but the adapter in {source} has others.",
            "Leave adapter.targets out to go on with it.",
        )


def _trained(made: Any, base: Path) -> PreTrainedModel:
    """Where its base is goes into every checkpoint; the same adapter is saved as the same bytes (peft holds its targets
    as a set, which has no order)."""
    saved = (base / "config.json").is_file()
    config = made.peft_config["default"]
    config.base_model_name_or_path = str(base.absolute()) if saved else ""
    if not isinstance(config.target_modules, str):
        config.target_modules = sorted(config.target_modules)
    model: PreTrainedModel = made
    return model


def _named(model: PreTrainedModel, target: str) -> bool:
    return any(name == target or name.endswith(f".{target}") for name, _ in model.named_modules())


def _head(model: PreTrainedModel) -> str:
    head = model.get_output_embeddings()
    return next((name.rpartition(".")[2] for name, module in model.named_modules() if module is head), "")
