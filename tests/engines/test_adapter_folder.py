"""Adapter folders: on their own base and no other, merged as PEFT merges, or an error that says what to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_kit import tiny_model, tiny_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from crrl.engines import adapter
from crrl.engines.adapter import Base
from crrl.engines.fingerprint import fingerprint
from crrl.engines.load import load_local, load_model, load_tokenizer
from crrl.errors import CrrlError, UsageError
from crrl.models import model_folder


def trained_adapter(model: Any, **settings: Any) -> PeftModel:
    """With weights that are not the identity's."""
    defaults = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    made = get_peft_model(model, LoraConfig(**{**defaults, **settings}))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return made


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def saved(base: Path, to: Path, *, known: bool = True, **settings: Any) -> Path:
    made = trained_adapter(load_model(base), **settings)
    made.peft_config["default"].base_model_name_or_path = str(base)
    made.save_pretrained(to)
    if known:
        Base.at(base).write(to)
    return to


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}, {"lora_dropout": 0.1}])
def test_it_is_merged_into_its_base(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = saved(base, tmp_path / "adapter", **settings)
    theirs: Any = PeftModel.from_pretrained(tiny_model(), str(folder))
    wanted = theirs.merge_and_unload().state_dict()
    found = load_model(folder).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    changed = [name for name, tensor in load_model(base).state_dict().items() if not torch.equal(tensor, found[name])]
    assert len(changed) == 4 and all(name.split(".")[-2] in ("q_proj", "down_proj") for name in changed)


def test_an_adapter_without_tokenizer_or_record_takes_its_bases(base: Path, tmp_path: Path) -> None:
    folder = saved(base, tmp_path / "adapter", known=False)
    assert load_tokenizer(folder).get_vocab() == load_tokenizer(base).get_vocab()
    engine = load_local(folder, context=64)
    engine.close()


def test_a_moved_base_is_said_and_can_be_named(base: Path, tmp_path: Path) -> None:
    folder = saved(base, tmp_path / "adapter")
    before = load_model(folder).state_dict()
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(CrrlError, match=f"is not at {base}") as error:
        load_model(folder)
    assert "model.base=FOLDER" in error.value.remedy
    after = load_model(folder, base=str(moved)).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(UsageError, match="would be ignored"):
        load_model(moved, base=str(moved))


@pytest.mark.parametrize("named", [False, True])
def test_another_base_is_refused_by_its_fingerprint(base: Path, tmp_path: Path, named: bool) -> None:
    folder = saved(base, tmp_path / "adapter")
    other = tmp_path / "other" if named else base
    tiny_model(seed=1).save_pretrained(other)
    with pytest.raises(CrrlError, match=r"trained on another base model: fingerprint \w+; .* has \w+") as error:
        load_model(folder, base=str(other) if named else "")
    assert "model.base=FOLDER" in error.value.remedy


def test_the_shipped_policy_is_recorded_by_its_name() -> None:
    recorded = Base.at(model_folder("tiny"))
    assert recorded == Base("tiny", fingerprint(model_folder("tiny")))


def test_an_adapter_on_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    first = saved(base, tmp_path / "first")
    second = saved(base, tmp_path / "second", known=False)
    config = json.loads((second / adapter.CONFIG).read_text()) | {"base_model_name_or_path": str(first)}
    (second / adapter.CONFIG).write_text(json.dumps(config))
    with pytest.raises(CrrlError, match="is itself an adapter") as error:
        load_model(second)
    assert "--merged" in error.value.remedy


def configured(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / adapter.CONFIG
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / adapter.WEIGHTS)
        changed = {name: tensor.contiguous() for name, tensor in change(tensors).items()}
        save_file(changed, folder / adapter.WEIGHTS)

    return damage


def cut(folder: Path) -> None:
    file = folder / adapter.WEIGHTS
    file.write_bytes(file.read_bytes()[:300])


FAULTS: list[tuple[Callable[[Path], Any], str]] = [
    (configured(use_dora=True), "more than plain LoRA: use_dora=True"),
    (configured(bias="all"), "more than plain LoRA: bias=all"),
    (configured(modules_to_save=["lm_head"]), "more than plain LoRA: modules_to_save"),
    (configured(lora_bias=True), "more than plain LoRA: lora_bias"),
    (configured(trainable_token_indices=[1, 2]), "more than plain LoRA: trainable_token_indices"),
    (configured(layer_replication=[[0, 2]]), "more than plain LoRA: layer_replication"),
    (configured(init_lora_weights="pissa"), "more than plain LoRA: init_lora_weights=pissa"),
    (configured(peft_type="IA3"), "is IA3, not LoRA"),
    (configured(target_modules=["nowhere"]), "does not fit its base model"),
    (configured(target_modules=["lm_head"]), "does not fit its base model|cannot be merged"),
    (configured(r=8), "does not fit its base model"),
    (lambda p: (p / adapter.CONFIG).write_text("{"), r"adapter_config\.json cannot be read"),
    (lambda p: (p / adapter.CONFIG).write_text("[]"), r"adapter_config\.json cannot be read"),
    (lambda p: (p / "base.json").write_text("{}"), r"base\.json cannot be read"),
    (lambda p: (p / adapter.WEIGHTS).unlink(), r"has no adapter_model\.safetensors"),
    (cut, r"adapter_model\.safetensors is damaged"),
    (weights(lambda t: dict(list(t.items())[1:])), "does not fit its base model: .*lora_"),
    (weights(lambda t: t | {"base_model.model.extra.lora_A.weight": torch.zeros(2)}), "does not fit its base model"),
    (weights(lambda t: {name: tensor[:, :5] for name, tensor in t.items()}), "does not fit its base model"),
    (weights(lambda t: {name: tensor * float("nan") for name, tensor in t.items()}), "holds NaN or infinity"),
]


@pytest.mark.parametrize(("damage", "says"), FAULTS)
def test_what_cannot_be_put_on_is_refused_with_a_remedy(
    base: Path, tmp_path: Path, damage: Callable[[Path], Any], says: str
) -> None:
    folder = saved(base, tmp_path / "adapter")
    damage(folder)
    with pytest.raises(CrrlError, match=says) as error:
        load_model(folder)
    assert str(folder) in error.value.message or "lm_head" in error.value.message
    assert error.value.remedy


def test_an_adapter_of_tied_embeddings_is_refused(base: Path, tmp_path: Path) -> None:
    """Merged, it would change the embeddings, too."""
    folder = saved(base, tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.raises(CrrlError, match=r"lm_head \(shares its weights with the embeddings\) cannot be merged"):
        load_model(folder)


# The fingerprint -----------------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_weights_however_they_are_cut_into_files(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "one")
    tiny_model().save_pretrained(tmp_path / "many", max_shard_size="20kB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "many")
    save_file({"x": torch.tensor(1.0), "y": torch.arange(8.0).view(2, 2, 2)}, tmp_path / "x.safetensors")
    seen = {fingerprint(tmp_path), fingerprint(tmp_path / "one")}
    for change in ({"x": torch.tensor(2.0)}, {"y": torch.arange(8.0).view(4, 2)}, {"z": torch.zeros(0)}):
        save_file({"x": torch.tensor(1.0), "y": torch.arange(8.0).view(2, 2, 2), **change}, tmp_path / "x.safetensors")
        seen.add(fingerprint(tmp_path))
    assert len(seen) == 5
    with pytest.raises(CrrlError, match="has no weights"):
        fingerprint(tmp_path / "nowhere")
    (tmp_path / "x.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(CrrlError, match=r"x\.safetensors is damaged"):
        fingerprint(tmp_path)


def test_an_adapters_fingerprint_has_its_bases(base: Path, tmp_path: Path) -> None:
    folder = saved(base, tmp_path / "adapter")
    before = fingerprint(folder)
    tiny_model(seed=1).save_pretrained(base)
    Base.at(base).write(folder)
    assert fingerprint(folder) != before
