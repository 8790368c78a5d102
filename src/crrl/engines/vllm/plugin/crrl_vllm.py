"""What CodeRepairRL adds to a vLLM server. It runs in vLLM's environment, and imports nothing of ours. With this folder
on the server's PYTHONPATH it is installed.

- Every chunk of a stream tells which weights made its tokens. vLLM tells it in the last one only; a generation that is
  cut off has no last one, and its tokens are trained like any others (invariant 6).
- `Worker.crrl_load` and `crrl_receive` load weights whole. On a CPU vLLM computes the head from a packed copy; where
  the head is the embedding, `reload_weights` leaves the copy as it was, and the policy is neither the old one nor the
  new one.
- `Worker.crrl_adapter` puts an adapter in the place of the one that is served. vLLM's own way reads the folder again at
  every request from then on.
"""

from __future__ import annotations

import functools
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct(">I")


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
        _reload(self, weights_path=folder)

    def crrl_receive(self, address: str, key: str) -> None:
        """The same, from the trainer's `sender.Sender`."""
        with _connected(address) as connection:
            connection.sendall(key.encode())
            _reload(self, weights_iterator=_tensors(connection))

    def crrl_adapter(self, folder: str) -> None:
        """The adapter in a folder, in the place of the one that was loaded last."""
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        worker: Any = self
        number = max(worker.list_loras())
        worker.add_lora(LoRARequest("policy-adapter", number, folder, load_inplace=True))


def _reload(worker: Any, **weights: Any) -> None:
    worker.reload_weights(**weights)
    for layer in worker.model_runner.get_model().modules():
        if type(layer).__name__ == "ParallelLMHead" and hasattr(layer, "cpu_linear"):
            layer.quant_method.process_weights_after_loading(layer)


def _connected(address: str) -> socket.socket:
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


def _tensors(connection: socket.socket) -> Iterator[tuple[str, Any]]:
    """Each in memory of its own: vLLM keeps them until their layer is whole. Raises ConnectionError: they break off."""
    import torch

    while size := _LENGTH.unpack(_read(connection, _LENGTH.size))[0]:
        told = json.loads(bytes(_read(connection, size)))
        dtype = getattr(torch, told["dtype"])
        count = functools.reduce(int.__mul__, told["shape"], 1)
        tensor = torch.empty(0, dtype=dtype)
        if count:
            tensor = torch.frombuffer(_read(connection, count * dtype.itemsize), dtype=dtype)
        yield told["name"], tensor.reshape(told["shape"])


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = connection.recv_into(view[got:])
        if not count:
            raise ConnectionError("the trainer broke off while it sent weights")
        got += count
    return data
