"""Rows as a forest: the same log-probs and gradients as row by row, in one pass over what they share."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from learning_kit import VOCAB, tiny_model
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)
from trl.trainer.utils import add_fused_lm_head

from crrl.learning.logprobs import Picked, trained_logprobs, unwrapped
from crrl.learning.tree import forest, shared_nodes
from crrl.learning.tree_attention import IMPLEMENTATION, QUERIES, sharing

CPU = torch.device("cpu")
Rows = list[tuple[list[int], list[int]]]


@st.composite
def forests(draw: st.DrawFn) -> Rows:
    """Rows that leave earlier ones anywhere: at once, after all of them, or not at all. Two letters, so that rows
    which have parted often go on alike; some tokens are trained in one row and context in another."""
    rows: Rows = []
    letters = st.integers(0, draw(st.sampled_from([1, VOCAB - 1])))
    for _ in range(draw(st.integers(1, 6))):
        begin: list[int] = []
        if rows and draw(st.booleans()):
            of = draw(st.sampled_from(rows))[0]
            begin = of[: draw(st.integers(0, len(of)))]
        ids = begin + draw(st.lists(letters, min_size=max(0, 2 - len(begin)), max_size=12))
        rows.append((ids, draw(st.lists(st.integers(0, 1), min_size=len(ids), max_size=len(ids)))))
    return rows


def tensors(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids_BT, mask_BT, trained_BT = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    for i, (ids, trained) in enumerate(rows):
        ids_BT[i, : len(ids)], mask_BT[i, : len(ids)] = torch.tensor(ids), 1
        trained_BT[i, : len(ids)] = torch.tensor(trained)
    return ids_BT, mask_BT, trained_BT


def as_forest(model: nn.Module, rows: Rows, *, pads: bool = False) -> tuple[Tensor, Tensor]:
    """What the trainer computes."""
    core = unwrapped(model)
    add_fused_lm_head(core, temperature=0.7, outputs=("log_probs", "entropy"))
    packed = None if pads else forest([ids for ids, _ in rows], [trained for _, trained in rows], CPU)
    logps_BT, entropy_BT, _ = trained_logprobs(model, Picked(core), *tensors(rows), packed)
    assert entropy_BT is not None
    return logps_BT, entropy_BT


def row_by_row(model: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
    """The definition, with the model's own forward pass."""
    outs = [torch.zeros(len(rows), max(len(ids) for ids, _ in rows)) for _ in range(2)]
    for i, (ids, trained) in enumerate(rows):
        logits_TV = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].float() / 0.7
        logps_TV = torch.log_softmax(logits_TV, -1)
        chosen_T = logps_TV.gather(-1, torch.tensor(ids)[1:, None])[:, 0]
        kept_T = torch.tensor(trained[1:]).bool()
        outs[0][i, 1 : len(ids)] = torch.where(kept_T, chosen_T, 0.0)
        outs[1][i, 1 : len(ids)] = torch.where(kept_T, -(logps_TV.exp() * logps_TV).sum(-1), 0.0)
    return outs[0], outs[1]


def gradients(model: nn.Module, logps_BT: Tensor) -> dict[str, Tensor]:
    """Of a sum in which every token has another weight."""
    model.zero_grad()
    upstream = torch.rand(logps_BT.shape, generator=torch.Generator().manual_seed(1)) / max(1, logps_BT.count_nonzero())
    (logps_BT * upstream).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(model: nn.Module, plain: nn.Module, rows: Rows, **options: bool) -> None:
    logps, entropy = as_forest(model, rows, **options)
    wanted, wanted_entropy = row_by_row(plain, rows)
    torch.testing.assert_close(logps, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, wanted_entropy, rtol=1e-5, atol=1e-5)
    if not any(any(trained[1:]) for _, trained in rows):
        return
    got, want = gradients(model, logps), gradients(plain, wanted)
    assert got.keys() == want.keys() and want
    largest = max(g.abs().max().item() for g in want.values())
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-6 * max(1.0, largest), msg=name)


def small(kind: str) -> tuple[nn.Module, nn.Module]:
    """A model that attends over forests, and the same one as it was."""
    plain: nn.Module = tiny_model().train()
    if kind == "lora":
        torch.manual_seed(3)
        lora = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "down_proj"])
        plain = get_peft_model(plain, lora)  # type: ignore[arg-type]
        for name, parameter in plain.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
    model = copy.deepcopy(plain).train()
    assert sharing(unwrapped(model)) == ""
    if kind == "checkpointed":
        unwrapped(model).activation_checkpointing_enable()
    return model, plain


MODELS = {kind: small(kind) for kind in ("plain", "checkpointed", "lora")}
LONG = [5] * 30


@pytest.mark.parametrize("kind", MODELS)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(rows=forests())
@example(rows=[([1, 2], [0, 1])])
@example(rows=[([1, 2, 3], [0, 1, 0]), ([1, 2, 3], [0, 0, 1])])  # the same row twice
@example(rows=[([1, 2, 3, 4], [1, 1, 1, 1]), ([1, 2], [0, 1]), ([1, 2, 3], [0, 0, 1])])  # rows that others continue
@example(rows=[([1, 2, 3], [0] * 3), ([4, 5], [0, 0])])  # nothing is trained
@example(rows=[([*LONG, i, *LONG[:i]], [1] * (31 + i)) for i in range(5)])
def test_random_forests_are_their_rows(kind: str, rows: Rows) -> None:
    assert_equal(*MODELS[kind], rows)


def test_long_rows_in_several_masks() -> None:
    rng = random.Random(2)
    begin = [rng.randrange(VOCAB) for _ in range(40)]
    rows = [begin + [rng.randrange(VOCAB) for _ in range(n)] for n in (QUERIES + 90, 60, 2 * QUERIES + 5)]
    models = [AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, max_position_embeddings=4096)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    assert sharing(models[0]) == ""
    assert_equal(*models, [(ids, [i % 7 == 0 for i in range(len(ids))]) for ids in rows])


def test_what_rows_share_passes_once_and_only_trained_places_reach_the_head() -> None:
    rng = random.Random(5)
    begin = [rng.randrange(VOCAB) for _ in range(40)]
    rows = [([*begin, i, *begin[:9]], [0] * 41 + [1, 0] * 4 + [1]) for i in range(8)]
    rows += rows[:2]  # two episodes with the same tokens
    model, seen = tiny_model(), []
    assert sharing(model) == ""
    model.model.layers[0].mlp.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:2].numel()))
    add_fused_lm_head(model)
    picked = Picked(model)
    model.model.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state.shape[:2].numel()))
    trained_logprobs(model, picked, *tensors(rows), forest([r for r, _ in rows], [t for _, t in rows], CPU))
    assert seen == [39 + 8 * 10, 8 * 5]


def test_how_many_nodes_two_rows_share() -> None:
    def nodes(a: list[int], b: list[int]) -> int:
        return shared_nodes(np.array(a, np.int64), np.array(b, np.int64))

    assert nodes([1, 2, 3], [1, 2, 4]) == 1  # 2 has another token after it in each
    assert nodes([1, 2, 3], [1, 2, 3]) == 2
    assert nodes([1, 2], [1, 2, 3]) == nodes([1, 2, 3], [1, 2]) == 1
    assert nodes([1], [1]) == nodes([], [1, 2]) == nodes([1, 2], [2, 1]) == 0


# Which models ---------------------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {
    **{"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
FITTING = {
    "qwen3": Qwen3Config(**SIZES, head_dim=24),
    "qwen2": Qwen2Config(**SIZES),
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(
        **{"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
        **{"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    ),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, sliding_window=None),
}
YARN = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
REFUSED = {
    "mistral with a window": (MistralConfig(**SIZES, sliding_window=8), "its attention has a sliding window"),
    "qwen3 with windows in some layers": (
        Qwen3Config(
            **SIZES, use_sliding_window=True, sliding_window=8, layer_types=["full_attention", "sliding_attention"]
        ),
        "layers of kind sliding_attention",
    ),
    "gemma2": (Gemma2Config(**SIZES, head_dim=16, layer_types=["full_attention"] * 2), "scores have a soft cap"),
    "gemma3": (Gemma3TextConfig(**SIZES, head_dim=16), "layers of kind sliding_attention"),
    "mamba": (MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2), "state-space"),
    "qwen3-next": (
        Qwen3NextConfig(**SIZES, head_dim=16, num_experts=2, linear_num_key_heads=2, linear_num_value_heads=2),
        "state-space or linear-attention",
    ),
    "gpt-oss": (GptOssConfig(**SIZES, head_dim=16, num_local_experts=4), "layers of kind sliding_attention"),
    "gpt-oss with sinks alone": (
        GptOssConfig(**SIZES, head_dim=16, num_local_experts=4, layer_types=["full_attention"] * 2),
        "does not fit",
    ),
    "mixtral that balances its experts": (
        MixtralConfig(**SIZES, num_local_experts=4, sliding_window=None, output_router_logits=True),
        "auxiliary loss",
    ),
    "llama with moving angles": (LlamaConfig(**SIZES, rope_parameters=YARN), r"angles \(dynamic\)"),
}
ROWS = [([*LONG, 3, i, *LONG[:4]], [0] * 31 + [1] * 5) for i in range(4)]


def build(config: Any) -> PreTrainedModel:
    torch.manual_seed(3)
    capped = getattr(config, "attn_logit_softcapping", None)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager" if capped else None)


@pytest.mark.parametrize("name", FITTING)
def test_families_that_share(name: str) -> None:
    model, plain = build(FITTING[name]).train(), build(FITTING[name]).train()
    assert sharing(model) == "" and model.config._attn_implementation == IMPLEMENTATION
    assert_equal(model, plain, ROWS)
    ids_BT, mask_BT, _ = tensors([*ROWS[:1], (LONG[:9], [1] * 9)])
    logits = [m(ids_BT, attention_mask=mask_BT, use_cache=False).logits[mask_BT.bool()] for m in (model, plain)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)  # without a forest, it attends as before


@pytest.mark.parametrize("name", REFUSED)
def test_families_that_do_not_are_refused_by_name_and_padded(name: str) -> None:
    config, why = REFUSED[name]
    model, plain = build(config).train(), build(config).train()
    before = model.config._attn_implementation
    reason = sharing(model)
    assert re.search(why, reason), reason
    assert model.config._attn_implementation == before and model.training
    if name != "qwen3-next":  # without its kernels it takes minutes
        logps, _ = as_forest(model, ROWS, pads=True)
        torch.testing.assert_close(logps, row_by_row(plain, ROWS)[0], rtol=1e-4, atol=1e-4)
