"""The trainer's end of `engine.transport=stream`: gives the tensors of a folder to each worker of a server.

One connection a worker. It sends the key of this push, and gets, tensor after tensor, a header (four bytes of length,
big-endian, and JSON: name, dtype, shape) and the bytes; a length of zero ends it. The other end is
`plugin/crrl_vllm.py`. Whoever has not got the key gets nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open

_LENGTH = struct.Struct(">I")
KEY_BYTES = 64


class Sender:
    """Listens as long as it is entered.

    Args:
        folder: with the *.safetensors to give.
        where: a private folder, for a socket in it; or the address of this machine, for TCP.
    """

    def __init__(self, folder: Path, where: Path | str) -> None:
        self._folder = folder
        self.key = secrets.token_hex(KEY_BYTES // 2)
        if isinstance(where, Path):
            self.address = str(where / f"weights-{secrets.token_hex(4)}.sock")
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(self.address)
            Path(self.address).chmod(0o600)
        else:
            family = socket.AF_INET6 if ":" in where else socket.AF_INET
            self._listening = socket.create_server((where, 0), family=family)
            self.address = f"{where}:{self._listening.getsockname()[1]}"
        self._listening.listen()

    def __enter__(self) -> Sender:
        self._thread = threading.Thread(target=self._accept, name="crrl-weights", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._listening.close()
        self._thread.join()
        if self.address.startswith("/"):
            Path(self.address).unlink(missing_ok=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._give, args=(connection,), name="crrl-weights", daemon=True).start()

    def _give(self, connection: socket.socket) -> None:
        """A worker that goes away is no fault of ours: the server says why."""
        with contextlib.suppress(OSError), connection:
            said = connection.recv(KEY_BYTES, socket.MSG_WAITALL)
            if not hmac.compare_digest(said, self.key.encode()):
                return
            for file in sorted(self._folder.glob("*.safetensors")):
                with safe_open(str(file), "pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118 - no mapping
                        _send(connection, name, tensors.get_tensor(name))
            connection.sendall(_LENGTH.pack(0))


def _send(connection: socket.socket, name: str, tensor: torch.Tensor) -> None:
    told: dict[str, Any] = {"name": name, "dtype": str(tensor.dtype).partition(".")[2], "shape": list(tensor.shape)}
    header = json.dumps(told).encode()
    connection.sendall(_LENGTH.pack(len(header)) + header)
    if tensor.numel():
        connection.sendall(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def local_address(host: str, port: int) -> str:
    """The address of this machine that `host` reaches. Raises OSError."""
    with socket.create_connection((host, port), timeout=10.0) as connection:
        found: str = connection.getsockname()[0]
        return found
