"""How pushed weights get into a vLLM server (`engine.transport`). Each transport writes what a push brings into a
folder, checks all of it there, and then has the server's workers take it in, between two decode steps.

| transport | what the workers take in |
|---|---|
| `disk` | the folder itself, which they must see |
| `stream` | the folder's tensors over a socket: one of this machine's for a server of the run's own, TCP for others |
| `adapter` | a LoRA adapter's folder beside base weights that never change; they must see it |

Invariant 7: a push that cannot be right is refused while it is written, before any server hears of it. The folder is
also what a server that died is started again from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import httpx

from crrl.engines import adapter
from crrl.engines.api import WeightSource
from crrl.engines.vllm import weights
from crrl.engines.vllm.protocol import message_of
from crrl.engines.vllm.sender import Sender, local_address
from crrl.errors import CrrlError, UsageError

ADAPTER = "policy-adapter"
"""The name under which a server has the adapter that is trained."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM makes room for."""


class Transport(Protocol):
    def arguments(self) -> list[str]:
        """Of a server that takes weights this way."""
        ...

    def variables(self) -> dict[str, str]: ...

    def model(self, served: str) -> str:
        """The name that requests ask for, of a server that serves its model as `served`."""
        ...

    def start_folder(self, serves: Path) -> Path:
        """What a server is started on that will serve `serves`."""
        ...

    def begin(self, http: httpx.Client, serves: Path) -> None:
        """A server that was started on `start_folder(serves)` serves it. Raises CrrlError."""
        ...

    def write(self, source: WeightSource, target: Path) -> None:
        """Makes the folder `target`. Raises CrrlError: the weights do not fit; there is no folder."""
        ...

    def load(self, http: httpx.Client, folder: Path) -> None:
        """All workers of a paused server take in `folder`. Raises CrrlError, httpx.HTTPError: it may be half done."""
        ...


class Disk:
    """Args:
    model: the folder that a server starts on. dtype: of its weights.
    """

    def __init__(self, model: Path, dtype: str) -> None:
        self._model, self._dtype = model, dtype
        self._shapes = weights.shapes_in(model)

    def arguments(self) -> list[str]:
        return []

    def variables(self) -> dict[str, str]:
        return {}

    def model(self, served: str) -> str:
        return served

    def start_folder(self, serves: Path) -> Path:
        return serves

    def begin(self, http: httpx.Client, serves: Path) -> None:
        pass

    def write(self, source: WeightSource, target: Path) -> None:
        weights.write(source, self._model, self._shapes, target, self._dtype)

    def load(self, http: httpx.Client, folder: Path) -> None:
        call_workers(http, "crrl_load", folder=str(folder))


class Stream(Disk):
    """Args:
    private: a folder that nobody else reaches, for sockets.
    """

    def __init__(self, model: Path, dtype: str, private: Path) -> None:
        super().__init__(model, dtype)
        self._private = private

    def load(self, http: httpx.Client, folder: Path) -> None:
        own = isinstance(http._transport, httpx.HTTPTransport) and http.base_url.host == "vllm"
        where = self._private if own else local_address(http.base_url.host, http.base_url.port or 80)
        with Sender(folder, where) as sender:
            call_workers(http, "crrl_receive", address=sender.address, key=sender.key)


class Adapter:
    """Args:
    base: the folder of the base model. rank: the largest that will be pushed.
    """

    def __init__(self, base: Path, rank: int) -> None:
        self._base, self._rank = base, rank
        self._shapes = weights.shapes_in(base)

    def arguments(self) -> list[str]:
        """The head is left out: with room for an adapter of the head, vLLM 0.32 dies of a request for the log-probs of
        a prompt beside another request. No adapter of ours has one (`learning.lora`)."""
        rank = next((room for room in RANKS if room >= self._rank), None)
        if rank is None:
            raise UsageError(
                f"engine.transport=adapter: vLLM serves adapters of rank {RANKS[-1]} at most, not {self._rank}.",
                "Leave engine.transport out: adapters are then merged.",
            )
        room = ["--max-loras", "1", "--max-cpu-loras", "1", "--max-lora-rank", str(rank)]
        return ["--enable-lora", *room, "--lora-target-modules", *weights.linear_layers(self._shapes)]

    def variables(self) -> dict[str, str]:
        return {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}

    def model(self, served: str) -> str:
        return ADAPTER

    def start_folder(self, serves: Path) -> Path:
        return self._base

    def begin(self, http: httpx.Client, serves: Path) -> None:
        http.post("/v1/unload_lora_adapter", json={"lora_name": ADAPTER})  # of a run before, or none
        response = http.post("/v1/load_lora_adapter", json={"lora_name": ADAPTER, "lora_path": str(serves)})
        if response.status_code == 404 and not _is_answer_about(response):
            raise UsageError(
                "The vLLM server takes no adapters.",
                f"Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and {' '.join(self.arguments())}.",
            )
        accepted(response)

    def write(self, source: WeightSource, target: Path) -> None:
        weights.write_adapter(source, self._shapes, target)

    def load(self, http: httpx.Client, folder: Path) -> None:
        call_workers(http, "crrl_adapter", folder=str(folder))

    def identity(self, target: Path) -> None:
        """Makes the folder of an adapter that changes nothing: a policy that has not been trained."""
        weights.write_identity(self._shapes, target)


def make(name: str, model: Path, base: Path, dtype: str, rank: int, private: Path) -> Transport:
    """`model`: what is served at first, merged for all but `adapter`; `base`: of the adapter, for that. Raises
    UsageError."""
    if name == "adapter":
        return Adapter(base, rank)
    return Stream(model, dtype, private) if name == "stream" else Disk(model, dtype)


def rank_in(folder: Path) -> int:
    """The largest rank of the adapter in `folder`. Raises CrrlError."""
    found = adapter.configuration(folder)
    return max([found.r, *(found.rank_pattern or {}).values()])


def call_workers(http: httpx.Client, method: str, **words: str) -> None:
    """Raises CrrlError: one of them failed; httpx.HTTPError."""
    accepted(http.post("/collective_rpc", json={"method": method, "kwargs": words}))


def accepted(response: httpx.Response) -> httpx.Response:
    """Raises CrrlError: the server refuses."""
    if response.status_code == 200:
        return response
    try:
        said = message_of(response.json())
    except ValueError:
        said = response.text[:300]
    raise CrrlError(f"vLLM answers {response.status_code} to {response.request.url.path}: {said}", "See its log.")


def _is_answer_about(response: httpx.Response) -> bool:
    """Whether a 404 is about the adapter, and not about the path."""
    try:
        said: Any = json.loads(response.text)
    except ValueError:
        return False
    return "adapter" in message_of(said).lower()
