"""`crrl export`: what other programs read of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from learning_kit import Rows, random_rows, tiny_model, tiny_tokenizer, trainer_of
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from crrl.cli.main import main
from crrl.conf.schema import Adapter
from crrl.engines.load import load_model
from crrl.learning.best import mark_best
from crrl.learning.lora import trainable

IDS = torch.arange(20)[None]


def trained(tmp_path: Path, adapter: str, dtype: torch.dtype = torch.float32) -> Path:
    """A run folder with checkpoints of steps 1 and 2."""
    base, run = tmp_path / "base", tmp_path / "run"
    tiny_model().to(dtype).save_pretrained(base)
    model = trainable(base, Adapter(adapter, r=4), 0)
    trainer_of(run, Rows(random_rows), model, max_steps=2, save_steps=1, learning_rate=1e-2).train()
    (run / "config.yaml").write_text("")
    return run


def logits(folder: Path) -> torch.Tensor:
    """As transformers alone reads the folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def test_a_merged_export_is_a_model_folder_of_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = trained(tmp_path, "lora"), tmp_path / "out"
    assert main(["export", str(run), str(out), "--merged"]) == 0 and "the merged model" in capsys.readouterr().out
    assert not (out / "adapter_config.json").exists() and not (out / "optimizer.pt").exists()
    assert not list(tmp_path.glob(".*"))
    theirs = PeftModel.from_pretrained(tiny_model(), str(run / "checkpoints" / "step-2"))
    torch.testing.assert_close(logits(out), theirs(IDS).logits.detach(), rtol=1e-5, atol=1e-5)
    assert AutoTokenizer.from_pretrained(out).chat_template == tiny_tokenizer().chat_template


def test_a_merged_export_has_the_dtype_of_its_base(tmp_path: Path) -> None:
    run, out = trained(tmp_path, "lora", torch.bfloat16), tmp_path / "out"
    assert main(["export", str(run / "checkpoints" / "step-1"), str(out), "--merged"]) == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    merged = load_model(run / "checkpoints" / "step-1").state_dict()  # in float32
    assert all(torch.equal(t, merged[n].bfloat16().float()) for n, t in load_model(out).state_dict().items())


def test_without_merging_it_is_the_adapter(tmp_path: Path) -> None:
    run, out = trained(tmp_path, "lora"), tmp_path / "out"
    assert main(["export", str(run / "checkpoints" / "step-1"), str(out), "--json"]) == 0
    names = {p.name for p in out.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "base.json", "tokenizer.json"} <= names
    assert not names & {
        "config.json",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "crrl.json",
    }
    assert torch.equal(logits(out), logits(run / "checkpoints" / "step-1"))


def test_a_whole_model_is_copied_and_the_best_is_named_with_its_bias(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = trained(tmp_path, "none"), tmp_path / "out"
    mark_best(run / "checkpoints", 1, 0.5)
    assert main(["export", str(run / "checkpoints" / "best"), str(out)]) == 0
    assert "chosen partly by chance" in capsys.readouterr().out
    assert torch.equal(logits(out), logits(run / "checkpoints" / "step-1"))
    assert "optimizer.pt" not in {p.name for p in out.iterdir()}


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = trained(tmp_path, "lora"), tmp_path / "out"
    step = run / "checkpoints" / "step-2"
    tiny_model(seed=1).save_pretrained(tmp_path / "other")
    for words, code, said in (
        ([str(run)], 2, "needs OUT"),
        (["nowhere", str(out)], 2, "neither a run nor a model folder"),
        ([str(run), str(run)], 2, "exists"),
        ([str(tmp_path / "base"), str(out), "--merged"], 2, "whole model"),
        ([str(run), str(out), "--merge"], 2, "--merged"),
        ([str(run), str(out), "trainer.max_steps=3"], 2, "takes no settings"),
        ([str(run), str(out), f"model.base={tmp_path / 'base'}"], 2, "would be ignored"),
        ([str(run), str(out), "--merged", f"model.base={tmp_path / 'other'}"], 1, "another base model"),
        ([str(run), str(out), "--merged", "model.base=nowhere"], 1, "model.base=FOLDER"),
    ):
        assert main(["export", *words]) == code, words
        assert said in capsys.readouterr().err, words
    (step / "adapter_model.safetensors").write_bytes(b"x")
    for flags in ([], ["--merged"]):
        assert main(["export", str(run), str(out), *flags]) == 1
        assert "damaged: adapter_model.safetensors" in capsys.readouterr().err
    assert main(["train", "--merged"]) == 2, "a flag of export alone"
    assert not out.exists() and not list(tmp_path.glob(".*"))
