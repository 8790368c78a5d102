"""A push is proved, or the run stops with both numbers: on the real engine, with engines that fail in one way."""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import torch
from learning_kit import VOCAB, tiny_model
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from crrl.engines.api import Probe, WeightSource
from crrl.engines.local import LocalEngine
from crrl.engines.push import probe_ids
from crrl.errors import CrrlError
from crrl.learning.logprobs import score
from crrl.learning.push import BOUND, ModuleWeights, PushError, push_and_prove

Make = Callable[..., LocalEngine]
IDS = [5, 17, 40, 3, 3, 61, 22, 9]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Engines that serve the first policy."""
    made: list[LocalEngine] = []

    def engine(kind: type[LocalEngine] = LocalEngine, **options: object) -> LocalEngine:
        made.append(kind(tiny_model(), "hash", **{"context": 128, **options}))
        return made[-1]

    yield engine
    for each in made:
        each.close()


def updated(seed: int = 1, size: float = 0.05) -> nn.Module:
    """The policy some updates later."""
    model = tiny_model()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return model


async def test_after_a_push_the_engine_is_the_trainers_policy(make: Make) -> None:
    engine = make()
    for version in (1, 2):
        model = updated(seed=version)
        model.train()
        before = copy.deepcopy(model.state_dict())
        stale = max(abs(a - b) for a, b in zip(await engine.score(IDS), score(model, IDS), strict=True))
        assert stale > 100 * BOUND
        assert await push_and_prove(engine, model, version) < 2e-5
        assert (await engine.info()).version == version
        assert await engine.score(IDS) == pytest.approx(score(model, IDS), abs=2e-5)
        assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())


async def test_a_short_context_has_a_short_probe(make: Make) -> None:
    engine = make(context=16)
    assert await push_and_prove(engine, updated(), 1) < 2e-5


class Tampered(LocalEngine):
    """One tensor arrives changed."""

    tensor = ""

    async def push(self, source: WeightSource, version: int) -> Probe:
        return await super().push(_Tampered(source, self.tensor), version)


class _Tampered:
    def __init__(self, source: WeightSource, name: str) -> None:
        self._source, self._name = source, name

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._source.tensors():
            yield name, tensor.roll(1, 0) if name == self._name else tensor


class Deaf(LocalEngine):
    """Says that it has the new weights, and serves the old ones."""

    async def push(self, source: WeightSource, version: int) -> Probe:
        return await super().push(ModuleWeights(self._runner.model), version)


class Late(LocalEngine):
    """Counts its versions in another way."""

    async def push(self, source: WeightSource, version: int) -> Probe:
        return await super().push(source, version - 1)


@pytest.mark.parametrize(
    "tensor",
    [
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_norm.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.input_layernorm.weight",
        "model.norm.weight",
    ],
)
async def test_one_wrong_tensor_stops_the_run(make: Make, tensor: str) -> None:
    engine = make(Tampered)
    engine.tensor = tensor
    await assert_stopped(engine, updated(), 3)


async def test_an_engine_that_ignores_the_push_stops_the_run(make: Make) -> None:
    await assert_stopped(make(Deaf), updated(), 3)
    await assert_stopped(make(Deaf), updated(size=0.002), 3)  # about one step of training


async def assert_stopped(engine: LocalEngine, model: nn.Module, version: int) -> None:
    """PushError, with the engine's number and the trainer's number at the place that it names."""
    with pytest.raises(PushError) as error:
        await push_and_prove(engine, model, version)
    said = re.search(r"position (\d+) .* log-prob is (\S+), the trainer's (\S+);", error.value.message)
    assert said is not None and f"version {version}" in error.value.message and error.value.remedy
    at = int(said[1])
    probe = probe_ids(VOCAB)
    served, wanted = (await engine.score(probe))[at - 1], score(model, probe)[at - 1]
    assert float(said[2]) == pytest.approx(served, abs=1e-5) and float(said[3]) == pytest.approx(wanted, abs=1e-5)
    assert abs(served - wanted) > BOUND


async def test_versions_that_disagree_stop_the_run(make: Make) -> None:
    with pytest.raises(PushError, match=r"serves version 2 after the push of version 3") as error:
        await push_and_prove(make(Late), updated(), 3)
    assert error.value.remedy


async def test_a_trainer_that_gives_nan_proves_nothing(make: Make) -> None:
    model = updated()
    head = model.get_submodule("lm_head")
    head.register_forward_hook(lambda *args: args[2].index_fill(1, torch.tensor([5]), float("nan")))
    with pytest.raises(PushError, match=r"position 6 .* the trainer's nan"):
        await push_and_prove(make(), model, 1)


async def test_weights_of_another_model_are_refused(make: Make) -> None:
    engine, model = make(), updated()
    model.model.norm = nn.Identity()
    served = await engine.score(IDS)
    with pytest.raises(CrrlError, match=r"model\.norm\.weight: missing"):
        await push_and_prove(engine, model, 1)
    assert await engine.score(IDS) == served and (await engine.info()).version == 0


# Adapters -----------------------------------------------------------------------------------------------------


def adapted(**options: object) -> PeftModel:
    """LoRA whose B is not zero."""
    torch.manual_seed(3)
    targets = ["q_proj", "o_proj", "up_proj"]
    model = get_peft_model(tiny_model(), LoraConfig(r=4, lora_alpha=8, target_modules=targets, **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


async def test_adapters_are_merged_on_the_way(make: Make) -> None:
    engine, model = make(), adapted()
    before = copy.deepcopy(model.state_dict())
    modules = [type(module) for module in model.modules()]
    stale = max(abs(a - b) for a, b in zip(await engine.score(IDS), score(model, IDS), strict=True))
    assert stale > 100 * BOUND
    assert await push_and_prove(engine, model, 1) < 2e-5
    assert await engine.score(IDS) == pytest.approx(score(model, IDS), abs=2e-5)
    assert [type(module) for module in model.modules()] == modules
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(before[name], after[name]) for name in before)


def test_merged_tensors_are_those_that_peft_merges() -> None:
    model = adapted(use_rslora=True)
    given = dict(ModuleWeights(model).tensors())
    merged = copy.deepcopy(model).merge_and_unload().state_dict()
    assert given.keys() == merged.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(given[name], tensor, rtol=1e-6, atol=1e-6)
    base = tiny_model().state_dict()
    changed = {name for name in merged if not torch.equal(given[name], base[name])}
    assert len(changed) == 6 and all(re.search("q_proj|o_proj|up_proj", name) for name in changed)


def test_adapters_that_cannot_be_added_are_refused() -> None:
    with pytest.raises(CrrlError, match="cannot be merged") as error:
        list(ModuleWeights(adapted(use_dora=True)).tensors())
    assert "without DoRA" in error.value.remedy
