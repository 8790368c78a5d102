"""How often the engine holds its weights: once, packed or not, and a push adds no more than its largest product."""

from __future__ import annotations

import asyncio
import copy
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from engine_kit import collect, plain_logprobs, prompt
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from crrl.engines import EngineError
from crrl.engines.api import Request
from crrl.engines.local import LocalEngine
from crrl.engines.local.runner import Runner
from crrl.errors import CrrlError

WIDE = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
}
CONFIGS = {
    "qwen2, tied": Qwen2Config(**WIDE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**WIDE, tie_word_embeddings=False),
    "llama, biases": LlamaConfig(**WIDE, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "llama, small matrices": LlamaConfig(**{**WIDE, "hidden_size": 64, "intermediate_size": 96}),
}


def build(config: PreTrainedConfig, seed: int) -> Any:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager").eval()


class Fresh:
    """Makes each tensor when it is asked for, as merged adapters and gathered shards are made, and counts how many of
    them are alive. `breaks_at`: (reading, tensor) at which it fails."""

    def __init__(self, module: nn.Module, breaks_at: tuple[int, int] = (0, 0)) -> None:
        self._module, self._breaks_at = module, breaks_at
        self.readings = 0
        self.most_alive = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        self.readings += 1
        alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        for number, (name, tensor) in enumerate(self._module.state_dict().items(), 1):
            if (self.readings, number) == self._breaks_at:
                raise RuntimeError("the source broke off")
            made = tensor.clone()
            alive.add(made)
            self.most_alive = max(self.most_alive, len(alive))
            yield name, made
            made.fill_(torch.nan)  # whoever kept it has kept too much
            del made


def engine_on(config: PreTrainedConfig, seed: int = 3) -> LocalEngine:
    return LocalEngine(build(config, seed=seed), "h", context=256)


def held(runner: Runner) -> int:
    """Bytes of all tensors that the module and the fused pass hold, storages counted once."""
    assert runner.fused is not None
    found: dict[int, int] = {}
    everything = [*runner.model.parameters(), *(p._weight for p in runner.fused._products)]
    everything += [p._bias for p in runner.fused._products if p._bias is not None]
    for tensor in everything:
        if tensor.layout == torch.strided and not tensor.is_meta:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        elif not tensor.is_meta:
            found[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(found.values())


@pytest.mark.parametrize("name", CONFIGS)
async def test_weights_are_held_once(name: str) -> None:
    config = CONFIGS[name]
    engine = engine_on(config)
    try:
        once = sum(p.numel() * p.element_size() for p in build(config, seed=3).parameters())
        again = config.vocab_size * config.hidden_size * 4 if config.tie_word_embeddings else 0
        assert held(engine._runner) == once + again
        await engine.push(Fresh(build(config, seed=4)), 1)
        gc.collect()
        assert held(engine._runner) == once + again
    finally:
        engine.close()


@pytest.mark.parametrize("name", CONFIGS)
async def test_a_push_holds_one_tensor_of_its_source_at_a_time(name: str) -> None:
    config = CONFIGS[name]
    engine, new = engine_on(config), build(config, seed=4)
    for parameter in new.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    try:
        source = Fresh(new)
        probe = await engine.push(source, 1)
        assert source.readings == 2 and source.most_alive <= 2
        assert probe.logprobs == pytest.approx(plain_logprobs(new, engine.probe_ids), abs=1e-4)
    finally:
        engine.close()


def test_a_fused_pass_that_is_not_used_gives_the_weights_back() -> None:
    """Packed or viewed, bit for bit: also where the proof fails."""
    for config in CONFIGS.values():
        model = build(config, seed=3)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.model.layers[0].mlp.down_proj.register_forward_hook(lambda _m, _i, out: 1.5 * out)
        expected = plain_logprobs(model, prompt(0, 20))
        runner = Runner(model, torch.device("cpu"), torch.float32)
        assert runner.fused is None
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert runner.score(prompt(0, 20)) == pytest.approx(expected, abs=1e-4)


async def test_a_source_that_breaks_off_while_it_is_checked_changes_nothing() -> None:
    engine = engine_on(CONFIGS["qwen3"])
    try:
        served = await engine.score(prompt(0, 30))
        with pytest.raises(RuntimeError, match="broke off"):
            await engine.push(Fresh(build(CONFIGS["qwen3"], seed=4), breaks_at=(1, 3)), 1)
        assert await engine.score(prompt(0, 30)) == served and (await engine.info()).version == 0
    finally:
        engine.close()


async def test_a_source_that_breaks_off_half_way_leaves_no_policy_to_serve() -> None:
    """Some weights would be new and others old: what is running fails, and so does whatever comes."""
    engine = engine_on(CONFIGS["qwen3"])
    try:
        running = asyncio.create_task(collect(engine, Request("a", prompt(0, 9), 200, seed=1)))
        await asyncio.sleep(0.05)
        with pytest.raises(RuntimeError, match="broke off"):
            await engine.push(Fresh(build(CONFIGS["qwen3"], seed=4), breaks_at=(2, 3)), 1)
        with pytest.raises(EngineError, match="push of version 1 broke off"):
            await running
        with pytest.raises(EngineError, match="push of version 1 broke off"):
            await engine.score(prompt(0, 30))
    finally:
        engine.close()


async def test_a_packed_tensor_that_is_missing_or_of_another_shape_is_named() -> None:
    engine, new = engine_on(CONFIGS["qwen3"]), build(CONFIGS["qwen3"], seed=4)
    try:
        served = await engine.score(prompt(0, 30))
        new.model.layers[1].mlp.up_proj.weight = nn.Parameter(torch.zeros(768, 255))
        with pytest.raises(CrrlError, match=r"1\.mlp\.up_proj\.weight: shape \(768, 255\), the engine's is \(768"):
            await engine.push(Fresh(new), 1)
        new.model.layers[1].mlp.up_proj = nn.Identity()
        with pytest.raises(CrrlError, match=r"layers\.1\.mlp\.up_proj\.weight: missing"):
            await engine.push(Fresh(new), 1)
        assert await engine.score(prompt(0, 30)) == served
    finally:
        engine.close()
