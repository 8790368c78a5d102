"""Whatever shares a batch, a prefix or a pass: the log-probs are those of the model's own forward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from engine_kit import VOCAB, collect_all, plain_logprobs, prompt
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from crrl.engines import Request
from crrl.engines.local import LocalEngine
from crrl.engines.local.runner import Runner
from crrl.errors import CrrlError
from crrl.learning.push import ModuleWeights

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=24),
    "qwen3-sliding": Qwen3Config(
        **SIZES,
        num_key_value_heads=1,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=40,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=4),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "mistral-sliding": MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=20),
    "gemma2": Gemma2Config(
        **SIZES,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=32,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=5.0,
    ),
    "gpt2": GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3),
}


def build(config: PreTrainedConfig, seed: int = 3) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager").eval()


@pytest.mark.parametrize("name", CONFIGS)
async def test_every_architecture_in_a_mixed_batch_over_two_turns(name: str) -> None:
    plain = build(CONFIGS[name])
    engine = LocalEngine(copy.deepcopy(plain), "h", context=256, prefill_tokens=64)
    try:
        shared = prompt(0, 50)
        requests = [Request(f"a{i}", shared + prompt(i, 3 + 5 * i), 4 + 3 * i, seed=i) for i in range(6)]
        first = await collect_all(engine, requests)
        turns = [Request(f"b{a.request.id}", a.request.prompt_ids + a.ids + prompt(9, 7), 8, seed=4) for a in first]
        second = await collect_all(engine, [*turns, Request("odd", prompt(77, 90), 12)])
        for answer in first + second:
            start = len(answer.request.prompt_ids)
            expected = plain_logprobs(plain, answer.request.prompt_ids + answer.ids)[start - 1 :]
            assert answer.logprobs == pytest.approx(expected, abs=1e-4), answer.request.id
        assert engine.reused_tokens > 6 * 45
    finally:
        engine.close()


BIASES = {"attention_bias": True, "mlp_bias": True}
WIDE = {**SIZES, "hidden_size": 192, "intermediate_size": 512, "num_key_value_heads": 2}
FUSED = {
    **{name: CONFIGS[name] for name in ("qwen3", "qwen3-sliding", "qwen2", "mistral-sliding")},
    "llama-with-biases": LlamaConfig(**SIZES, **BIASES, num_key_value_heads=1),
    "llama-yarn": LlamaConfig(
        **SIZES,
        num_key_value_heads=2,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen3-with-packed-matrices": Qwen3Config(**WIDE, head_dim=32),
    "llama-with-packed-biases": LlamaConfig(**WIDE, **BIASES, head_dim=48),
}


@pytest.mark.parametrize("name", FUSED)
async def test_the_fused_pass_follows_every_push(name: str) -> None:
    """Its matrices are copies: log-probs, probe and score after a push are those of the new weights."""
    old, new = build(FUSED[name], seed=3), build(FUSED[name], seed=4)
    for parameter in new.parameters():
        if parameter.dim() == 1:  # norms and biases are 1 and 0 in a fresh model
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    engine = LocalEngine(copy.deepcopy(old), "h", context=256)
    ids = prompt(0, 70)
    try:
        assert engine._runner.fused is not None
        assert await engine.score(ids) == pytest.approx(plain_logprobs(old, ids), abs=1e-4)
        probe = await engine.push(ModuleWeights(new), 1)
        assert probe.logprobs == pytest.approx(plain_logprobs(new, engine.probe_ids), abs=1e-4)
        assert await engine.score(ids) == pytest.approx(plain_logprobs(new, ids), abs=1e-4)
        for answer in await collect_all(engine, [Request(str(i), [*ids, i], 12, seed=i) for i in range(5)]):
            expected = plain_logprobs(new, answer.request.prompt_ids + answer.ids)[70:]
            assert answer.logprobs == pytest.approx(expected, abs=1e-4)
    finally:
        engine.close()


@pytest.mark.parametrize(
    "config", [CONFIGS["gemma2"], CONFIGS["gpt2"], LlamaConfig(**{**SIZES, "num_hidden_layers": 1}, hidden_act="gelu")]
)
def test_other_shapes_run_through_their_own_forward(config: PreTrainedConfig) -> None:
    engine = LocalEngine(build(config), "h", context=64)
    assert engine._runner.fused is None
    engine.close()


def test_a_fused_pass_that_differs_from_the_model_is_not_used() -> None:
    """A hook into the model, say an adapter's, is something the fused pass does not know."""
    model = build(CONFIGS["llama"])
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda _m, _i, out: 1.5 * out)
    expected = plain_logprobs(model, prompt(0, 20))
    runner = Runner(model, torch.device("cpu"), torch.float32)
    assert runner.fused is None
    with torch.inference_mode():
        assert runner.score(prompt(0, 20)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.7])
async def test_logprobs_are_those_at_the_temperature(make, plain, temperature: float) -> None:
    (answer,) = await collect_all(make(), [Request("a", prompt(1, 20), 30, temperature=temperature)])
    expected = plain_logprobs(plain, answer.request.prompt_ids + answer.ids, temperature)[19:]
    assert answer.logprobs == pytest.approx(expected, abs=1e-4)


async def test_greedy_takes_the_likeliest_token_and_gives_logprobs_at_one(make, plain) -> None:
    (answer,) = await collect_all(make(), [Request("a", prompt(1, 20), 30, temperature=0.0)])
    ids = answer.request.prompt_ids + answer.ids
    with torch.no_grad():
        likeliest = plain(torch.tensor([ids])).logits[0].argmax(-1).tolist()
    assert answer.ids == likeliest[19:-1]
    assert answer.logprobs == pytest.approx(plain_logprobs(plain, ids)[19:], abs=1e-4)


async def test_score(make, plain) -> None:
    ids = prompt(5, 60)
    assert await make().score(ids) == pytest.approx(plain_logprobs(plain, ids), abs=1e-4)


async def test_a_prompt_longer_than_a_pass_is_prefilled_in_parts(make, plain) -> None:
    engine = make(prefill_tokens=16)
    answers = await collect_all(engine, [Request(str(i), prompt(i, 75), 6, seed=i) for i in range(3)])
    for a in answers:
        assert a.logprobs == pytest.approx(plain_logprobs(plain, a.request.prompt_ids + a.ids)[74:], abs=1e-4)
    assert engine.prefilled_tokens == 3 * 75


async def test_a_group_computes_its_prompt_once(make) -> None:
    engine = make()
    await collect_all(engine, [Request(str(i), prompt(1, 200), 5, seed=i) for i in range(8)])
    assert engine.prefilled_tokens == 200 + 7
    await collect_all(engine, [Request("later", [*prompt(1, 200), 5, 6], 5)])
    assert engine.prefilled_tokens <= 207 + 3


async def test_the_prefix_cache_stays_in_its_budget_and_still_serves(make, plain) -> None:
    engine = make(kv_tokens=100)
    for i in range(6):
        (a,) = await collect_all(engine, [Request(str(i), prompt(i % 3, 30), 5, seed=i)])
        assert a.logprobs == pytest.approx(plain_logprobs(plain, a.request.prompt_ids + a.ids)[29:], abs=1e-4)
        assert engine._prefixes.tokens <= 100


def test_a_model_without_keys_and_values_is_refused_with_the_reason() -> None:
    config = MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=8)
    with pytest.raises(CrrlError, match=r"cannot serve MambaForCausalLM.*\n.*vLLM"):
        LocalEngine(AutoModelForCausalLM.from_config(config), "h", context=64)
