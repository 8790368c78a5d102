"""`crrl eval`, as users start it: an agent of known strength, a kill in the middle, what is kept, what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_kit import crrl, done

from crrl.cli.main import main
from crrl.conf.load import load_recipe, to_yaml
from crrl.evaluation.results import read
from crrl.models import model_folder
from crrl.rollout.journal import Journal
from crrl.run.folder import create
from crrl.task import Source
from crrl.tasks.files import load_tasks, write_tasks
from crrl.tasks.generator.generate import generate

pytestmark = pytest.mark.timeout(300)
PROGRAMS = ("bitcount", "gcd", "hanoi", "lcs_length", "next_permutation", "pascal")
SMALL = ("evaluation.tasks_per_split=3", "evaluation.splits=[rl_instances]", "rollout.concurrency=1")
APPLY = 'for p in /fixes/*.patch; do git apply --check "$p" 2>/dev/null && git apply "$p"; done; exit 0'


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where boxes can read what they mount."""
    with tempfile.TemporaryDirectory(prefix="crrl-eval-", dir="/var/tmp") as made:
        os.chmod(made, 0o755)
        yield Path(made)


def test_who_repairs_a_known_half_resolves_exactly_that_half(folder: Path, test_data: Path) -> None:
    ids = ",".join(f"quixbugs-python-{name}" for name in PROGRAMS)
    corpus = ("quixbugs", f"path={test_data / 'quixbugs'}", f"ids={ids}")
    done(crrl(folder, "tasks", "check", *corpus, "times=1", "out=tasks.jsonl"))
    tasks, _ = load_tasks(folder / "tasks.jsonl")
    assert len(tasks) == len(PROGRAMS)
    known = sorted(task.id for task in tasks)[::2]
    (folder / "fixes").mkdir()
    for task in tasks:
        if task.id in known:
            (folder / "fixes" / f"{task.id}.patch").write_text(task.solution or "")
    agent = ("agent.name=command", f"agent.command={APPLY}", f"agent.mounts=[{folder / 'fixes'}:/fixes]")
    words = ("quixbugs-python", "tiny", "path=tasks.jsonl", "run=half", "evaluation.decodings=[greedy]")
    told = json.loads(done(crrl(folder, "eval", *words, *agent, "--json")))
    cell = told["splits"]["quixbugs-python"]["greedy"]["after"]
    assert (cell["solved"], cell["total"], cell["lost"]) == (3, 6, 0)
    scores = read(str(folder / "runs/half")).cells["quixbugs-python, greedy"].scores
    assert sorted(task for task, of in scores.items() if of == [1.0]) == known
    metrics = told["evaluation"]["metrics"]["quixbugs-python"]["greedy"]
    assert metrics["non_empty"] == metrics["applied"] == 0.5 and metrics["bounds"] == [0.5, 0.5]
    assert metrics["similarity"] == 0.5 and metrics["must_flip"] == 0.5 and metrics["must_stay"] == 1.0
    predictions = (folder / "runs/half/predictions/quixbugs-python-greedy-1.jsonl").read_text().splitlines()
    assert sum(bool(json.loads(line)["model_patch"]) for line in predictions) == 3 and len(predictions) == 6
    assert all(f"| {task} | {int(task in known)} |" in (folder / "runs/half/card.md").read_text() for task in known)


def test_a_killed_evaluation_goes_on_to_the_same_results(tmp_path: Path) -> None:
    whole = crrl(tmp_path, "eval", "tiny", *SMALL, "samples=2", "run=whole")
    done(whole)
    killed = crrl(tmp_path, "eval", "tiny", *SMALL, "samples=2", "run=killed")
    deadline = time.monotonic() + 200
    while finished(tmp_path / "runs/killed") < 3:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert finished(tmp_path / "runs/killed") < 9
    done(crrl(tmp_path, "eval", "resume=killed"))
    sampled, summaries = [], []
    for name in ("whole", "killed"):
        with Journal.open(tmp_path / "runs" / name, read_only=True) as journal:
            sampled.append({e.id: ([s.ids for s in e.samples], e.patch) for e in journal.episodes("eval")})
        summary = json.loads((tmp_path / "runs" / name / "summary.json").read_text())
        summaries.append(summary["splits"])
        assert summary["splits"]["rl_instances"]["sampled"]["after"]["total"] == 6
        assert summary["splits"]["rl_instances"]["greedy"]["after"]["total"] == 3
    assert sampled[0] == sampled[1] and summaries[0] == summaries[1]
    page = (tmp_path / "runs/killed/report.html").read_text()
    assert page.startswith("<!doctype html>") and "pass@2" in page and "<script" not in page


def test_an_evaluation_that_judged_nothing_says_so_and_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its repository went away; the rates of no episode are no result."""
    task = generate("train", 0, 0)
    source = Source(repo=str(folder / "gone.git"), base_commit="a" * 40)
    write_tasks(folder / "tasks.jsonl", [dataclasses.replace(task, source=source)])
    monkeypatch.chdir(folder)
    assert main(["eval", "tasks.jsonl", "tiny", "evaluation.decodings=[greedy]", "rollout.tries=1"]) == 1
    out, err = capsys.readouterr()
    assert "unavailable: git" in out and "gone.git" in out
    assert "Nothing was judged: every episode was lost" in err


def finished(run: Path) -> int:
    if not (run / "journal.sqlite").exists():
        return 0
    with Journal.open(run, read_only=True) as journal:
        return sum(journal.phases().values())


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["eval", *words]) == 2, words
    return capsys.readouterr().err


def test_what_cannot_be_evaluated_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", "list", "generated", "count=2", "--json"]) == 0
    (tmp_path / "own.jsonl").write_text(capsys.readouterr().out)
    assert "Which model" in refused(capsys, "quixbugs-python")
    assert "'quixbugs-python'" in refused(capsys, "quixbug-python", "tiny")
    assert "the settings hold the tasks out" in refused(capsys, "tiny", "limit=3")
    assert "does not train" in refused(capsys, "tiny", "trainer.max_steps=3")
    assert "names the tasks" in refused(capsys, "own.jsonl", "tiny", "evaluation.splits=[rl_instances]")
    assert "has no task other" in refused(capsys, "own.jsonl", "tiny", "ids=other")
    assert "nothing is sampled" in refused(capsys, "tiny", "samples=3", "evaluation.decodings=[greedy]")
    assert "no such price" in refused(capsys, "tiny", "evaluation.prices.day=3")
    assert "greedy" in refused(capsys, "tiny", "evaluation.temperature=0")
    assert "no run to resume" in refused(capsys, "resume=none")
    assert not (tmp_path / "runs").exists()


def test_the_evaluation_of_a_run_has_the_name_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = to_yaml(load_recipe("quickstart", ["run=trained"]))
    create(tmp_path / "runs/trained", {"seed": 0, "checkpoint_rule": "last"}, config).close()
    (tmp_path / "runs/trained/checkpoints/step-2").mkdir(parents=True)
    for words, name in ((["run=mine"], "mine"), ([], "eval-held-out-trained")):
        assert main(["eval", "trained", *words, "--dry-run"]) == 0
        assert f"step-2 (last)\n# in runs/{name}\n" in capsys.readouterr().out


def test_a_benchmark_whose_tests_are_not_measured_names_the_command(
    test_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "quixbugs-python", "tiny", f"path={test_data / 'quixbugs'}"]) == 1
    assert "crrl tasks check quixbugs" in capsys.readouterr().err


def test_the_plan_of_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_data: Path) -> None:
    """The preset's budgets hold unless the command says otherwise; a limit draws the same tasks each time."""
    monkeypatch.chdir(tmp_path)
    from crrl.cli.call import Call
    from crrl.cli.eval import Wanted, planned

    file = test_data / "swe-bench/SWE-bench_Verified/test.parquet"
    plans = []
    for extra in ([], ["agent.turns=7"]):
        call = Call.of("eval", ["swe-bench-verified", "tiny", f"path={file}", "limit=3", "samples=2", *extra])
        plans.append(planned(Wanted.of(call), call.settings, tmp_path))
    assert [p.config.agent.turns for p in plans] == [50, 7]
    assert plans[0].benchmark and plans[1].benchmark and len(plans[0].benchmark.tasks) == 3
    assert [t.id for t in plans[0].benchmark.tasks] == [t.id for t in plans[1].benchmark.tasks]
    assert plans[0].config.evaluation.samples == 2 and plans[0].config.run == "eval-swe-bench-verified-tiny"


def test_a_run_is_evaluated_though_the_model_that_it_began_with_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or was named from another folder."""
    from crrl.cli.eval import resolve

    (tmp_path / "began").mkdir()
    shutil.copytree(model_folder("tiny"), tmp_path / "began/model")
    monkeypatch.chdir(tmp_path / "began")
    config = load_recipe("quickstart", ["model.path=model"])
    run = tmp_path / "run"
    (run / "checkpoints/step-3").mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config))
    assert resolve(str(run), [])[0].model.path == "model"
    monkeypatch.chdir(tmp_path)
    found, checkpoint, _ = resolve(str(run), ["agent.turns=3"])
    assert checkpoint == found.model.path == str(run / "checkpoints/step-3") and found.agent.turns == 3
