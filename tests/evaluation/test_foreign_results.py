"""Logs of Inspect and jobs of Harbor: what counts, what is lost, what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from crrl.cli.main import main
from crrl.errors import CrrlError
from crrl.evaluation.compare import compare
from crrl.evaluation.results import read
from crrl.report.inspect_export import write_inspect
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal

RECORD = Path(__file__).parent / "records/inspect-0.3.285.eval"
"""Written by inspect_ai 0.3.285 (zstd), its messages and events taken out: four samples in two epochs, one of which
failed."""


def test_a_log_of_inspect() -> None:
    found = read(str(RECORD))
    assert found.cells[""].scores == {"t0": [1.0, 0.0], "t1": [0.0, 1.0], "t2": [1.0, 0.0]}
    assert found.cells[""].lost == {"t3": 2}
    assert found.ruler["task"] == "small" and found.policy == {"policy": "mockllm/model"}


def log(**changed: Any) -> dict[str, Any]:
    """The record as Inspect's own `inspect log convert --to json` has it."""
    from crrl.evaluation.inspect_logs import _of_zip

    header, samples = _of_zip(RECORD)
    whole = {**header, "samples": list(samples)}
    return {**whole, **changed, "eval": {**whole["eval"], **changed.get("eval", {})}}


def test_a_log_as_json_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    file.write_text(json.dumps(log()))
    assert read(str(file)).cells == read(str(RECORD)).cells
    with zipfile.ZipFile(tmp_path / "deflated.eval", "w", compression=zipfile.ZIP_DEFLATED) as archive:
        whole = log()
        for sample in whole.pop("samples"):
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        archive.writestr("header.json", json.dumps(whole))
    assert read(str(tmp_path / "deflated.eval")).cells == read(str(RECORD)).cells


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "large"}, "task: small"),
        ({"task_version": 2}, "task_version: 0"),
        ({"task_args": {"split": "test"}}, "task_args"),
        ({"scorers": [{"name": "other"}]}, "scorers"),
    ],
)
def test_logs_of_other_benchmarks_are_refused(
    tmp_path: Path, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.json").write_text(json.dumps(log(eval=changed)))
    assert main(["compare", str(RECORD), str(tmp_path / "log.json")]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("changed", [{"config": {"token_limit": 9}}, {"model_generate_config": {"temperature": 0.0}}])
def test_budgets_and_sampling_of_logs_are_said(tmp_path: Path, changed: dict[str, Any]) -> None:
    (tmp_path / "log.json").write_text(json.dumps(log(eval=changed)))
    report = compare([read(str(RECORD)), read(str(tmp_path / "log.json"))])
    assert len(report.differs) == 1 and report.comparisons[0].points == 0


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"s": {"value": "C"}}, 1.0),
        ({"s": {"value": "P"}}, 0.5),
        ({"s": {"value": True}}, 1.0),
        ({"s": {"value": 0.25}}, 0.25),
        ({}, None),
        (None, None),
        ({"s": {"value": "good"}}, "score s='good'"),
        ({"s": {"value": 7}}, "score s=7"),
        ({"s": {"value": {"a": 1}}}, "score s="),
    ],
)
def test_the_values_of_scores(tmp_path: Path, scores: Any, said: float | str | None) -> None:
    whole = log()
    whole["samples"] = [{"id": "a", "epoch": 1, "scores": scores}, {"id": "b", "scores": {"s": {"value": "I"}}}]
    (tmp_path / "log.json").write_text(json.dumps(whole))
    if isinstance(said, str):
        with pytest.raises(CrrlError, match=said):
            read(str(tmp_path / "log.json"))
    else:
        cell = read(str(tmp_path / "log.json")).cells[""]
        assert cell.scores.get("a") == (None if said is None else [said])
        assert cell.lost.get("a", 0) == (said is None)


@pytest.mark.parametrize("damage", ["cut", "empty", "no header", "running"])
def test_damaged_logs_are_named(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "log.eval"
    if damage == "cut":
        file.write_bytes(RECORD.read_bytes()[:-400])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("samples/a_epoch_1.json", json.dumps(log()["samples"][0]))
            if damage == "running":
                archive.writestr("header.json", json.dumps({**log(status="started"), "samples": None}))
    with pytest.raises(CrrlError, match=r"log\.eval"):
        read(str(file))


def job(folder: Path, *trials: dict[str, Any]) -> Path:
    for number, trial in enumerate(trials):
        (folder / f"trial{number}").mkdir(parents=True)
        (folder / f"trial{number}/result.json").write_text(json.dumps({"trial_name": f"trial{number}", **trial}))
    (folder / "result.json").write_text(json.dumps({"n_total_trials": len(trials)}))
    return folder


def test_a_job_of_harbor(tmp_path: Path) -> None:
    timed_out = {"exception_type": "AgentTimeoutError", "exception_message": "late"}
    folder = job(
        tmp_path / "job",
        {"task_name": "a", "task_checksum": "1", "verifier_result": {"rewards": {"reward": 1.0}}},
        {"task_name": "a", "verifier_result": {"rewards": {"reward": 0}}},
        {"task_name": "b", "verifier_result": {"rewards": {"score": 0.5}}, "exception_info": timed_out},
        {"task_name": "c", "verifier_result": None, "exception_info": timed_out},
        {"task_name": "d", "verifier_result": {"rewards": {"reward": None}}},
    )
    cell = read(str(folder)).cells[""]
    assert cell.scores == {"a": [1.0, 0.0], "b": [0.5]} and cell.lost == {"c": 1, "d": 1}
    other = job(tmp_path / "other", {"task_name": "a", "task_checksum": "2", "verifier_result": {"rewards": {"r": 1}}})
    assert main(["compare", str(folder), str(other)]) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"agent_info": {"name": "terminus", "version": "2", "model_info": {"name": "m"}}}, ["agent"]),
        ({"config": {"timeout_multiplier": 2.0}}, ["timeout_multiplier"]),
        ({"config": {"agent": {"override_timeout_sec": 60}}}, ["agent.override_timeout_sec"]),
        ({"config": {"agent": {"kwargs": {"temperature": 0.2}}}}, ["agent.kwargs"]),
        ({"config": {"environment": {"override_memory_mb": 512}}}, ["environment.override_memory_mb"]),
        ({"config": {"agent": {"model_name": "other"}}}, []),
        ({"agent_info": {"name": "terminus", "version": "1", "model_info": {"name": "other"}}}, []),
    ],
)
def test_agents_and_budgets_of_jobs_are_said(tmp_path: Path, changed: dict[str, Any], said: list[str]) -> None:
    plain = {
        "task_name": "a",
        "verifier_result": {"rewards": {"reward": 1}},
        "agent_info": {"name": "terminus", "version": "1", "model_info": {"name": "m"}},
        "config": {"agent": {"kwargs": {"temperature": 0.0}, "override_timeout_sec": None}},
    }
    config = {**plain["config"], **changed.get("config", {})}  # type: ignore[dict-item]
    config["agent"] = {**plain["config"]["agent"], **config["agent"]}  # type: ignore[index]
    a, b = job(tmp_path / "a", plain), job(tmp_path / "b", {**plain, **changed, "config": config})
    assert list(compare([read(str(a)), read(str(b))]).differs) == said


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        ({"task_name": "a", "verifier_result": {"rewards": {"x": 1, "y": 0}}}, "several rewards"),
        ({"task_name": "a", "verifier_result": {"rewards": {"reward": 3}}}, "no number from 0 to 1"),
        ({"verifier_result": {"rewards": {"reward": 1}}}, "no task_name"),
    ],
)
def test_trials_that_say_nothing_clear_are_named(tmp_path: Path, trial: dict[str, Any], said: str) -> None:
    with pytest.raises(CrrlError, match=said):
        read(str(job(tmp_path / "job", trial)))
    shutil.rmtree(tmp_path / "job")


def test_our_evaluations_as_logs_of_inspect(tmp_path: Path) -> None:
    """Read back, each sample is what it was; `read_eval_log` of inspect_ai 0.3.285 took such logs, too."""
    verdicts = {"a": Verdict(1.0, solved=True), "b": Verdict(0.0, exploits=["reads_tests"]), "c": None}
    with Journal.create(tmp_path / "run", {"seed": 0}) as journal:
        for number, (task, verdict) in enumerate([*verdicts.items(), ("a", verdicts["b"])]):
            id = f"eval/eval/s/sampled/{task}#{number}"
            outcome: Any = "scored" if verdict else "lost"
            journal.add_episode("eval", Episode(id, id, task, number // 3, 0, outcome, patch="p", verdict=verdict))
        summary = {"run": "r", "seed": 0, "evaluation": {"benchmark": "b", "policy": "m", "weights": "w"}}
        (file,) = write_inspect(tmp_path / "logs", journal, None, summary)
    cell = read(str(file)).cells[""]
    assert cell.scores == {"a": [1.0, 0.0], "b": [0.0]} and cell.lost == {"c": 1}
    whole = json.loads(file.read_text())
    assert whole["results"]["scores"][0]["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert [s["metadata"]["exploits"] for s in whole["samples"] if s["id"] == "b"] == [["reads_tests"]]
