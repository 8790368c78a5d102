"""Settings of engine=vllm that could not work, or would change nothing, are refused before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.errors import UsageError
from crrl.models import model_folder
from crrl.run import engine as engines_of_runs
from crrl.run.engine import engine_of, require_for_training
from crrl.sandbox import cache


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["engine.transport=adapter"], "Add adapter=lora"),
        (["engine.share=true", "engine.device=cpu"], "on a CPU vLLM does not sleep"),
    ],
)
def test_what_cannot_be_trained_so(words: list[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        require_for_training(load_recipe("quickstart", ["engine=vllm", *words]))
    assert says in f"{caught.value}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["engine.device=cuda:0"], "engine.share=true"),
        (["engine.device=cuda:1", "engine.share=true"], "for one GPU"),
        (["engine.device=cuda:0", "engine.share=true", "engine.replicas=2"], "for one GPU"),
        (["engine.device=cuda:0", "engine.share=true", "engine.tensor_parallel=2"], "for one GPU"),
        (["engine.device=cuda:0", "engine.share=true"], ""),
        (["engine.device=cuda:1"], ""),
    ],
)
def test_cards(words: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with GPUs."""
    monkeypatch.setattr(engines_of_runs, "device_of", torch.device)
    config = load_recipe("quickstart", ["engine=vllm", *words])
    if not says:
        require_for_training(config)
        return
    with pytest.raises(UsageError) as caught:
        require_for_training(config)
    assert says in f"{caught.value}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["engine=local", "engine.transport=stream"], "it is for engine.name=vllm"),
        (["engine=local", "engine.replicas=2"], "it is for engine.name=vllm"),
        (["engine=local", "engine.share=false"], "it is for engine.name=vllm"),
        (["engine=vllm", "engine.url=http://h:1", "engine.replicas=2"], "the one at engine.url has its own"),
        (["engine=vllm", "engine.url=http://h:1", "engine.share=true"], "the one at engine.url has its own"),
        (["engine=vllm", "engine.transport=nccl"], "stream"),
        (["engine=vllm", "engine.replicas=0"], "engine.replicas"),
    ],
)
def test_what_would_be_ignored_or_is_no_word(words: list[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("quickstart", words)
    assert says in f"{caught.value}"


@pytest.mark.parametrize("word", ["engine.share=true", "engine.transport=stream"])
def test_an_evaluation_pushes_nothing(word: str, capsys: Any) -> None:
    assert main(["eval", "tiny", "engine=vllm", word]) == 2
    assert "would be ignored: crrl eval does not train" in capsys.readouterr().err
    assert main(["serve", "tiny", "engine=vllm", word]) == 2
    assert "would be ignored: crrl serve does not train" in capsys.readouterr().err


def test_a_server_may_have_it(capsys: Any) -> None:
    assert main(["serve", "tiny", "engine=vllm", "engine.transport=adapter", "--dry-run"]) == 0
    assert main(["serve", "tiny", "enginee=vllm", "--dry-run"]) == 2


@pytest.mark.parametrize("url", ["http://a:1,b:2", "http://a:1,", "http://a:1,http://a:1/"])
def test_addresses_of_several_servers(url: str) -> None:
    config = load_recipe("quickstart", ["engine=vllm", f"engine.url={url}"])
    with pytest.raises(UsageError, match=r"engine\.url="):
        engine_of(config, model_folder("tiny"), note=print)


def test_the_environment_of_a_run_is_in_use(tmp_path: Path) -> None:
    """`crrl clean engines` leaves it alone meanwhile."""
    environment = tmp_path / "engines" / "vllm"
    environment.mkdir(parents=True)
    words = ["engine=vllm", f"sandbox.state_dir={tmp_path}", "engine.device=cpu"]
    with pytest.raises(UsageError, match="make vllm"):  # it is empty
        engine_of(load_recipe("quickstart", words), model_folder("tiny"), note=print)
    (entry,) = cache.look(tmp_path, ["engines"]).entries
    assert entry.name == "engines/vllm" and entry.in_use
