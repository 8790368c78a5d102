"""Rewards against tests: values by hand and by scipy, intervals that cover, and what may not be hidden."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_kit import FIXED, diff, make_task
from scipy import stats

from crrl.cli.main import main
from crrl.errors import CrrlError
from crrl.evaluation import cluster_bootstrap, reranking
from crrl.evaluation.attempts import Attempt, Attempts, of_predictions, of_run, read_report
from crrl.evaluation.calibration import calibrate, markdown, table
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import TRAIN, Journal
from crrl.tasks.files import write_tasks


def column(values: list[float]) -> np.ndarray:
    return np.array(values, float)


def plain(statistic: cluster_bootstrap.Statistic, clusters: int) -> float | None:
    return cluster_bootstrap.value(statistic, clusters)


PAIRS = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.25, 0.3, 1.0, 2.0]), st.booleans()), min_size=2, max_size=40)


@given(PAIRS)
def test_auc_is_mann_whitneys(pairs: list[tuple[float, bool]]) -> None:
    reward, solved = column([r for r, _ in pairs]), column([s for _, s in pairs])
    found = plain(reranking.auc(reward, solved, np.arange(len(pairs))), len(pairs))
    right, wrong = reward[solved == 1], reward[solved == 0]
    if not len(right) or not len(wrong):
        assert found is None
        return
    expected = stats.mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong))
    assert found == pytest.approx(expected)
    assert reranking.auc_of_group(list(reward), [bool(s) for s in solved]) == pytest.approx(expected)


def test_a_cluster_drawn_twice_counts_twice() -> None:
    reward, solved, cluster = column([0.9, 0.2, 0.4]), column([1, 0, 0]), np.array([0, 1, 2])
    twice = reranking.auc(reward, solved, cluster)(column([[2, 0, 3]]).reshape(1, 3))
    assert twice[0] == plain(reranking.auc(column([0.9] * 2 + [0.4] * 3), column([1] * 2 + [0] * 3), np.arange(5)), 5)
    assert math.isnan(reranking.auc(reward, solved, cluster)(column([[0, 1, 1]]).reshape(1, 3))[0]), "none is solved"


def test_ece_by_hand() -> None:
    """Bins [0.2, 0.3): two attempts at 0.25, one solved; [0.9, 1]: 0.95 and 1.0, both solved."""
    p, solved = column([0.25, 0.25, 0.95, 1.0]), column([1, 0, 1, 1])
    expected = (2 * abs(0.5 - 0.25) + 2 * abs(1.0 - 0.975)) / 4
    assert plain(reranking.ece(p, solved, np.arange(4)), 4) == pytest.approx(expected)
    assert plain(reranking.ece(column([0.0, 1.0]), column([0, 1]), np.arange(2)), 2) == 0.0


def test_the_ece_of_chance_is_what_right_probabilities_have() -> None:
    rng = np.random.default_rng(5)
    p = rng.random(300)
    seen = [plain(reranking.ece(p, column(rng.random(300) < p), np.arange(300)), 300) or 0.0 for _ in range(100)]
    assert reranking.ece_by_chance(p) == pytest.approx(np.mean(seen), rel=0.1)
    assert reranking.ece_by_chance(p) > 0.02, "an ECE of 0 is not to be expected"


def test_isotonic_regression_never_sees_the_attempts_that_it_maps() -> None:
    rng = np.random.default_rng(3)
    cluster = np.repeat(np.arange(100), 4)
    reward = rng.random(400)
    noise = column(rng.random(400) < 0.5)
    assert 0.3 < reranking.isotonic(reward, noise, cluster).mean() < 0.7
    squared = column(rng.random(400) < reward**2)
    p = reranking.isotonic(reward, squared, cluster)
    of_value, of_map = (plain(reranking.ece(x, squared, cluster), 100) for x in (reward, p))
    assert of_value is not None and of_map is not None and of_map < of_value / 1.5
    # The other outcome of one task changes nothing in its own fold.
    changed = squared.copy()
    changed[cluster == 7] = 1 - changed[cluster == 7]
    assert (reranking.isotonic(reward, changed, cluster)[cluster == 7] == p[cluster == 7]).all()


@given(PAIRS, st.integers(1, 5))
def test_best_of_k_is_that_of_all_subsets(pairs: list[tuple[float, bool]], k: int) -> None:
    group = pairs[:7]
    if k > len(group):
        with pytest.raises(ValueError):
            reranking.best_at_k([r for r, _ in group], [s for _, s in group], k)
        return
    found = reranking.best_at_k([r for r, _ in group], [s for _, s in group], k)
    chosen, solvable = [], []
    for subset in combinations(group, k):
        top = max(r for r, _ in subset)
        best = [s for r, s in subset if r == top]
        chosen.append(sum(best) / len(best))
        solvable.append(any(s for _, s in subset))
    assert found.best == pytest.approx(np.mean(chosen))
    assert found.oracle == pytest.approx(np.mean(solvable))
    assert found.random == pytest.approx(np.mean([s for _, s in group]))


def test_the_interval_is_scipys_and_knows_clusters() -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(2.0, size=60)
    mean = reranking.mean_of_groups(values, np.arange(60))
    low, high = cluster_bootstrap.bca(mean, 60) or (0.0, 0.0)
    scipys = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert (low, high) == pytest.approx((scipys.low, scipys.high), abs=0.05)
    # Ten copies of every attempt are no more evidence, if they are one cluster.
    copies = cluster_bootstrap.bca(reranking.mean_of_groups(np.repeat(values, 10), np.repeat(np.arange(60), 10)), 60)
    assert copies == pytest.approx((low, high))
    assert cluster_bootstrap.bca(reranking.mean_of_groups(np.ones(60), np.arange(60)), 60) is None, "no width"
    assert cluster_bootstrap.bca(reranking.mean_of_groups(values, np.zeros(60, int)), 1) is None


def attempt(i: int, reward: float, solved: bool, task: str = "", **about: str) -> Attempt:
    return Attempt(f"g{task or i}", task or f"t{i}", solved, {"r": reward}, about)


def several(count: int = 40) -> list[Attempt]:
    """Of each task two attempts; the one with the higher reward is solved but in every fourth."""
    made = []
    for i in range(count):
        made += [attempt(i, 0.8, i % 4 != 0, f"t{i}"), attempt(i, 0.3, i % 4 == 0, f"t{i}")]
    return made


def test_a_report_by_hand() -> None:
    of = calibrate(Attempts(several(), lost=3))
    assert of["attempts"] == {"judged": 80, "solved": 40, "truncated": 0, "lost": 3, "tasks": 40, "groups": 40}
    reward = of["rewards"]["r"]
    assert reward["auc"]["value"] == pytest.approx(0.75) == reward["within_groups"]["value"]
    assert reward["best_at"]["2"]["best"]["value"] == pytest.approx(0.75)
    assert reward["best_at"]["2"]["random"]["value"] == 0.5 and reward["best_at"]["2"]["oracle"]["value"] == 1.0
    low, high = reward["best_at"]["2"]["over_random"]["ci95"]
    assert 0 < low < 0.25 < high
    assert reward["ece"]["value"]["value"] == pytest.approx((abs(0.75 - 0.8) + abs(0.25 - 0.3)) / 2)
    assert "3 more were lost" in markdown(of)


def test_what_has_no_numbers_says_why() -> None:
    rows = several()
    constant = [Attempt(a.group, a.task, a.solved, {"r": 1.0}, {}) for a in rows]
    assert calibrate(Attempts(constant))["rewards"]["r"]["says"] == "constant: 1 at all 80 attempts"
    solved = [Attempt(a.group, a.task, True, a.scores, {}) for a in rows[:30]] + rows[:4]
    assert calibrate(Attempts(solved))["rewards"]["r"]["says"] == "too few: 2 unsolved of 34 attempts"
    apart = [*rows, *(Attempt(a.group, a.task, a.solved, {"s": a.scores["r"]}, {}) for a in rows)]
    assert calibrate(Attempts(apart))["rewards"]["s"]["not_applicable"] == 80, "and is in no denominator"
    columns, found = table(calibrate(Attempts(constant))["rewards"], [])
    assert found == [["r", "80", "constant: 1 at all 80 attempts"]] and len(columns) == 9


def test_parts_are_apart_and_smaller_groups_are_counted() -> None:
    rows = [
        Attempt(a.group, a.task, a.solved, a.scores, {"language": "go" if i < 40 else "rust"})
        for i, a in enumerate(several())
    ]
    rows.append(attempt(99, 0.5, True, language="rust"))
    of = calibrate(Attempts(rows))
    assert set(of["by"]) == {"language"} and set(of["by"]["language"]) == {"go", "rust"}
    assert of["by"]["language"]["go"]["r"]["attempts"] == 40
    best = of["rewards"]["r"]["best_at"]["2"]
    assert (best["groups"], best["smaller_groups"]) == (40, 1)
    assert of["rewards"]["r"]["clusters"] == 41
    by_repository = calibrate(
        Attempts([Attempt(a.group, a.task, a.solved, a.scores, {"repository": a.task[-1]}) for a in rows]),
        cluster="repository",
    )
    assert by_repository["rewards"]["r"]["clusters"] == 10


def test_values_outside_0_to_1_are_cut_and_counted() -> None:
    rows = [Attempt(a.group, a.task, a.solved, {"r": 10 * a.scores["r"] - 4}, {}) for a in several()]
    found = calibrate(Attempts(rows))["rewards"]["r"]
    assert found["ece"]["value"]["cut"] == 80 and found["range"] == [-1.0, 4.0]
    assert found["auc"]["value"] == pytest.approx(0.75), "ranks do not change"


# Runs ---------------------------------------------------------------------------------------------------------------


def run_folder(folder: Path, count: int = 24) -> Path:
    with Journal.create(folder, {}) as journal:
        for i in range(count):
            solved = i % 2 == 0
            verdict = Verdict(1.0, {"tests": float(solved), "r": 0.9 if solved else 0.1}, solved=solved)
            lost, cut = i == 5, i == 6
            outcome = "lost" if lost else "truncated" if cut else "scored"
            told = {"verdict": None if lost else verdict, "patch": diff({"stats.py": FIXED}) if solved else ""}
            journal.add_episode(TRAIN, Episode(f"e{i}", f"g{i // 4}", "stats-1", i % 4, 0, outcome, **told))
    return folder


def test_a_run_is_read_with_its_lost_and_truncated_ones(tmp_path: Path) -> None:
    found = of_run(run_folder(tmp_path / "a"), "", {"stats-1": make_task()})
    assert len(found.judged) == 23 and found.lost == 1 and sum(a.truncated for a in found.judged) == 1
    assert "tests" not in found.judged[0].scores, "rewards are held against it"
    first = found.judged[0]
    assert first.scores["similarity:changed_lines"] == first.scores["similarity:swe_rl"] == 1.0
    assert first.scores["file_match"] == 1.0 and first.about["phase"] == TRAIN
    with pytest.raises(CrrlError, match="no episodes of phase after"):
        of_run(tmp_path / "a", "after", {})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "runs" / "a", 48)
    assert main(["calibrate", "a:train", "html=page.html"]) == 0
    shown = capsys.readouterr().out
    assert "47 judged attempts at 1 tasks" in shown and "1 more were lost" in shown and "1.00" in shown
    page = (tmp_path / "page.html").read_text()
    assert "reliability diagram of r" in page and "<script" not in page and "1 more were lost" in page
    assert main(["calibrate", "a", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == 1 and report["rewards"]["r"]["auc"]["value"] == 1.0
    assert main(["calibrate", "a", "format=markdown"]) == 0
    assert "| r | 47 | 1.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "needs RUN"),
        (["nowhere"], "neither a run"),
        (["a", "k=0"], "k=0"),
        (["a", "k=two"], "k=two"),
        (["a", "cluster=file"], "cluster=file"),
        (["a", "format=tex"], "format=tex"),
        (["a", "seed=1"], "takes no settings"),
        (["a", "path=x"], "path=x"),
        (["a", "tasks=nothing"], "tasks=nothing"),
        (["p.jsonl"], "whose verdicts"),
        (["p.jsonl:r.json"], "which fixes"),
    ],
)
def test_wrong_words(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *words]) == 2
    assert says in capsys.readouterr().err


# Predictions ----------------------------------------------------------------------------------------------------------

NEW = {"resolved_ids": ["a"], "unresolved_ids": ["b"], "empty_patch_ids": ["c"], "error_ids": ["d"]}
OLD = {"resolved": ["a"], "with_logs": ["a", "b"], "applied": ["a", "b"], "no_generation": ["c"], "no_apply": ["d"]}


@pytest.mark.parametrize(
    "report", [{**NEW, "infra_failure_ids": ["e"]}, {**OLD, "install_fail": ["e"], "generated": ["a", "b", "d", "e"]}]
)
def test_both_forms_of_the_harness_report(tmp_path: Path, report: dict[str, list[str]]) -> None:
    (tmp_path / "r.json").write_text(json.dumps(report))
    assert read_report(tmp_path / "r.json") == {"a": True, "b": False, "c": False, "d": False}
    (tmp_path / "r.json").write_text(json.dumps({"total": 3}))
    with pytest.raises(CrrlError, match="no report"):
        read_report(tmp_path / "r.json")
    with pytest.raises(CrrlError, match="cannot be read"):
        read_report(tmp_path / "none.json")


def test_predictions_without_a_verdict_are_lost_and_without_a_task_left_out(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"resolved_ids": ["stats-1"], "unresolved_ids": ["other"]}))
    patch = diff({"stats.py": FIXED})
    tasks = {task.id: task for task in (make_task(),)}
    found = of_predictions("p", {"stats-1": patch, "other": patch}, tmp_path / "r.json", tasks)
    assert len(found.judged) == 1 and found.lost == 0 and "1 predictions are of tasks" in found.notes[0]
    (tmp_path / "r.json").write_text(json.dumps({"resolved_ids": ["other"]}))
    with pytest.raises(CrrlError, match="None of the 1 predictions"):
        of_predictions("p", {"stats-1": patch}, tmp_path / "r.json", tasks)


def test_predictions_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tasks(tmp_path / "tasks.jsonl", [make_task()])
    line = {"instance_id": "stats-1", "model_patch": diff({"stats.py": FIXED})}
    (tmp_path / "p.jsonl").write_text(json.dumps(line) + "\n{}\n")
    (tmp_path / "r.json").write_text(json.dumps({"resolved_ids": ["stats-1"]}))
    words = [f"tasks={tmp_path / 'tasks.jsonl'}", f"{tmp_path / 'p.jsonl'}:{tmp_path / 'r.json'}"]
    assert main(["calibrate", *words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rewards"]["similarity:predecessor"]["says"] == "constant: 1 at all 1 attempts"
    assert any("p.jsonl:2" in note for note in report["notes"]), "a bad line is named, and the rest goes on"
