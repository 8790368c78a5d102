"""The renderer: messages to token ids and back, by recipe key.

    renderer = load_renderer(Path("models/my-model"), "qwen3")

`renderer.key` names
- a family of the `renderers` package (`families.py`), written out by hand there; KEY-thinking where it can reason or
  not. `auto` takes the family by the model's exact name, and proves it on the model's own chat template;
- `generic`: any chat template that only ever appends, which is proved on it at start (`generic.py`, `proof.py`);
  `generic-text`: the same for agents that send no tools.

Whatever the key, `habits.py` proves at start that the renderer takes what agents do.

A family is one line in `families.py`; a form of tool calls is one class in `calls.py`. A renderer of your own is one
file with a class like `api.Renderer`, made with (source, key), and one line: here in `RENDERERS`, or in a distribution
of your own (docs/plugins.md).
"""

from __future__ import annotations

from typing import Any

from crrl import registry
from crrl.errors import UsageError
from crrl.gateway.renderer import habits
from crrl.gateway.renderer.api import Parsed, Renderer, RenderError
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.renderer.lenient import READS
from crrl.gateway.renderer.template import Refusal

RENDERERS = {
    **dict.fromkeys(FAMILIES, "crrl.gateway.renderer.load:family"),
    "auto": "crrl.gateway.renderer.load:auto",
    "generic": "crrl.gateway.renderer.load:generic",
    "generic-text": "crrl.gateway.renderer.load:generic",
}


def load_renderer(source: Any, key: str, calls: str = "strict") -> Renderer:
    """A renderer for a model folder, a `tokenizers.Tokenizer` (families only) or a fast transformers tokenizer.
    `calls`: `strict`, as the family writes them, or `lenient` (`lenient.py`).

    Raises:
        UsageError: unknown key, a tokenizer without the family's special tokens, a template that breaks; a renderer
            that loses or moves something agents send (`habits.py`).
    """
    part = registry.find("crrl.renderers", key)
    renderer: Renderer = part.require(part.make(source, key), Renderer)
    try:
        habits.check(renderer)
    except Refusal as refusal:
        raise UsageError(
            f"renderer.key={key}: with this model's tokenizer it does not take what agents do. {refusal}",
            "Write another renderer.key: the model's own family, or generic for the model's own template.",
        ) from refusal
    renderer.reads = READS[calls]
    return renderer


__all__ = ["RENDERERS", "Parsed", "RenderError", "Renderer", "load_renderer"]
