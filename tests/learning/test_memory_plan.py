"""What training takes, by hand and by measurement; and what is said where it does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

from crrl.cli.main import main
from crrl.conf.schema import Config
from crrl.errors import CrrlError
from crrl.learning.memory import GIB, estimate, kept, shape_of
from crrl.learning.plan import DoesNotFit, Room, _cgroups, _left, make_plan, require
from crrl.learning.tree import forest
from crrl.learning.tree_attention import sharing
from crrl.models import model_folder

SIZES = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 24,
}
KINDS: dict[str, type[PreTrainedConfig]] = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}
LARGE = {  # of the size of a model of 32 billion parameters
    "vocab_size": 151936,
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}


def folder_of(config: PreTrainedConfig, folder: Path) -> Path:
    """A model folder without weights."""
    config.architectures = [type(config).__name__.replace("Config", "ForCausalLM")]
    config.save_pretrained(folder)
    return folder


def saved(config: PreTrainedConfig, tokens: int, dtype: str, rank: int) -> int:
    """Bytes that torch keeps for the backward pass of a model's layers, apart from its weights."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    if dtype == "bfloat16":
        model = model.to(torch.bfloat16)
    assert not sharing(model)
    body = model.model
    if rank:
        adapted = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
        body = adapted.base_model.model.model
    weights = {p.untyped_storage().data_ptr() for p in body.parameters()}
    row = [(31 * i + 7) % 512 for i in range(tokens + 1)]
    packed = forest([row], [[1] * len(row)], torch.device("cpu"))
    kept_bytes: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept_bytes[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "mixed"),
    ):
        body(input_ids=packed.ids_N[None], position_ids=packed.positions_N[None], use_cache=False, forest=packed)
    return sum(kept_bytes.values())


@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_layer_keeps_is_what_torch_keeps(tmp_path: Path, kind: str, dtype: str, rank: int) -> None:
    """Per token, in the difference of three layers and one, of 128 tokens and 64."""
    sizes = [
        [saved(KINDS[kind](**SIZES, num_hidden_layers=n), tokens, dtype, rank) for tokens in (64, 128)] for n in (1, 3)
    ]
    (one, one_longer), (three, three_longer) = sizes
    measured = ((three_longer - one_longer) - (three - one)) / 2 / 64
    shape = shape_of(folder_of(KINDS[kind](**SIZES, num_hidden_layers=2), tmp_path))
    assert kept(shape, dtype, rank) == pytest.approx(measured, rel=0.02)


def test_a_model_is_counted_from_its_config_alone(tmp_path: Path) -> None:
    shape = shape_of(folder_of(Qwen3Config(**LARGE), tmp_path / "large"))
    assert 32e9 < shape.parameters < 33e9 and shape.tied == 0 and shape.qk_norm
    assert (shape.layers, shape.heads, shape.kv_heads, shape.context) == (64, 8192, 1024, 32768)
    real: Any = AutoModelForCausalLM.from_pretrained(model_folder("tiny"))
    tiny = shape_of(Path(model_folder("tiny")))
    assert tiny.parameters == sum(p.numel() for p in real.parameters()) and tiny.tied == 964 * 128
    linears = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    in_a_layer = sum(p.numel() for n, p in real.named_parameters() if n.split(".")[-2] in linears) // 4
    assert (tiny.linear, tiny.adapters, tiny.adapted) == (in_a_layer, 7, 4 * 256 + 3 * 512)
    assert shape_of(Path(model_folder("tiny")), ["q_proj", "v_proj"]).adapters == 2
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "num_hidden_layers": 2}
    mixture = shape_of(folder_of(Qwen3MoeConfig(**{**SIZES, **experts}), tmp_path / "moe"))
    assert mixture.mlp == 2 * 64


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CrrlError, match=r"no config\.json"):
        shape_of(tmp_path)
    for broken in ("{", '{"model_type": "unheard-of"}', '{"model_type": "qwen2", "hidden_size": "many"}', "[]"):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(CrrlError, match="cannot be loaded as a causal language model"):
            shape_of(tmp_path)


def of_large(folder: Path, **settings: Any) -> Config:
    config = Config()
    config.model.path = str(folder)
    config.trainer.dtype, config.engine.dtype = "mixed", "bfloat16"
    for key, value in settings.items():
        group, name = key.split("__")
        setattr(getattr(config, group), name, value)
    return config


def test_components_by_hand(tmp_path: Path) -> None:
    folder = folder_of(Qwen3Config(**LARGE), tmp_path)
    shape = shape_of(folder)
    weights = shape.parameters
    full = estimate(shape, of_large(folder), device="cuda")
    assert (full.weights, full.gradients, full.optimizer, full.engine) == (
        4 * weights,
        4 * weights,
        8 * weights,
        2 * weights,
    )
    coarse = of_large(folder, trainer__dtype="bfloat16", trainer__optimizer="adamw_8bit")
    small = estimate(shape, coarse, device="cuda")
    assert (small.weights, small.gradients, small.optimizer) == (2 * weights, 2 * weights, 2 * weights)
    lora = estimate(shape, of_large(folder, adapter__name="lora", adapter__r=16), device="cuda")
    ranks = 16 * 64 * ((5120 + 8192) * 2 + (5120 + 1024) * 2 + (5120 + 25600) * 3)
    assert (lora.gradients, lora.optimizer) == (4 * ranks, 8 * ranks) and lora.weights == 4 * weights + 4 * ranks
    cache = 2 * 2 * 64 * 1024  # a token's keys and values in bfloat16
    assert full.kv == cache * (32 * 32768 + 65536)
    split = estimate(shape, of_large(folder, launch__name="zero3", launch__processes=8), device="cuda", ranks=8)
    assert split.gradients == 2 * weights // 8 and split.optimizer == 12 * weights // 8
    copied = estimate(shape, of_large(folder, launch__name="ddp", launch__processes=8), device="cuda", ranks=8)
    assert copied.weights == full.weights and copied.gradients == 2 * full.gradients
    assert estimate(shape, of_large(folder, objective__beta=0.1), device="cuda").reference == 4 * weights
    less = estimate(shape, of_large(folder, trainer__gradient_checkpointing=True), device="cuda")
    assert less.activations < full.activations / 10


def test_what_does_not_fit_is_refused_with_settings_that_do(tmp_path: Path) -> None:
    folder = folder_of(Qwen2Config(**{**SIZES, "num_hidden_layers": 24, "max_position_embeddings": 8192}), tmp_path)
    config = Config()
    config.model.path = str(folder)
    plan = make_plan(config, Room("cpu", 64 * GIB, "64 GiB"))
    assert plan.fits and plan.needed == plan.memory.peak
    room = Room("cpu", int(0.7 * plan.needed), "less")
    with pytest.raises(DoesNotFit, match="and there is less") as error:
        require(config, room)
    words = error.value.remedy.removeprefix("Write ").removesuffix(" All components: crrl plan.").split()
    assert words
    for word in words:
        key, _, value = word.partition("=")
        group, _, name = key.partition(".")
        setattr(getattr(config, group), name or "name", json.loads(value) if value != "lora" else value)
    assert require(config, room).fits
    nothing = Room("cpu", GIB // 2, "nothing")
    with pytest.raises(DoesNotFit) as error:
        require(config, nothing)
    assert "No setting makes it fit" in error.value.remedy


def test_remedies_hold_no_setting_that_is_not_needed(tmp_path: Path) -> None:
    config = Config()
    plan = make_plan(config, Room("cpu", 0, "nothing"))
    with pytest.raises(DoesNotFit) as error:
        require(config, Room("cpu", plan.needed - 1, "a byte less"))
    assert error.value.remedy.startswith("Write trainer.tokens_per_micro_batch=8192 All")


def test_limits_of_cgroups(tmp_path: Path) -> None:
    """Of both versions, of a group around ours too; caches of files are free; `max` and huge numbers are no limit."""
    inner = tmp_path / "user" / "session"
    inner.mkdir(parents=True)
    mine = tmp_path / "self"
    mine.write_text("0::/user/session\n")
    folders = list(_cgroups(tmp_path, mine))
    assert folders == [inner, inner.parent, tmp_path]
    assert [_left(f) for f in folders] == [None, None, None]
    for name, text in {"max": "max", "current": "5000", "stat": "anon 1\ninactive_file 300\n"}.items():
        (inner / f"memory.{name}").write_text(text)
    assert _left(inner) is None
    (inner / "memory.max").write_text("9000\n")
    assert _left(inner) == 4300
    first = tmp_path / "memory" / "job"
    first.mkdir(parents=True)
    mine.write_text("4:cpu:/job\n7:memory:/job\n0::/gone\n")
    assert first in list(_cgroups(tmp_path, mine))
    (first / "memory.limit_in_bytes").write_text("9223372036854771712")
    (first / "memory.usage_in_bytes").write_text("5000")
    (first / "memory.stat").write_text("total_inactive_file 1000\n")
    assert _left(first) is None
    (first / "memory.limit_in_bytes").write_text("6000")
    assert _left(first) == 2000
    assert list(_cgroups(tmp_path, tmp_path / "absent")) == []


def test_this_machine_has_something_left() -> None:
    room = Room.here()
    assert room.device in ("cpu", "cuda") and 0 < room.bytes < 2**50 and "GiB" in room.what


# The verb ---------------------------------------------------------------------------------------------------------


def test_crrl_plan_says_by_component_and_exits_by_the_answer(tmp_path: Path, capsys: Any) -> None:
    assert main(["plan", "quickstart"]) == 0
    said = capsys.readouterr().out
    assert "activations" in said and "It fits." in said
    folder = folder_of(Qwen3Config(**LARGE), tmp_path)
    words = ["plan", "quickstart", f"model.path={folder}", "trainer.dtype=mixed", "engine.dtype=bfloat16"]
    assert main([*words, "card_gb=80"]) == 1
    assert "It does not fit." in capsys.readouterr().out
    split = ["launch=zero3", "cards=8", "card_gb=80", "--json"]
    assert main([*words, *split]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ranks"] == 8 and not answer["fits"] and answer["needed"] > 80 * GIB
    assert main(["plan", "quickstart", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    lasting = sum(answer["components"][name] for name in ("program", "weights", "optimizer", "engine"))
    step = sum(answer["components"][name] for name in ("gradients", "activations", "logits"))
    assert answer["needed"] == lasting + max(step, answer["components"]["kv"]) and answer["remedy"] == ""
    assert main(["plan", "quickstart", "rollout.staleness=1", "--json"]) == 0  # its engine samples all the while
    answer = json.loads(capsys.readouterr().out)
    assert answer["needed"] == lasting + step + answer["components"]["kv"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "needs a RECIPE"),
        (["quickstart", "cards=8"], "launch=local uses one"),
        (["quickstart", "cards=0"], "not a positive number"),
        (["quickstart", "cards=1.5"], "not a whole number"),
        (["quickstart", "card_gb=much"], "not a positive number"),
        (["quickstart", "launch=zero3", "launch.processes=8", "cards=4"], "launch.processes=8, and cards=4"),
        (["quickstart", "model.path=/nowhere"], "there is no such folder"),
    ],
)
def test_what_crrl_plan_refuses(words: list[str], says: str, capsys: Any) -> None:
    assert main(["plan", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_run_that_does_not_fit_is_refused_before_its_folder_is_made(tmp_path: Path, capsys: Any) -> None:
    """On a CPU, where the kernel would kill it; on a GPU the dry step tells."""
    if torch.cuda.is_available():
        pytest.skip("on a GPU the dry step tells")
    runs = tmp_path / "runs"
    words = ["train", "quickstart", f"runs_dir={runs}", "run=large", "trainer.tokens_per_micro_batch=100000000"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "This run would need" in said and "Write trainer.tokens_per_micro_batch=" in said
    assert not (runs / "large").exists()


# Measured ---------------------------------------------------------------------------------------------------------


def peak(folder: Path, *words: str) -> dict[str, Any]:
    """Of two steps, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "crrl.learning.peak", str(folder), *words], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "words", [("tokens=4096", "row=1024"), ("tokens=2048", "row=1024", "checkpointing=1", "lora=8")]
)
def test_the_estimate_is_the_measured_peak(words: tuple[str, ...]) -> None:
    found = peak(Path(model_folder("tiny")), *words)
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15)
