"""A recipe key and a tokenizer -> a renderer, or an error that says what to write instead.

Each way to load one takes (source, key); `RENDERERS` says which key goes which way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from renderers.base import MODEL_RENDERER_MAP  # type: ignore[import-untyped]
from tokenizers import Tokenizer

from crrl.errors import CrrlError, UsageError
from crrl.gateway.canonical import Message
from crrl.gateway.renderer.api import FastTokenizer, RenderError
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.renderer.family import FamilyRenderer
from crrl.gateway.renderer.generic import GenericRenderer
from crrl.gateway.renderer.places import TOOLS
from crrl.gateway.renderer.proof import proved
from crrl.gateway.renderer.template import ChatTemplate, Refusal


def family(source: Any, key: str) -> FamilyRenderer:
    """A family of the `renderers` package."""
    return _family(_fast(source), key)


def auto(source: Any, key: str) -> FamilyRenderer:
    """The family of the model's exact name, proved on the model's own template."""
    return _auto(_with_template(source, key))


def generic(source: Any, key: str) -> GenericRenderer:
    """Any template that only appends, with tools (`generic`) or for text alone."""
    return _generic(_with_template(source, key), key)


def _family(tokenizer: FastTokenizer, key: str) -> FamilyRenderer:
    try:
        return FamilyRenderer(tokenizer, key)
    except (AssertionError, ValueError, Refusal, RenderError) as error:
        raise UsageError(
            f"renderer.key={key} does not fit this model's tokenizer: {error}",
            "Write the renderer of the model's family, or renderer.key=generic, which uses the model's own template.",
        ) from error
    except Exception as error:  # harmony's own, when its vocabulary is not on this machine
        if type(error).__name__ != "HarmonyError":
            raise
        raise CrrlError(
            f"renderer.key={key} needs the vocabulary file of openai-harmony, which is not here: {error}",
            "Put o200k_base.tiktoken into a folder and name it in TIKTOKEN_ENCODINGS_BASE.",
        ) from error


def _generic(tokenizer: Any, key: str) -> GenericRenderer:
    try:
        return proved(tokenizer, key, tools=key == "generic")
    except (Refusal, RenderError) as refusal:
        remedy = "Write the renderer of the model's family, or give the model a chat template that only appends."
        if key == "generic" and _proves(tokenizer, "generic-text"):
            remedy = "Without tools it is sound: write renderer.key=generic-text if your agent sends none. " + remedy
        raise UsageError(
            f"renderer.key={key}: this model's chat template cannot be used. {refusal}", remedy
        ) from refusal


def _proves(tokenizer: Any, key: str) -> bool:
    try:
        proved(tokenizer, key, tools=False)
    except (Refusal, RenderError):
        return False
    return True


def _auto(tokenizer: Any) -> FamilyRenderer:
    """The family by exact name; with or without reasoning as the model's own template has it, which must render the
    same first prompts."""
    name = model_name(tokenizer.name_or_path)
    family = MODEL_RENDERER_MAP.get(name)
    keys = [key for key, f in FAMILIES.items() if f.name == family]
    if not keys:
        raise UsageError(
            f"renderer.key=auto: {name or tokenizer.name_or_path} is not a model that any family knows by name.",
            "Write the family's key (a fine-tune does not name its base), or renderer.key=generic.",
        )
    fast = _fast(tokenizer)
    conversations = ([Message("user", "Go.")], [Message("system", "Repair."), Message("user", "Go.")])
    asked = [(messages, tools) for messages in conversations for tools in (None, TOOLS)]
    try:
        template = ChatTemplate(tokenizer)
        own = [template.render(messages, tools, answer=True) for messages, tools in asked]
    except (Refusal, RenderError) as refusal:
        raise UsageError(
            f"renderer.key=auto: this model's chat template cannot be used. {refusal}",
            f"Copy the model's chat template again, or write renderer.key={keys[0]}.",
        ) from refusal
    for renderer in (_family(fast, key) for key in keys):
        if [fast.decode(renderer.prompt(messages, tools)) for messages, tools in asked] == own:
            return renderer
    raise UsageError(
        f"renderer.key=auto: the chat template of {name} does not render as {' or '.join(keys)} does.",
        f"Write renderer.key={keys[0]} if that is how the model is to be prompted, or renderer.key=generic.",
    )


def model_name(path: str) -> str:
    """`Org/Name` of a folder of the Hugging Face cache, or of a folder that is called so."""
    for part in Path(path).parts:
        if part.startswith("models--") and part.count("--") == 2:
            return part.removeprefix("models--").replace("--", "/")
    return "/".join(Path(path).parts[-2:])


def _fast(source: Any) -> FastTokenizer:
    if isinstance(source, Tokenizer):
        return FastTokenizer(source)
    if isinstance(source, str | Path):
        folder = Path(source)
        if not (folder / "tokenizer.json").is_file():
            raise CrrlError(f"{folder} has no tokenizer.json.", "Save the model's fast tokenizer into it.")
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # it raises no other class
            raise _damaged(folder / "tokenizer.json", error) from error
        return FastTokenizer(tokenizer, model_name(str(folder)), _template_of(folder))
    return FastTokenizer(source.backend_tokenizer, model_name(source.name_or_path), source.chat_template or "")


def _template_of(folder: Path) -> str:
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        if file.is_file():
            return file.read_text()
        file = config
        told = json.loads(config.read_text()) if config.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    template = told.get("chat_template") if isinstance(told, dict) else None
    return template if isinstance(template, str) else ""


def _damaged(file: Path, error: Exception) -> CrrlError:
    return CrrlError(f"{file} cannot be read: {error}", "Copy the model's tokenizer files again.")


def _with_template(source: Any, key: str) -> Any:
    if isinstance(source, str | Path):
        from crrl.engines.load import load_tokenizer  # transformers and torch: seconds, which other keys do not need

        source = load_tokenizer(source)
    if not getattr(source, "chat_template", None) or not getattr(source, "is_fast", False):
        raise UsageError(
            f"renderer.key={key} needs a fast tokenizer with a chat template, and this one has none.",
            "Put the model's chat_template.jinja beside its tokenizer.json, or write the renderer of its family.",
        )
    return source
