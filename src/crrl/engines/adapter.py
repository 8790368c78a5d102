"""Folders of LoRA adapters, as PEFT writes them (arXiv:2106.09685): found, checked, put on their base model.

`base.json` beside the adapter names the base and has its fingerprint, so an adapter never lands on another model; the
folders of other programs have none, and are held to names and shapes. What a merged weight W + delta cannot express
(DoRA, biases, whole modules, other methods than LoRA) is refused by name.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from crrl.engines.fingerprint import BASE, fingerprint
from crrl.errors import CrrlError
from crrl.models import SHIPPED, model_folder

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
AGAIN = "Copy the adapter again."
PLAIN_STARTS = (True, False, "gaussian", "orthogonal")
"""`init_lora_weights` that leave the base as it is."""
EXPRESSED = {
    *("r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "use_rslora"),
    *("layers_to_transform", "layers_pattern", "fan_in_fan_out", "lora_dropout", "init_lora_weights"),
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "megatron_core", "runtime_config"),
}
"""Fields of a LoRA configuration that may have any value. All others must have their defaults."""


@dataclass(frozen=True)
class Base:
    """`model`: a folder, or the name of a shipped policy, whose folder is where the package is installed."""

    model: str
    fingerprint: str

    @classmethod
    def at(cls, folder: Path) -> Base:
        shipped = [name for name in SHIPPED if folder.resolve() == model_folder(name).resolve()]
        return cls(shipped[0] if shipped else str(folder.absolute()), fingerprint(folder))

    @classmethod
    def of(cls, model: Any) -> Base | None:
        """Of a model with an adapter. None: its base came from no folder."""
        path = model.peft_config["default"].base_model_name_or_path
        return cls.at(Path(path)) if path else None

    def write(self, folder: Path) -> None:
        (folder / BASE).write_text(json.dumps(asdict(self), indent=1))


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def base_folder(folder: Path, moved: str = "") -> Path:
    """The base of the adapter in `folder`, or the one that the user names because it was moved.

    Raises:
        CrrlError: it is not there, or is not what the adapter was trained on.
    """
    named, known = _recorded(folder)
    base = Path(moved) if moved else model_folder(named)
    if is_adapter(base):
        raise CrrlError(
            f"The base of the adapter in {folder}, {base}, is itself an adapter.",
            f"Merge that one first: crrl export {base} FOLDER --merged",
        )
    if not (base / "config.json").is_file():
        raise CrrlError(
            f"The base model of the adapter in {folder} is not at {base}.",
            "Write model.base=FOLDER: where the base model is now. Nothing is downloaded at run time.",
        )
    if known is not None and (now := fingerprint(base)) != known:
        raise CrrlError(
            f"The adapter in {folder} was trained on another base model: fingerprint {known}; {base} has {now}.",
            "Write model.base=FOLDER: where the base that it was trained on is.",
        )
    return base


def _recorded(folder: Path) -> tuple[str, str | None]:
    """The base's folder or name, and its fingerprint where it is known."""
    file = folder / BASE
    try:
        if file.is_file():
            record = json.loads(file.read_text())
            return str(record["model"]), str(record["fingerprint"])
        file = folder / CONFIG
        return str(json.loads(file.read_text())["base_model_name_or_path"]), None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CrrlError(f"{file} cannot be read: {type(error).__name__}: {error}.", AGAIN) from error


def put_on(model: PreTrainedModel, folder: Path, *, trained: bool) -> PeftModel:
    """Puts the adapter in `folder` on `model`, its base.

    Raises:
        CrrlError: it is damaged, no plain LoRA, or was made for a model with other layers.
    """
    from peft.utils import set_peft_model_state_dict  # two seconds, which models without adapters do not need

    config = configuration(folder)
    file = folder / WEIGHTS
    try:
        tensors = load_file(str(file))
    except FileNotFoundError:
        raise CrrlError(
            f"The adapter folder {folder} has no {WEIGHTS}.",
            "Save it with save_pretrained; pickled .bin weights are not read, because loading them runs code.",
        ) from None
    except (SafetensorError, OSError) as error:
        raise CrrlError(f"{file} is damaged: {error}", "Copy it again, or use an earlier checkpoint.") from error
    other = f"The adapter in {folder} does not fit its base model"
    remedy = "Write model.base=FOLDER: the model that it was trained on."
    try:
        config.inference_mode = not trained
        made: Any = wrapped(model, config)
        report: Any = set_peft_model_state_dict(made, tensors)
    except (ValueError, RuntimeError) as error:
        raise CrrlError(f"{other}: {' '.join(str(error).split())[:300]}", remedy) from error
    foreign = [*report.unexpected_keys, *(key for key in report.missing_keys if ".lora_" in key)]
    if foreign:
        raise CrrlError(f"{other}: {', '.join(sorted(foreign)[:4])}", remedy)
    if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise CrrlError(f"{file} holds NaN or infinity: {', '.join(bad[:4])}", "Use an earlier checkpoint.")
    require_mergeable(made)
    peft_model: PeftModel = made
    return peft_model


def wrapped(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """PEFT's model with a new adapter. Raises ValueError: it cannot be adapted so."""
    from peft import get_peft_model

    with warnings.catch_warnings():  # PEFT asks transformers for a name that it will drop
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        made: Any = get_peft_model(model, config)
    peft_model: PeftModel = made
    return peft_model


def require_mergeable(model: PeftModel) -> None:
    """Raises CrrlError: W + delta would change more than the adapted layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole: Any = model.get_base_model()
    shared = whole.get_input_embeddings().weight
    for name, module in whole.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        layer: Any = module.get_base_layer()
        if not isinstance(layer, nn.Linear | Conv1D) or layer.weight is shared:
            what = "shares its weights with the embeddings" if layer.weight is shared else type(layer).__name__
            raise CrrlError(
                f"An adapter of {name} ({what}) cannot be merged.",
                "Leave it out: adapt linear layers inside the model.",
            )


def configuration(folder: Path) -> LoraConfig:
    """Raises CrrlError: it cannot be read, or is no LoRA that W + delta expresses."""
    from peft import LoraConfig

    file = folder / CONFIG
    try:
        raw = json.loads(file.read_text())
        kind = raw["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CrrlError(f"{file} cannot be read: {type(error).__name__}: {error}.", AGAIN) from error
    merging = "Merge it into its base with the program that made it, and use the merged model."
    if kind != "LORA":
        raise CrrlError(f"The adapter in {folder} is {kind}, not LoRA.", merging)
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError) as error:
        raise CrrlError(f"{file} is no LoRA configuration: {error}", AGAIN) from error
    plain, given = LoraConfig().to_dict(), config.to_dict()
    odd = [k for k, v in given.items() if k not in EXPRESSED and (v or None) != (plain.get(k) or None)]
    if config.init_lora_weights not in PLAIN_STARTS:
        odd.append("init_lora_weights")
    if odd:
        told = ", ".join(f"{key}={getattr(config, key)}" for key in sorted(odd))
        raise CrrlError(f"The adapter in {folder} is more than plain LoRA: {told}.", merging)
    return config


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`model`, its weights changed in place to W + delta. Raises CrrlError."""
    peft_model: Any = put_on(model, folder, trained=False)
    whole: PreTrainedModel = peft_model.merge_and_unload()
    return whole.requires_grad_(True)  # PEFT froze it
