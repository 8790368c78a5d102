"""Predictions of others: read in all their forms, graded by our judge, and ours as others read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crrl.cli.main import main
from crrl.errors import CrrlError
from crrl.evaluation.results import read
from crrl.run.grade import read_predictions
from crrl.tasks.generator.generate import generate

pytestmark = pytest.mark.timeout(240)


def written(file: Path, value: Any) -> Path:
    lines = "\n".join(v if isinstance(v, str) else json.dumps(v) for v in value) if file.suffix == ".jsonl" else ""
    file.write_text(lines or json.dumps(value))
    return file


@pytest.mark.parametrize("form", ["lines", "list", "object"])
def test_the_forms_of_predictions(tmp_path: Path, form: str) -> None:
    rows = [{"instance_id": "a", "model_patch": "x"}, {"instance_id": "b", "model_patch": None}]
    by_id = {row["instance_id"]: row for row in rows}
    file, value = {"lines": ("p.jsonl", rows), "list": ("p.json", rows), "object": ("p.json", by_id)}[form]
    assert read_predictions(written(tmp_path / file, value)) == ({"a": "x", "b": ""}, [])


def test_what_is_no_prediction_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    good = {"instance_id": "a", "model_patch": "x"}
    bad: list[Any] = ["{", {"model_patch": "y"}, {"instance_id": "c", "model_patch": 3}, good, [1]]
    found, problems = read_predictions(written(tmp_path / "p.jsonl", [good, *bad]))
    assert found == {"a": "x"} and len(problems) == 5 and ":4: model_patch is no text" in problems[2]
    for broken in ("", "[]", "{}", "{"):
        (tmp_path / "p.json").write_text(broken)
        with pytest.raises(CrrlError, match=r"p\.json"):
            read_predictions(tmp_path / "p.json")


def test_real_files_are_read(test_data: Path) -> None:
    folder = test_data / "swe-bench/predictions"
    found, problems = read_predictions(folder / "verified_all_preds.sample.jsonl")
    assert len(found) == 60 and not problems


def test_the_known_fixes_are_graded_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fixed, empty and broken patches; what has no prediction or no task; and resumed, nothing is graded again."""
    monkeypatch.chdir(tmp_path)
    tasks = [generate("rl_instances", 0, i) for i in range(5)]
    from crrl.tasks.files import write_tasks

    write_tasks(tmp_path / "tasks.jsonl", tasks)
    patches = [tasks[0].solution, "", "no diff at all", tasks[3].solution]
    rows = [{"instance_id": t.id, "model_patch": p} for t, p in zip(tasks, patches, strict=False)]
    written(tmp_path / "preds.jsonl", [*rows, {"instance_id": "other", "model_patch": ""}])
    assert main(["eval", "tasks.jsonl", "preds.jsonl", "run=graded"]) == 0
    out = capsys.readouterr().out
    assert "1 tasks have no prediction" in out and "1 predictions are of no task" in out
    cell = read("graded").cells["tasks, predictions"]
    assert cell.scores == {t.id: [s] for t, s in zip(tasks, (1.0, 0.0, 0.0, 1.0), strict=False)} and not cell.lost
    told = json.loads((tmp_path / "runs/graded/summary.json").read_text())["evaluation"]
    assert told["no_task"] == ["other"] and told["no_prediction"] == [tasks[4].id]
    assert main(["eval", "resume=graded", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["tasks"]["predictions"]["after"]["solved"] == 2
    again, _ = read_predictions(tmp_path / "runs/graded/predictions/tasks-predictions-1.jsonl")
    assert again == {row["instance_id"]: row["model_patch"] for row in rows}
    assert main(["eval", "preds.jsonl", "run=x"]) == 2  # of what?


def test_ours_are_accepted_by_the_official_harness(tmp_path: Path) -> None:
    """The package's own reader of prediction files."""
    utils = pytest.importorskip("swebench.harness.utils", reason="needs the extra [swebench]")
    row = {"instance_id": "django__django-1", "model_name_or_path": "m", "model_patch": "diff --git a/x b/x\n"}
    file = written(tmp_path / "predictions.jsonl", [row])
    found = utils.get_predictions_from_file(str(file), "SWE-bench/SWE-bench_Verified", "test")
    assert [{key: p[key] for key in row} for p in found] == [row]
