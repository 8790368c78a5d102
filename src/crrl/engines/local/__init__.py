"""The local engine: `engine` is the loop, `runner` the module behind it, `attention` how rows share a
pass."""

from crrl.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
