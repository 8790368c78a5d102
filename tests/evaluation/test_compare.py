"""A comparison says what the pairs show, what it left out, and what was not the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from crrl.cli.main import main
from crrl.errors import CrrlError, UsageError
from crrl.evaluation.benchmark import Difference
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.compare import Comparison, compare, halves, incomparable, markdown, non_inferior, repository
from crrl.evaluation.results import read
from crrl.evaluation.sets import TASK_SETS
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal


def results(name: str, outcomes: str, tasks: list[str] | None = None, **measured: object) -> Results:
    """One character a task: 1 solved, 0 not, x lost, space not tried."""
    cell = Cell()
    for i, outcome in enumerate(outcomes):
        task = tasks[i] if tasks else f"t{i}"
        if outcome == "x":
            cell.lost[task] = 1
        elif outcome != " ":
            cell.scores[task] = [float(outcome)]
    return Results(name, {"": cell}, measured=measured)


def one(*found: Results) -> Comparison:
    return compare(found).comparisons[0]


def run_folder(
    folder: Path,
    *,
    decoding: str = "greedy",
    harness: str = "h1",
    tasks: dict[str, str] | None = None,
    **phases: str,
) -> Path:
    """A run with an evaluation of one split for each phase."""
    with Journal.create(folder, {"seed": 0, TASK_SETS: {"s": tasks or {}}}) as journal:
        for phase, outcomes in phases.items():
            for i, outcome in enumerate(outcomes):
                judged = Verdict(float(outcome == "1"), harness_version=harness, solved=outcome == "1")
                verdict = None if outcome == "x" else judged
                id, kind = f"eval/{phase}/s/{decoding}/t{i}", "lost" if outcome == "x" else "scored"
                journal.add_episode(phase, Episode(id, id, f"t{i}", 0, 1, kind, verdict=verdict))
    settings = {"agent": {"turns": 10, "env": {}}, "corpus": {"name": "generated"}, "seed": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_it_is_the_difference_of_a_runs_own_summary(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", before="0011010x10", after="1011110100")
    found = one(read(f"{folder}:before"), read(str(folder)))
    with Journal.open(folder, read_only=True) as journal:
        own = Difference.of(journal.episodes("before"), journal.episodes("after"))
    assert (found.points, found.ci95, found.p, found.pairs) == (own.points, own.ci95, own.p, own.pairs)
    assert (found.gained, found.fell, found.unpaired) == (["t0", "t4"], ["t8"], 1)
    assert found.cell == "s, greedy"


def test_lost_ones_enter_nothing_and_what_they_could_change_is_said() -> None:
    found = one(results("a", "0011x"), results("b", "01x11"))
    assert found.pairs == 3 and found.points == pytest.approx(100 / 3)
    worst, best = found.if_lost or (0, 0)
    assert worst == pytest.approx(100 * (3 - 3) / 5) and best == pytest.approx(100 * (4 - 2) / 5)
    assert one(results("a", "0"), results("b", "1")).if_lost is None


def test_an_interval_alone_makes_nobody_better() -> None:
    """Five of 26 tasks differ, all one way: the bootstrap leaves out 0, and the test says 1 in 16."""
    tasks = {f"t{n}": [0.0] * 4 for n in range(26)}
    some = {**tasks, **{f"t{n}": [1.0, 1.0, 0.0, float(n > 2)] for n in range(5)}}
    found = one(Results("a", {"": Cell(tasks)}), Results("b", {"": Cell(some)}))
    assert found.ci95[0] > 0 and found.p == pytest.approx(1 / 16, abs=0.01)
    assert "not distinguishable" in found.verdict and "but p = 0.0" in found.verdict
    half = {**tasks, **{f"t{n}": [1.0, 0.0, 0.0, 0.0] for n in range(9)}}
    assert one(Results("a", {"": Cell(tasks)}), Results("b", {"": Cell(half)})).verdict.startswith("b is better")


def test_verdicts_say_what_the_interval_says() -> None:
    better = one(results("a", "0" * 60 + "1" * 40), results("b", "1" * 30 + "0" * 30 + "1" * 40))
    assert better.verdict.startswith("b is better than a by 30.0 points, at least ")
    worse = one(results("b", "1" * 30 + "0" * 30 + "1" * 40), results("a", "0" * 60 + "1" * 40))
    assert worse.verdict.startswith("a is worse than b by 30.0 points")
    unclear = one(results("a", "0011" * 5), results("b", "0111" + "0011" * 4))
    assert "not distinguishable" in unclear.verdict and "tasks would show it" in unclear.verdict
    same = one(results("a", "0011"), results("b", "0011"))
    assert "not distinguishable" in same.verdict and "tasks would" not in same.verdict


def test_several_samples_are_means_within_tasks() -> None:
    a = Results("a", {"": Cell({f"t{i}": [0.0, 1.0, 0.0, 0.0] for i in range(20)})})
    b = Results("b", {"": Cell({f"t{i}": [1.0, 1.0, 0.0, float(i % 2)] for i in range(20)})})
    found = one(a, b)
    assert found.points == pytest.approx(37.5) and found.mid_p is None and found.p < 0.001
    assert found.ci95[0] > 30 and len(found.gained) == 20


def test_three_are_compared_with_the_first_and_adjusted() -> None:
    report = compare([results("a", "0" * 20), results("b", "1" * 8 + "0" * 12), results("c", "1" + "0" * 19)])
    b, c = report.comparisons
    assert b.p_holm == pytest.approx(2 * b.p) and c.p_holm == 1.0
    assert report.cochran_q[""] < 0.001
    assert one(results("a", "01"), results("b", "01")).p_holm is None


def test_one_repository_may_carry_it_all() -> None:
    tasks = [f"django__django-{i}" for i in range(12)] + [f"sympy__sympy-{i}" for i in range(4)]
    found = one(results("a", "0" * 16, tasks), results("b", "1" * 12 + "0" * 4, tasks))
    assert found.without == {"django/django": 0.0, "sympy/sympy": 100.0}
    assert found.p < 0.001 and (found.p_by_repository or 0) >= 0.5
    assert repository("scikit-learn__scikit-learn-10297") == "scikit-learn/scikit-learn" and repository("gcd") == ""


def test_what_was_measured_in_another_way_is_said(tmp_path: Path) -> None:
    a, b = run_folder(tmp_path / "a", after="01"), run_folder(tmp_path / "b", after="11")
    settings = yaml.safe_load((b / "config.yaml").read_text())
    settings["agent"]["turns"] = 20
    settings["seed"] = 3
    (b / "config.yaml").write_text(yaml.safe_dump(settings))
    assert compare([read(str(a)), read(str(b))]).differs == {"agent.turns": [10, 20]}
    settings["agent"]["files"] = {"agent.py": "import os\n" * 30}
    (b / "config.yaml").write_text(yaml.safe_dump(settings))
    said = markdown(compare([read(str(a)), read(str(b))]))
    assert "- agent.files.agent.py: not set / 30 lines (" in said and "import os" not in said


def test_a_report_of_swe_benchs_harness(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    ids = {"resolved_ids": ["a"], "unresolved_ids": ["b"], "empty_patch_ids": ["c"], "error_ids": ["d", "e"]}
    file.write_text(json.dumps({**ids, "infra_failure_ids": ["e"], "schema_version": 2}))
    cell = read(str(file)).cells[""]
    assert cell.scores == {"a": [1.0], "b": [0.0], "c": [0.0], "d": [0.0]} and cell.lost == {"e": 1}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(run_folder(tmp_path / "a", before="0011010x10", after="1011110100"))
    assert main(["compare", f"{folder}:before", folder]) == 0
    out = capsys.readouterr().out
    assert "gained (2): t0, t4" in out and "left out: 1 tasks" in out and "not distinguishable" in out
    assert main(["compare", f"{folder}:before", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparisons"][0]["pairs"] == 9
    assert main(["compare", f"{folder}:before", folder, "format=markdown"]) == 0
    assert capsys.readouterr().out.startswith("| tasks | first |")


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    folder = str(run_folder(tmp_path / "a", before="01"))
    (tmp_path / "preds.jsonl").write_text("{}")
    (tmp_path / "torn.json").write_text("{")
    assert main(["compare", folder]) == 2
    assert main(["compare", folder, folder, "format=pdf"]) == 2
    for word, said in (("nowhere", "nor a report"), (str(tmp_path / "preds.jsonl"), "crrl eval BENCHMARK")):
        with pytest.raises(UsageError, match="holds") as caught:
            read(word)
        assert said in f"{caught.value.message} {caught.value.remedy}"
    with pytest.raises(CrrlError, match="cannot be read"):
        read(str(tmp_path / "torn.json"))
    with pytest.raises(CrrlError, match="no evaluation after"):
        read(f"{folder}:after")
    with pytest.raises(ValueError, match="no task in common"):
        compare([results("a", "01"), results("b", "01", ["x", "y"])])
    lost = str(run_folder(tmp_path / "lost", after="xx"))
    with pytest.raises(CrrlError, match="no judged results"):
        read(lost)


def test_markdown_has_a_row_for_each_comparison() -> None:
    text = markdown(compare([results("a", "0011"), results("b", "0111"), results("c", "1111")]))
    assert text.count("\n| all |") == 2 and text.count("\n- ") == 2


@pytest.mark.parametrize("what", ["judge", "tasks"])
def test_another_judge_and_other_tasks_are_refused(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run_folder(tmp_path / "a", after="0101", tasks={"t0": "x", "t1": "y"})
    other = {"judge": {"harness": "h2"}, "tasks": {"tasks": {"t0": "x", "t1": "z"}}}[what]
    b = run_folder(tmp_path / "b", after="0111", **other)
    assert main(["compare", str(a), str(b)]) == 1
    said = {"judge": "judge's version: h1", "tasks": "1 tasks of the same id are not the same"}[what]
    assert said in capsys.readouterr().err
    assert main(["compare", str(a), str(b), "anyway=yes"]) == 0
    assert f"Not comparable, and compared anyway: {said}" in capsys.readouterr().out
    more = run_folder(tmp_path / "c", after="01011", tasks={"t0": "x", "t1": "y", "t4": "w"})
    assert main(["compare", str(a), str(more)]) == 0  # one has more of the same tasks


def test_judges_are_compared_task_by_task(tmp_path: Path) -> None:
    """Each language has a judge of its own: who evaluated more tasks was not judged otherwise on the common ones."""
    one = run_folder(tmp_path / "one", after="01")
    both = run_folder(tmp_path / "both", after="0111")
    with Journal.open(both) as journal:
        for i in (2, 3):
            id, verdict = f"eval/after/s/greedy/j{i}", Verdict(1.0, harness_version="java", solved=True)
            journal.add_episode("after", Episode(id, id, f"j{i}", 0, 1, "scored", verdict=verdict))
    assert incomparable([read(str(one)), read(str(both))]) == []
    with Journal.open(one) as journal:
        id, verdict = "eval/after/s/greedy/j2", Verdict(1.0, harness_version="java 2", solved=True)
        journal.add_episode("after", Episode(id, id, "j2", 0, 1, "scored", verdict=verdict))
    (said,) = incomparable([read(str(one)), read(str(both))])
    assert said.startswith("judge's version: java 2 (") and said.endswith("of 1 tasks: j2...")
    mixed = run_folder(tmp_path / "mixed", after="01")
    with Journal.open(mixed) as journal:  # a second sample, judged after an upgrade
        id, verdict = "eval/after/s/greedy/t0#1", Verdict(0.0, harness_version="h2", solved=False)
        journal.add_episode("after", Episode(id, id, "t0", 1, 1, "scored", verdict=verdict))
    (said,) = incomparable([read(str(both)), read(str(mixed))])
    assert "h1, h2 (" in said


def test_a_margin_that_was_stated_before() -> None:
    found = one(results("a", "0011" * 50), results("b", "0011" * 50))
    assert "is not worse than a by 5 points or more" in non_inferior(found, 5)
    assert "is not shown" in non_inferior(found, 0.1)


def test_one_policy_against_itself_by_its_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = Cell({"a": [1.0, 0.0, 1.0], "b": [0.0, 0.0], "c": [1.0]})
    odd, even = halves(Results("r", {"s": cell}))
    assert odd.cells["s"].scores == {"a": [1.0, 1.0], "b": [0.0]}
    assert even.cells["s"].scores == {"a": [0.0], "b": [0.0]}
    with pytest.raises(ValueError, match="one sample a task"):
        halves(results("r", "01"))


def test_results_that_know_no_cell_are_compared_with_the_only_one() -> None:
    ours = Results("ours", {"verified, greedy": Cell({"t0": [1.0], "t1": [0.0]})})
    assert compare([results("theirs", "01"), ours]).comparisons[0].pairs == 2
    two = Results("two", {**ours.cells, "verified, sampled": Cell({"t0": [0.0]})})
    with pytest.raises(ValueError, match="'verified, greedy', 'verified, sampled'"):
        compare([results("theirs", "01"), two])
    assert compare([results("theirs", "01"), two], "verified, sampled").comparisons[0].pairs == 1


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = str(run_folder(tmp_path / "a<script>", before="0011010x10", after="1011110100"))
    file = tmp_path / "page.html"
    assert main(["compare", f"{a}:before", a, f"html={file}"]) == 0
    page = file.read_text()
    assert "<script" not in page and "not distinguishable" in page and page.count(">differs<") == 3
