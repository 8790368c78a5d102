"""What CodeRepairRL adds to a vLLM server. It runs in vLLM's environment, and imports nothing of ours. With this folder
on the server's PYTHONPATH it is installed.

- Every chunk of a stream tells which weights made its tokens. vLLM tells it in the last one only; a generation that is
  cut off has no last one, and its tokens are trained like any others (invariant 6).
- `Worker.crrl_load` loads weights whole. On a CPU vLLM computes the head from a packed copy; where the head is the
  embedding, `reload_weights` leaves the copy as it was, and the policy is neither the old one nor the new one.
"""

from __future__ import annotations

import functools
from typing import Any


def register() -> None:
    """vLLM calls it in each of its processes, and may do so more than once."""
    from vllm.v1.engine.output_processor import RequestState  # type: ignore[import-not-found]

    made = RequestState._new_completion_output
    if hasattr(made, "__wrapped__"):
        return

    @functools.wraps(made)
    def with_versions(self: Any, *given: Any, **named: Any) -> Any:
        output = made(self, *given, **named)
        output.weight_versions = self._weight_version_spans()
        return output

    RequestState._new_completion_output = with_versions


class Worker:
    """vLLM's workers have these methods, too (--worker-extension-cls)."""

    def crrl_there(self) -> str:
        return "yes"

    def crrl_load(self, folder: str) -> None:
        """All weights of a model folder, in the place of the old ones."""
        worker: Any = self
        worker.reload_weights(weights_path=folder)
        for layer in worker.model_runner.get_model().modules():
            if type(layer).__name__ == "ParallelLMHead" and hasattr(layer, "cpu_linear"):
                layer.quant_method.process_weights_after_loading(layer)
