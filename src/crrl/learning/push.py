"""Loads new weights into the running engine, and proves that they arrived (invariant 7).

Engine and trainer score the same fixed probe, each with its own code. If one log-prob differs by more than the bound,
the run stops with both numbers, because from then on every importance weight would be wrong.

With several ranks, rank 0 pushes; what must be collective under ZeRO-3 (putting layers together, scoring the probe) the
others do when it tells them (`follow_push`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from crrl.engines.api import AdapterWeights, Engine, Probe, Weights
from crrl.engines.push import PROBE_LENGTH, probe_ids
from crrl.errors import CrrlError
from crrl.learning.logprobs import score, unwrapped
from crrl.learning.ranks import ALONE, Ranks

WALK = "walk"
WALK_ADAPTER = "walk adapter"
BOUND = 1e-3
"""Nats, float32 on one device type. Correct pushes differ by about 1e-6; one wrong tensor by 0.1 or more."""
ROUNDING = 1.0
"""Nats. Rounding to bfloat16 moves a log-prob by some hundredths, of an unlikely token by a few tenths."""


class PushError(CrrlError):
    """Engine and trainer disagree after a push."""


class ModuleWeights:
    """The weights of a (PEFT or plain) module, as a `WeightSource`.

    Adapters are merged tensor by tensor into new tensors, W + delta. The module itself never changes, not even for a
    moment, so others may read it meanwhile.

    Under ZeRO-3 all ranks go through `tensors` together: a layer's shards are put together while its tensors are
    given, and taken apart again before the next one, so that at most one layer is whole.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def tensors(self) -> Generator[tuple[str, Tensor]]:
        """Whoever stops early closes it; the layers that are left are then gone through without being given, because
        the other ranks go through them."""
        base = unwrapped(self._model)
        deltas = _deltas(base)
        with closing(_through(_layers(base))) as layers:
            for layer in layers:
                for name, tensor in layer.items():
                    if ".lora_" in name:
                        continue
                    plain = name.replace(".base_layer.", ".")
                    delta = deltas.pop(plain, None)
                    yield plain, tensor.detach() if delta is None else tensor.detach() + delta()
        if deltas:
            raise CrrlError(f"Adapter weights without a tensor to add them to: {', '.join(sorted(deltas)[:4])}")

    def adapter(self) -> AdapterWeights | None:
        model: Any = self._model
        if not hasattr(model, "peft_config"):
            return None
        (active,) = model.active_adapters
        told = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config[active].to_dict().items()}
        return AdapterWeights(told, self._adapter_tensors(active))

    def _adapter_tensors(self, active: str) -> Generator[tuple[str, Tensor]]:
        """On all ranks together, as `tensors`."""
        found = _layers(unwrapped(self._model))
        own = [{n: t for n, t in layer.items() if ".lora_" in n and f".{active}." in n} for layer in found]
        with closing(_through(own)) as layers:
            for layer in layers:
                for name, tensor in layer.items():
                    yield f"base_model.model.{name.replace(f'.{active}.', '.')}", tensor.detach()


def _layers(base: nn.Module) -> list[dict[str, Tensor]]:
    """The parameters and buffers of a checkpoint, by name; those of one decoder layer together, in order."""
    lists = [f"{name}." for name, module in base.named_modules() if isinstance(module, nn.ModuleList)]
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in base.state_dict(keep_vars=True).items():
        inside = next((prefix for prefix in lists if name.startswith(prefix)), None)  # the outermost comes first
        if inside is None:  # an adapter beside its weight
            layer = name.partition(".base_layer.")[0].partition(".lora_")[0].removesuffix(".weight")
        else:
            layer = inside + name[len(inside) :].partition(".")[0]
        found.setdefault(layer, {})[name] = tensor
    return list(found.values())


def _through(layers: Iterable[dict[str, Tensor]]) -> Generator[dict[str, Tensor]]:
    """One layer after the other, each whole while it is given; to the last, also where whoever reads stops early."""
    rest = iter(layers)
    try:
        for layer in rest:
            with whole(layer.values()):
                yield layer
    finally:
        for layer in rest:
            with whole(layer.values()):
                pass


@contextmanager
def whole(tensors: Iterable[Tensor]) -> Iterator[None]:
    """In it, tensors that ZeRO-3 has split over the ranks are whole. All ranks enter it together."""
    shards = list({id(tensor): tensor for tensor in tensors if hasattr(tensor, "ds_id")}.values())
    if not shards:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(shards):
        yield


class _Told:
    """Rank 0's view of weights that all ranks go through together: the others are told to, by `follow_push`."""

    def __init__(self, source: ModuleWeights, ranks: Ranks) -> None:
        self._source, self._ranks = source, ranks
        self._going: Generator[tuple[str, Tensor]] | None = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        self.close()
        self._ranks.share(WALK)
        self._going = self._source.tensors()
        return self._going

    def adapter(self) -> AdapterWeights | None:
        found = self._source.adapter()
        if found is not None:
            self.close()
            self._ranks.share(WALK_ADAPTER)
            self._going = found.tensors
        return found

    def close(self) -> None:
        """The other ranks go to the end of what was begun, whether or not whoever read it did."""
        if self._going is not None:
            next(self._going, None)  # closing would not begin what has not begun
            self._going.close()


def follow_push(model: nn.Module, ranks: Ranks, computing: AbstractContextManager[Any] | None = None) -> None:
    """What the other ranks do while rank 0 pushes, until it shares None: the collective parts. Raises Stopped: the push
    failed."""
    while (told := ranks.share()) is not None:
        if told == WALK:
            for _ in ModuleWeights(model).tensors():
                pass
        elif told == WALK_ADAPTER:
            if (adapter := ModuleWeights(model).adapter()) is not None:
                for _ in adapter.tensors:
                    pass
        else:
            with computing or nullcontext():
                score(model, told)


def _deltas(base: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Weight name -> a function for its LoRA delta (deltas are large: compute one at a time)."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        return {}
    found: dict[str, Callable[[], Tensor]] = {}
    for name, module in base.named_modules():
        if isinstance(module, BaseTunerLayer):
            if not hasattr(module, "get_delta_weight") or getattr(module, "use_dora", {}).get("default"):
                raise CrrlError(
                    f"{name}: {type(module).__name__} cannot be merged into a push.",
                    "Use LoRA without DoRA.",
                )
            if module.active_adapters:
                found[f"{name}.weight"] = functools.partial(_delta, module)
    return found


@torch.no_grad()
def _delta(module: Any) -> Tensor:
    parts: list[Tensor] = [module.get_delta_weight(name) for name in module.active_adapters]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


async def bound_in(
    engine: Engine, model: nn.Module, computing: AbstractContextManager[Any], ranks: Ranks = ALONE
) -> float:
    """The bound of pushes where one of the two computes in bfloat16: by how much they differ now, with equal weights,
    three times. A small missed push stays below it, and shows as drift of the sampler's log-probs over the steps.

    Raises:
        PushError: they differ by more than rounding.
    """
    info = await engine.info()
    ids = probe_ids(info.vocab_size, min(PROBE_LENGTH, info.context))
    served = await engine.score(ids)
    ranks.share(ids)
    with computing:
        gap = max(abs(a - b) for a, b in zip(served, score(model, ids), strict=True))
    if not gap <= ROUNDING:
        raise PushError(
            f"With equal weights the engine's log-probs differ from the trainer's by up to {gap:.2g} nats: more than "
            "rounding does.",
            "Write engine.dtype=float32 trainer.dtype=float32, and see whether the difference stays.",
        )
    return max(BOUND, 3 * gap)


async def push_and_prove(
    weights: Weights,
    model: nn.Module,
    version: int,
    bound: float = BOUND,
    computing: AbstractContextManager[Any] | None = None,
    ranks: Ranks = ALONE,
) -> float:
    """Make an engine serve `model` as policy `version`, and prove that it does. `computing`: in which the trainer's
    forward passes are. Called on rank 0; the others `follow_push`.

    Returns:
        The largest difference between engine and trainer over the probe's log-probs, in nats.

    Raises:
        PushError: the engine's log-probs on the probe differ from the trainer's; the run must stop.
        CrrlError: the weights do not fit the engine's model.
    """
    source = _Told(ModuleWeights(model), ranks)
    try:
        probe = await weights.push(source, version)
    finally:
        source.close()
    return max(
        _proved(each, _wanted(each.ids, model, computing, ranks), version, bound) for each in (probe, *probe.others)
    )


def _wanted(
    ids: list[int], model: nn.Module, computing: AbstractContextManager[Any] | None, ranks: Ranks
) -> list[float]:
    """The trainer's log-probs of a probe."""
    ranks.share(ids)
    with computing or nullcontext():
        return score(model, ids)


def _proved(probe: Probe, wanted: list[float], version: int, bound: float) -> float:
    """The largest difference. Raises PushError."""
    if probe.version != version:
        raise PushError(
            f"The engine serves version {probe.version} after the push of version {version}.",
            "Either another process pushes to this engine, or it ignored the push. The run has stopped: resume it.",
        )
    gaps = [abs(a - b) for a, b in zip(probe.logprobs, wanted, strict=True)]
    gaps = [gap if gap == gap else float("inf") for gap in gaps]  # NaN of either proves nothing
    at = max(range(len(gaps)), key=gaps.__getitem__)
    if not gaps[at] <= bound:
        raise PushError(
            f"After the push of version {version} the engine is not the trainer's policy: at position {at + 1} "
            f"of the probe its log-prob is {probe.logprobs[at]:.6f}, the trainer's {wanted[at]:.6f}; the difference "
            f"{gaps[at]:.2e} is over the bound {bound:.0e}.",
            "The run has stopped; nothing was trained on wrong numbers. Check device and dtype of both, then resume.",
        )
    return gaps[at]
