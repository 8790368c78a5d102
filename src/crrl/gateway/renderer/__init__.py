"""The renderer: messages to token ids and back, by recipe key.

    renderer = load_renderer(Path("models/my-model"), "qwen3")

`renderer.key` names
- a family of the `renderers` package (`families.py`), written out by hand there; KEY-thinking where it can reason or
  not. `auto` takes the family by the model's exact name, and proves it on the model's own chat template;
- `generic`: any chat template that only ever appends, which is proved on it at start (`generic.py`, `proof.py`);
  `generic-text`: the same for agents that send no tools.

A family is one line in `families.py`; a form of tool calls is one class in `calls.py`.
"""

from crrl.gateway.renderer.api import Parsed, Renderer, RenderError
from crrl.gateway.renderer.load import KEYS, load_renderer

__all__ = ["KEYS", "Parsed", "RenderError", "Renderer", "load_renderer"]
