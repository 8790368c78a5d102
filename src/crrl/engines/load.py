"""A model folder on disk -> model and tokenizer, or an error that explains the folder's fault.

The folder of a LoRA adapter (`adapter.py`) is one, too: its base with the adapter merged into it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from crrl.engines import adapter
from crrl.engines.device import device_of, dtype_of
from crrl.engines.local import LocalEngine
from crrl.errors import CrrlError, UsageError

disable_progress_bar()  # one shard in a second; bars would tear the run's own display


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of the vocabulary, merges, special tokens and chat template: equal hashes tokenise and render alike."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    body = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(f"{body}\0{tokenizer.chat_template}".encode()).hexdigest()[:16]


def tokenizer_folder(path: str | Path, base: str = "") -> Path:
    """The folder itself, or that of its base where an adapter came without a tokenizer. Raises CrrlError."""
    folder = _folder(path)
    if not _has_tokenizer(folder) and adapter.is_adapter(folder):
        return adapter.base_folder(folder, base)
    return folder


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"))


def load_tokenizer(path: str | Path, base: str = "") -> PreTrainedTokenizerBase:
    """`base`: see `load_model`. Raises: CrrlError: there is no folder, no tokenizer or no chat template in it."""
    folder = tokenizer_folder(path, base)
    if not _has_tokenizer(folder):
        raise CrrlError(
            f"The model folder {folder} has no tokenizer (tokenizer.json).",
            "Copy the model's tokenizer files into it, or save it with tokenizer.save_pretrained(folder).",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as e:
        raise CrrlError(
            f"The tokenizer in {folder} cannot be read: {_first_line(e)}",
            "Copy the model's tokenizer files again.",
        ) from e
    if not tokenizer.chat_template:
        raise CrrlError(
            f"The tokenizer in {folder} has no chat template.",
            "Put the model's chat_template.jinja into the folder (base models have none: take that of the instruct "
            "model of the same family, or train one with `crrl sft`).",
        )
    return tokenizer


def copy_tokenizer(source: Path, target: Path, base: str = "") -> None:
    """Everything in a model folder except weights: tokenizer, templates, and the settings that name its family."""
    weights = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", ".*", "global_step*")
    shutil.copytree(tokenizer_folder(source, base), target, ignore=shutil.ignore_patterns(*weights))


def load_model(path: str | Path, *, dtype: torch.dtype = torch.float32, base: str = "") -> PreTrainedModel:
    """With `sdpa` attention, or `eager` where the model has no other; adapters merged.

    Args:
        base: of an adapter, where its base model is now ("": where it was).

    Raises: CrrlError: no folder, no config, an unknown architecture, damaged or foreign weights.
    """
    folder = _folder(path)
    if adapter.is_adapter(folder):
        return adapter.merged(load_model(adapter.base_folder(folder, base), dtype=dtype), folder)
    if base:
        raise UsageError(f"model.base={base} would be ignored: {folder} is a whole model.", "Leave model.base out.")
    config = folder / "config.json"
    if not config.exists():
        raise CrrlError(
            f"{folder} is not a Hugging Face model folder: it has no config.json.",
            "Give the folder that save_pretrained wrote (for a trainer's checkpoint: the folder with config.json).",
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise CrrlError(
            f"{folder} has no weights (*.safetensors).",
            "Save the model with save_pretrained; pickled .bin weights are not read, because loading them runs code.",
        )
    for file in weights:
        try:
            with safe_open(str(file), "pt") as f:
                f.keys()
        except (SafetensorError, OSError) as e:
            raise CrrlError(
                f"{file} is damaged: {_first_line(e)}",
                "Copy or download it again, or resume from an earlier checkpoint.",
            ) from e
    try:
        config_of = AutoConfig.from_pretrained(str(folder), local_files_only=True).get_text_config()
        # transformers would choose sdpa for such a model, and fail in its first forward pass.
        capped = getattr(config_of, "attn_logit_softcapping", None) is not None
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation="eager" if capped else None,
        )
    except Exception as e:
        raise CrrlError(
            f"{folder} cannot be loaded as a causal language model: {_first_line(e)}",
            "Check config.json: architecture and sizes must be those of the weights.",
        ) from e
    model, report = loaded
    foreign = [f"{kind.split('_')[0]} {name}" for kind in ("missing_keys", "unexpected_keys") for name in report[kind]]
    foreign += [f"wrong shape {entry[0]}" for entry in report["mismatched_keys"]]
    if foreign:
        raise CrrlError(
            f"The weights in {folder} are not those of its config.json: " + ", ".join(sorted(foreign)[:6]),
            "Put weights and config.json of one and the same model there.",
        )
    return model


def load_local(
    path: str | Path,
    *,
    context: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    base: str = "",
    **options: Any,
) -> LocalEngine:
    """The local engine on a model folder. `context` defaults to the model's own; `device` and `dtype` are words of the
    settings (`engines.device`); `base`: see `load_model`; `options`: see `LocalEngine`."""
    where = device_of(device)
    number = dtype_of(dtype, where, "engine.dtype")
    tokenizer = load_tokenizer(path, base)
    model = load_model(path, dtype=number, base=base)
    longest = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 0)
    limit = context_of(longest, context, path)
    named, backend = tokenizer_hash(tokenizer), getattr(tokenizer, "backend_tokenizer", None)
    options["tokenizer"] = backend.to_str() if backend is not None else ""
    return LocalEngine(model, named, context=limit, device=where, dtype=number, **options)


def context_of(longest: int, wanted: int | None, path: str | Path) -> int:
    """Most tokens of a request to the model in `path`, which was made for `longest` positions (0: it does not say).
    Raises CrrlError."""
    if wanted is not None and longest and wanted > longest:
        raise CrrlError(
            f"engine.context={wanted}, but the model in {path} was made for {longest} positions.",
            f"Use engine.context={longest} or less.",
        )
    if not (wanted or longest):
        raise CrrlError(f"The model in {path} does not say its context length.", "Set engine.context.")
    return wanted or longest


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise CrrlError(
            f"There is no model folder {folder}.",
            "Nothing is downloaded at run time: give the path of a folder with config.json, weights and tokenizer.",
        )
    return folder


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
