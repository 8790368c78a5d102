"""Published predictions, graded again here without images: our verdicts are the published ones.

CRRL_TEST_PREDICTIONS is a folder of prediction files for SWE-bench Lite, NAME.jsonl beside NAME.json, the harness's own
report on it; CRRL_TEST_REPOSITORIES/OWNER/NAME has local clones of the repositories.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.evaluation import swebench_reports
from crrl.evaluation.results import read
from crrl.run.grade import read_predictions

INSTANCES = (
    *("pytest-dev__pytest-5227", "sympy__sympy-24152", "sympy__sympy-24213", "sympy__sympy-22714"),
    *("pallets__flask-5063", "sympy__sympy-18621", "sympy__sympy-21627", "mwaskom__seaborn-3190"),
)

PASSES = {"mwaskom__seaborn-3190"}
"""CodeR's patch is unresolved in its report of 2024, and passes all 85 listed tests: here, and by plain pytest with
numpy 1.25.2, pandas 2.0.0 and matplotlib 3.7.2. AutoCodeRover's three for it have their published verdicts."""


def published() -> list[Path]:
    folder = os.environ.get("CRRL_TEST_PREDICTIONS")
    return sorted(p for p in Path(folder or "/nowhere").glob("*.jsonl") if p.with_suffix(".json").is_file())


@pytest.mark.corpora
@pytest.mark.timeout(3600)
def test_they_get_the_verdicts_that_were_published(
    tmp_path: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clones = os.environ.get("CRRL_TEST_REPOSITORIES")
    if not published() or clones is None:
        pytest.skip("no published predictions (CRRL_TEST_PREDICTIONS), or no clones (CRRL_TEST_REPOSITORIES)")
    monkeypatch.chdir(tmp_path)
    where = (f"path={test_data / 'swe-bench/SWE-bench_Lite'}", "images=no", f"mirrors={clones}")
    wanted = f"ids={','.join(INSTANCES)}"
    main(["tasks", "check", "swe-bench-lite", *where, wanted, "times=1", "out=lite.jsonl"])  # 1: some cannot be set up
    resolved: set[bool] = set()
    for file in published():
        assert main(["eval", "lite.jsonl", str(file), f"run={file.stem}"]) == 0
        capsys.readouterr()
        assert main(["compare", str(file.with_suffix(".json")), file.stem, "--json"]) == 0
        (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
        assert comparison["fell"] == [] and set(comparison["gained"]) <= PASSES, file
        assert comparison["pairs"] >= 4
        resolved |= {bool(score) for (score,) in read(file.stem).cells["lite, predictions"].scores.values()}
    assert resolved == {True, False}


def test_the_forms_of_a_report(tmp_path: Path) -> None:
    """Of a submission and of the harness before version 2; trailing commas are in published ones."""
    file = tmp_path / "results.json"
    file.write_text(
        '{"no_generation": ["e"], "generated": ["a", "b", "c", "d"], "with_logs": ["a", "b", "c"], "no_apply": ["c"],'
        '"applied": ["a", "b"], "install_fail": ["f"], "reset_failed": [], "test_timeout": ["b"], "resolved": ["a",],}'
    )
    cell = read(str(file)).cells[""]
    assert cell.scores == {"a": [1.0], "b": [0.0], "c": [0.0], "e": [0.0]}, "what was not run (d) was not judged"
    assert cell.lost == {"f": 1}
    for other in ("{}", '{"resolved": 3, "generated": []}', '{"resolved": ["a"]}', "[]"):
        file.write_text(other)
        assert not swebench_reports.is_report(file)


def test_real_predictions_are_of_real_tasks(test_data: Path) -> None:
    folder = test_data / "swe-bench/predictions"
    for file in folder.glob("*.jsonl"):
        found, problems = read_predictions(file)
        assert not problems and all(patch.startswith("diff --git") for patch in found.values())
