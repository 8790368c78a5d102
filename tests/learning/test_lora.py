"""Training an adapter: what is trained, what is pushed, what is saved, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_kit import Rows, config, one_step, random_rows, tiny_model, tiny_tokenizer, trainer_of
from peft import PeftModel

from crrl.conf.checks import check
from crrl.conf.schema import Adapter, Config
from crrl.engines.load import load_model
from crrl.engines.local import LocalEngine
from crrl.errors import UsageError
from crrl.learning import checkpoint
from crrl.learning.lora import new, trainable
from crrl.learning.make_trainer import make_trainer
from crrl.learning.precision import make_optimizer
from crrl.learning.push import ModuleWeights, push_and_prove

LORA = Adapter("lora", r=4, alpha=8)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_new_adapter_is_the_identity_and_a_function_of_the_seed(base: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    made = [trainable(base, LORA, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before), "sampling and tasks draw from it"
    ids = torch.arange(20)[None]
    plain = load_model(base)(ids).logits
    assert all(torch.equal(model(ids).logits, plain) for model in made)
    first, same, other = (state(model) for model in made)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_only_the_adapter_is_trained_and_has_moments(base: Path, tmp_path: Path) -> None:
    model = trainable(base, LORA, 0)
    before = state(model)
    trainer = trainer_of(tmp_path / "run", Rows(random_rows), model, max_steps=2, learning_rate=1e-2, weight_decay=0.1)
    trainer.train()
    changed = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
    adapted = {name for name in before if ".lora_" in name}
    assert changed == adapted and len(adapted) == 2 * 2 * 7, "all linear layers of both"
    moments = sum(t.numel() for s in trainer.optimizer.state.values() for n, t in s.items() if n == "exp_avg")
    assert moments == sum(before[name].numel() for name in adapted)
    settings = config().trainer
    assert len(make_optimizer(model, settings).param_groups[0]["params"]) == len(adapted)


def test_gradient_checkpointing_gives_the_same_gradients(base: Path, tmp_path: Path) -> None:
    """Nothing before the first adapter needs a gradient, which checkpointed layers must not take for none at all."""
    found = []
    for checkpointing in (False, True):
        model = moved(trainable(base, LORA, 0))
        found.append(
            one_step(tmp_path / str(checkpointing), random_rows(0), model, gradient_checkpointing=checkpointing)
        )
    (plain, _), (checkpointed, _) = found
    assert plain.keys() == checkpointed.keys() and len(plain) == 28
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-7)


def moved(model: Any) -> Any:
    """An adapter some updates later."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return model


async def test_a_run_that_goes_on_serves_the_bits_that_were_pushed(base: Path, tmp_path: Path) -> None:
    """Pushes merge one tensor at a time; an engine that starts from the checkpoint merges on loading."""
    model = trainable(base, LORA, 0)
    trainer_of(tmp_path / "run", Rows(random_rows), model, max_steps=2, learning_rate=1e-2).train()
    engine = LocalEngine(load_model(base), "hash", context=64)
    assert await push_and_prove(engine, model, 1) < 2e-5
    pushed = dict(ModuleWeights(model).tensors())
    engine.close()
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None
    loaded = load_model(found).state_dict()
    assert loaded.keys() == pushed.keys() and all(torch.equal(loaded[name], pushed[name]) for name in loaded)


def test_what_is_saved_is_peft_s_and_names_its_base(base: Path, tmp_path: Path) -> None:
    model = trainable(base, LORA, 0)
    trainer_of(tmp_path / "run", Rows(random_rows), model, max_steps=1, learning_rate=1e-2).train()
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None
    assert json.loads((found / "base.json").read_text())["model"] == str(base)
    assert not (found / "model.safetensors").exists() and not (found / "training_args.bin").exists()
    theirs = PeftModel.from_pretrained(tiny_model(), str(found))
    ids = torch.arange(20)[None]
    assert torch.equal(theirs(ids).logits, model.eval()(ids).logits)


def test_adapter_only_pushes_have_all_that_changed(base: Path) -> None:
    """Put on the base, they are the policy; in PEFT's words, which other engines read."""
    model: Any = moved(trainable(base, LORA, 0))
    model.add_adapter("reference", copy.deepcopy(model.peft_config["default"]))  # as a KL term has it
    model.set_adapter("default")
    given = ModuleWeights(model).adapter()
    assert given is not None
    folder = base.parent / "adapter"
    folder.mkdir()
    from safetensors.torch import save_file

    (folder / "adapter_config.json").write_text(json.dumps(given.config))
    save_file(dict(given.tensors), folder / "adapter_model.safetensors")
    theirs = PeftModel.from_pretrained(tiny_model(), str(folder))
    ids = torch.arange(20)[None]
    assert torch.equal(theirs(ids).logits, model.eval()(ids).logits)
    assert ModuleWeights(tiny_model()).adapter() is None


def test_a_run_goes_on_where_its_base_was_moved(base: Path, tmp_path: Path) -> None:
    made = Config()
    made.model.path = str(base)
    made.trainer.max_steps = 1
    source = Rows(random_rows)
    model = trainable(base, LORA, 0)
    make_trainer(model, tiny_tokenizer(), made, tmp_path / "run", source, source.on_step).train()
    moved_to = str(base.rename(tmp_path / "moved"))
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None
    made.model.base, made.trainer.max_steps = moved_to, 2
    going_on = trainable(found, LORA, 0, base=moved_to)
    make_trainer(going_on, tiny_tokenizer(), made, tmp_path / "run", source, source.on_step, found).train()
    assert [step for step, _ in source.taken] == [0, 1]
    last = checkpoint.latest(tmp_path / "run")
    assert last is not None and json.loads((last / "base.json").read_text())["model"] == moved_to
    assert load_model(last) is not None, "it is found without being named again"


# Going on with an adapter ------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    moved(trainable(base, LORA, 0)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapters_folder_is_gone_on_with_or_merged(base: Path, adapter: Path) -> None:
    ids = torch.arange(20)[None]
    there = PeftModel.from_pretrained(tiny_model(), str(adapter))(ids).logits
    going_on = trainable(adapter, LORA, seed=9)
    assert torch.equal(going_on(ids).logits, there)
    assert {name.rpartition(".lora_")[1] for name, p in going_on.named_parameters() if p.requires_grad} == {".lora_"}
    whole = trainable(adapter, Adapter("none"), seed=9)
    assert not hasattr(whole, "peft_config") and all(p.requires_grad for p in whole.parameters())
    torch.testing.assert_close(whole(ids).logits, there)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (Adapter("lora", r=8, alpha=8), "adapter.r=8, but the adapter in .* has 4"),
        (Adapter("lora", r=4, alpha=16), "adapter.alpha=16, but the adapter in .* has 8"),
        (Adapter("lora", r=4, alpha=8, targets=["q_proj"]), "adapter.targets=q_proj, but the adapter in .* has others"),
    ],
)
def test_another_adapter_than_the_settings_ask_for_is_refused(adapter: Path, other: Adapter, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        trainable(adapter, other, 0)
    assert error.value.remedy


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (["no_proj"], "has no modules no_proj"),
        (["q_proj", "no_proj"], "has no modules no_proj"),
        (["_proj"], "has no modules _proj"),
        (["lm_head"], "the output layer cannot be adapted"),
        (["embed_tokens"], "cannot be merged"),
        (["input_layernorm"], "input_layernorm"),
        (["self_attn"], "self_attn"),
    ],
)
def test_layers_that_cannot_be_adapted(targets: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        new(tiny_model(), Adapter("lora", targets=targets), 0)
    assert str(error.value).startswith(f"adapter.targets={','.join(targets)}") and error.value.remedy


def test_an_adapter_keeps_float32_moments_on_a_bfloat16_base() -> None:
    made = Config()
    made.trainer.dtype = "bfloat16"
    with pytest.raises(UsageError, match="too coarse") as error:
        check(made)
    assert "adapter=lora" in error.value.remedy
    made.adapter.name = "lora"
    check(made)
    model: Any = new(tiny_model().to(torch.bfloat16), LORA, 0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model.get_base_model().model.norm.weight.dtype == torch.bfloat16
    moved(model)
    given = dict(ModuleWeights(model).tensors())
    name = "model.layers.0.self_attn.q_proj"
    layer = model.get_submodule(f"base_model.model.{name}")
    exact = layer.base_layer.weight.float() + layer.get_delta_weight("default")
    assert torch.equal(given[f"{name}.weight"], exact), "a delta is not rounded on the way"
