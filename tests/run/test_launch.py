"""Launching ranks: what accelerate and DeepSpeed are told, what is refused, and how the end of a rank is told."""

from __future__ import annotations

import importlib.util
import json
import signal
import time
from dataclasses import dataclass

import pytest
import torch
import yaml

from crrl.cli.main import main
from crrl.conf.load import load_recipe
from crrl.errors import CrrlError, UsageError
from crrl.run import launch


def test_accelerate_is_told_of_every_process() -> None:
    ddp = launch.configuration(load_recipe("quickstart", ["launch=ddp", "launch.processes=3"]))
    told = yaml.safe_load(ddp["accelerate.yaml"])
    assert told["num_processes"] == 3 and told["distributed_type"] == "MULTI_GPU" and not told["use_cpu"]
    assert list(ddp) == ["accelerate.yaml"]


def test_deepspeed_is_told_what_the_trainer_is() -> None:
    config = load_recipe("quickstart", ["launch=zero3", "launch.processes=2", "trainer.max_grad_norm=0.25"])
    told = json.loads(launch.configuration(config)["zero3.json"])
    assert told["zero_optimization"]["stage"] == 3 and told["gradient_clipping"] == 0.25
    assert not told["bf16"]["enabled"] and "auto" not in json.dumps(told)


def test_a_dry_run_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("the extra [deepspeed] is not installed")
    assert main(["train", "quickstart", "launch=zero3", "launch.processes=2", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "num_processes: 2" in printed and '"stage": 3' in printed


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["launch=ddp"], "two processes or more"),
        (["launch=zero3", "launch.processes=1"], "two processes or more"),
        (["launch.processes=2"], "launch.processes would be ignored"),
        (["launch=ddp", "launch.processes=0"], "too small"),
        (["launch=fsdp", "launch.processes=2"], "launch.name=fsdp does not exist"),
        (["launch=zero3", "launch.processes=2", "objective.beta=0.1"], "reference policy is not sharded"),
        (["launch=zero3", "launch.processes=2", "trainer.optimizer=adamw_8bit"], "shards the moments of adamw"),
        (
            ["launch=zero3", "launch.processes=2", "trainer.dtype=bfloat16", "adapter=lora"],
            "float32 copies of the weights",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        load_recipe("quickstart", settings)
    assert error.value.remedy


def test_deepspeed_that_is_not_there_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = load_recipe("quickstart", ["launch=zero3", "launch.processes=2"])
    with pytest.raises(UsageError, match="deepspeed is not installed") as error:
        launch.require(config)
    assert "[deepspeed]" in error.value.remedy
    launch.require(load_recipe("quickstart", ["launch=ddp", "launch.processes=2"]))


def test_every_process_needs_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launch.require(load_recipe("quickstart", ["launch=ddp", "launch.processes=2"]))
    with pytest.raises(UsageError, match=r"launch.processes=3, and this machine has 2 GPUs") as error:
        launch.require(load_recipe("quickstart", ["launch=ddp", "launch.processes=3"]))
    assert "launch.processes=2" in error.value.remedy


@dataclass
class Failure:
    """As torch's launcher has them."""

    local_rank: int
    exitcode: int
    timestamp: int


NOW = int(time.time())
KILL, TERM = -signal.SIGKILL, -signal.SIGTERM


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ([(0, launch.LOST, 0), (1, KILL, 0)], "Rank 1 of 2 was killed by SIGKILL"),
        ([(1, KILL, 0), (0, launch.LOST, 1)], "Rank 1 of 2 was killed by SIGKILL"),
        ([(1, KILL, 0), (0, TERM, 1)], "Rank 1 of 2 was killed by SIGKILL"),
        ([(0, KILL, 0), (1, launch.LOST, 0)], "Rank 0 of 2 was killed by SIGKILL"),
        ([(1, -signal.SIGSEGV, 0), (0, TERM, 1)], "Rank 1 of 2 was killed by SIGSEGV"),
        ([(1, TERM, 0), (0, launch.LOST, 1)], "Rank 1 of 2 was killed by SIGTERM"),
        ([(0, launch.LOST, 0), (1, launch.LOST, 0)], "lost the others"),
        ([(0, 1, 0), (1, TERM, 1)], 1),  # rank 0 has said why
        ([(0, 130, 0), (1, TERM, 0)], 130),
        ([(0, 2, 0)], 2),
        ([(1, 1, 0), (0, KILL, 31)], 1),  # rank 0 did not end when it was asked to
    ],
)
def test_the_end_of_a_rank_is_told_once(ended: list[tuple[int, int, int]], told: str | int) -> None:
    config = load_recipe("quickstart", ["launch=ddp", "launch.processes=2", "run=mine"])
    failures = {rank: Failure(rank, code, NOW + after) for rank, code, after in ended}
    if isinstance(told, int):
        assert launch._failed(config, failures) == told
        return
    with pytest.raises(CrrlError, match=told) as error:
        launch._failed(config, failures)
    assert "resume=mine" in error.value.remedy
