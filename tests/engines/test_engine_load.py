"""A damaged or foreign model folder gets an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_kit import VOCAB, collect, tiny_qwen3
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from crrl.engines import Request
from crrl.engines.load import load_local
from crrl.errors import CrrlError


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
