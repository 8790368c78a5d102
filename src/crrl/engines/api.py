"""An engine's two roles. `Engine` is what whoever samples sees: token ids in; token ids, log-probs and policy versions
out. `Weights` is what the trainer sees: new weights in, and the engine's hardware while it does not sample."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from crrl.errors import CrrlError

if TYPE_CHECKING:
    import torch

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request:
    """One generation.

    Args:
        prompt_ids: the whole context.
        temperature: 0 is greedy (with log-probs at T = 1).
        stop_ids: generation ends after (and includes) the first of these.
        seed: 64 bits; the noise of position p (0-based, within this generation) derives only from (seed, p), so
            a sample depends neither on the rest of the batch nor on the order of arrival.
        top_p, top_k: draw only from the most probable tokens that have so much of the mass (arXiv:1904.09751), or that
            are so many (arXiv:1805.04833); 1.0 and 0: from all. Only for engines that `truncate`, and for evaluations:
            log-probs stay those of the whole distribution.
        scope: whose it is (an attempt's id), for `Weights.forget`.
        grammar: what may be sampled (`constrained.py`); "": anything. Only for engines that are `constrained`.
    """

    id: str
    prompt_ids: list[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: list[int] = field(default_factory=list)
    seed: int = 0
    scope: str = ""
    grammar: str = ""


@dataclass(frozen=True)
class Chunk:
    """The next tokens of a generation (one or more); equal lengths. `finish` is set on the last chunk.

    `logprobs` are log softmax(logits / T) before any truncation; `versions` is the policy version per token.
    """

    ids: list[int]
    logprobs: list[float]
    versions: list[int]
    finish: FinishReason | None = None


@dataclass(frozen=True)
class EngineInfo:
    """`constrained`: it takes grammars. `truncates`: it takes `top_p` and `top_k`."""

    context: int
    version: int
    tokenizer_hash: str
    vocab_size: int
    constrained: bool = False
    truncates: bool = False


@dataclass(frozen=True)
class Probe:
    """The engine's log-probs of the probe sequence `ids` right after a push: float32, one per token but the first.
    `others`: of its further servers, each of which is proved."""

    version: int
    ids: list[int]
    logprobs: list[float]
    others: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class AdapterWeights:
    """A LoRA adapter, as PEFT's files have it: `config` as in adapter_config.json, `tensors` by the names of
    adapter_model.safetensors."""

    config: dict[str, Any]
    tensors: Generator[tuple[str, torch.Tensor]]


class WeightSource(Protocol):
    """Where new weights come from; names as in the Hugging Face state dict. Iterated layer by layer, and twice where
    the engine checks all before it changes any. A tensor is good until the next one is asked for."""

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]: ...

    def adapter(self) -> AdapterWeights | None:
        """All that changed since the engine loaded the base model, for an engine that can serve adapters: it takes this
        instead of `tensors`, which has them merged. None: all weights are trained."""
        ...


class Engine(Protocol):
    """What whoever samples sees. Errors: `EngineError` (in `engines/__init__`) when the engine itself failed: the
    episode is lost, not scored; `ContextLengthError` when prompt + 1 > context (the gateway asks first, so this is a
    bug of the caller)."""

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Closing the iterator cancels the request."""
        ...

    async def score(self, ids: list[int]) -> list[float]:
        """log p(ids[i] | ids[:i]) at T = 1 for i >= 1; length len(ids) - 1."""
        ...

    async def cancel(self, id: str) -> None: ...

    async def info(self) -> EngineInfo: ...


class Connection(Engine, Protocol):
    """An engine of another process (`engines.connect`)."""

    async def close(self) -> None: ...


@runtime_checkable
class Served(Protocol):
    """An engine that other processes reach by themselves, at `address` (`engines.connect`). `tokens`: how many have
    been sampled."""

    address: str
    tokens: int


@runtime_checkable
class Started(Protocol):
    """An engine that takes its time to start."""

    def start(self, note: Callable[[str], None], failed: Callable[[CrrlError], None]) -> None:
        """Returns when it serves. `note`: told how far it is. `failed`: told later if it is lost for good, and the run
        must stop. Raises CrrlError."""
        ...

    def close(self) -> None: ...


class Weights(Protocol):
    """What the trainer sees. `busy_s`: seconds that it has computed so far."""

    busy_s: float

    async def push(self, source: WeightSource, version: int) -> Probe:
        """Swap weights in between decode steps, drop KV and prefix caches (running requests are re-prefilled under
        the new weights), bump the version, score the probe. Raises CrrlError: they do not fit; the old ones stay. An
        engine whose source breaks off when some weights are new serves nothing from then on."""
        ...

    async def keep(self, version: int) -> None:
        """The weights stay, and are policy `version` from now on: an update had nothing to change."""
        ...

    def forget(self, scope: str) -> None:
        """This attempt is over, or a try of it was lost: nothing is kept of its generations. It must not serve the next
        try, whose log-probs would then differ in their last bits from those of a run that lost nothing."""
        ...

    def resting(self) -> AbstractContextManager[None]:
        """The engine does not sample, and what it computes with is the caller's. Running generations freeze between
        two decode steps, new requests queue; nothing is refused. Pushes are taken."""
        ...
