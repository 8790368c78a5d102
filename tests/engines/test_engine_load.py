"""A damaged or foreign model folder gets an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from engine_kit import VOCAB, collect, plain_logprobs, prompt, tiny_qwen3
from test_engine_exactness import CONFIGS, build
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from crrl import engines
from crrl.engines import Request
from crrl.engines.device import DTYPES, has_bfloat16
from crrl.engines.load import load_local, load_model
from crrl.errors import CrrlError, UsageError

HAS_BFLOAT16 = has_bfloat16(torch.device("cpu"))
IDS = prompt(1, 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_qwen3().save_pretrained(tmp_path)
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=raw, chat_template="{{ messages }}").save_pretrained(tmp_path)
    return tmp_path


async def test_a_good_folder(folder: Path) -> None:
    engine = load_local(folder, context=64)
    assert (await engine.info()).context == 64
    assert len((await collect(engine, Request("a", [1], 5))).ids) == 5
    engine.close()


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def _foreign_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))


def _truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def _no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_template, "no chat template"),
        (_no_tokenizer, "no tokenizer"),
        (_truncated, r"model\.safetensors is damaged"),
        (_foreign_config, "not those of its config|cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
    ],
)
def test_a_bad_folder(folder: Path, spoil, words: str) -> None:
    spoil(folder)
    with pytest.raises(CrrlError, match=words) as e:
        load_local(folder)
    assert e.value.remedy


def test_no_folder_and_a_context_beyond_the_model(folder: Path) -> None:
    with pytest.raises(CrrlError, match="There is no model folder"):
        load_local(folder / "nowhere")
    with pytest.raises(CrrlError, match=r"engine\.context="):
        load_local(folder, context=10**7)


@pytest.mark.parametrize(("name", "attention"), [("qwen3", "sdpa"), ("gemma2", "eager")])
def test_the_fastest_attention_that_a_model_has(tmp_path: Path, name: str, attention: str) -> None:
    """`eager` keeps every score of every layer for the backward pass; a soft cap has nothing else."""
    build(CONFIGS[name]).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.config._attn_implementation == attention
    assert plain_logprobs(model, IDS) == pytest.approx(plain_logprobs(build(CONFIGS[name]), IDS), abs=1e-4)


def test_the_engine_computes_where_and_in_what_it_is_told(folder: Path) -> None:
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    for device, dtype in (("auto", "float32"), ("cpu", "float32"), *([("cpu", "bfloat16")] if HAS_BFLOAT16 else [])):
        engine = engines.make("local", folder, context=64, max_batch=1, device=device, dtype=dtype)
        weights = {(p.device.type, p.dtype) for p in engine._runner.model.parameters()}
        assert weights == {(auto if device == "auto" else device, DTYPES[dtype])}
        engine.close()


def test_what_this_machine_cannot_do_is_refused(folder: Path) -> None:
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UsageError, match=rf"engine\.device={beyond}: torch") as error:
        load_local(folder, context=64, device=beyond)
    assert "engine.device=auto" in error.value.remedy
    if not HAS_BFLOAT16:
        with pytest.raises(UsageError, match=r"engine\.dtype=bfloat16: this CPU") as error:
            load_local(folder, context=64, device="cpu", dtype="bfloat16")
        assert "engine.dtype=float32" in error.value.remedy
