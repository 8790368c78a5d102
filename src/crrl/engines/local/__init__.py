"""The local engine: `engine` is the loop, `runner` the module behind it, `fused` the forward pass of
Llama-shaped models, `attention` how rows share a pass, `prefix` what is kept for later requests.
"""

from crrl.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
