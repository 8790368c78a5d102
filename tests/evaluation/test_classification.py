"""Metrics of classification: against scikit-learn, pairs worked by hand, and what `crrl eval` shows."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from crrl.cli.main import main
from crrl.evaluation.classification import Classified, classified, majority, measure, pairs, vd_s
from crrl.label import Answer, Label, right
from crrl.report import classification as words
from crrl.rewards import combine
from crrl.rewards.label_judge import judge, patch_of
from crrl.rewards.verdict import Combine
from crrl.rollout.api import Episode
from crrl.tasks.classification import pair_tasks
from crrl.tasks.files import load_tasks

ANSWERS = {
    "v": Answer("vulnerable", (), 0.9),
    "w": Answer("vulnerable"),
    "n": Answer("not vulnerable", (), 0.8),
    "?": Answer("cannot tell"),
    "x": None,
}


def one(
    truth: bool, answer: str | Answer | None, task: str = "t", attempt: int = 0, pair: str = "", tokens: int = 10
) -> Classified:
    said = ANSWERS[answer] if isinstance(answer, str) else answer
    return Classified(task, attempt, Label(truth, ["CWE-1"], [2], pair), said, 10, tokens)


def drawn(seed: int, count: int = 300) -> list[Classified]:
    rng = random.Random(seed)
    made = []
    for n in range(count):
        truth = rng.random() < 0.4
        label = rng.choices(["vulnerable", "not vulnerable", "cannot tell"], [5, 4, 1])[0]
        if rng.random() < 0.3:
            label = "vulnerable" if truth else "not vulnerable"
        answer = Answer(label, (), rng.choice([None, 0.5, 0.6, 0.75, 0.9, 0.95]))  # type: ignore[arg-type]
        made.append(one(truth, None if rng.random() < 0.1 else answer, task=f"t{n}"))
    return made


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_as_scikit_learn(seed: int) -> None:
    judged = drawn(seed)
    found = measure(judged)
    truth = np.array([int(o.truth.vulnerable) for o in judged])
    said = np.array([2 if o.said is None else int(o.said) for o in judged])
    scores = np.array([o.score for o in judged])
    benign, vulnerable = sk.f1_score(truth, said, labels=[0, 1], average=None)
    assert found["f1"] == pytest.approx({"vulnerable": vulnerable, "not_vulnerable": benign})
    assert found["f1_macro"] == pytest.approx(sk.f1_score(truth, said, labels=[0, 1], average="macro"))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, said))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, said))
    answered = said < 2
    assert found["accuracy_of_answers"] == pytest.approx(sk.accuracy_score(truth[answered], said[answered]))
    assert found["calibration"]["brier"] == pytest.approx(sk.brier_score_loss(truth[answered], scores[answered]))
    accuracy, sure = sk.accuracy_score(truth[answered], said[answered]), np.maximum(scores, 1 - scores)
    assert accuracy == pytest.approx(sum(r * n for _, r, n in found["calibration"]["bins"]) / answered.sum())
    edges = np.minimum((sure[answered] * 10).astype(int), 9)
    hit = (said == truth)[answered]
    ece = sum(abs(sure[answered][edges == b].sum() - hit[edges == b].sum()) for b in set(edges)) / answered.sum()
    assert found["calibration"]["ece"] == pytest.approx(ece)
    for most in (0.005, 0.1, 0.3):
        fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
        assert vd_s(list(truth == 1), list(scores), most) == pytest.approx(1 - tpr[fpr <= most].max())


def test_vd_s_by_hand() -> None:
    """400 benign functions: two false alarms are 0.5%, three are too many."""
    benign = [0.99, 0.95, 0.6, *[0.1] * 397]
    vulnerable = [0.97, 0.7, 0.5, 0.3]
    truth = [False] * 400 + [True] * 4
    assert vd_s(truth, benign + vulnerable) == 0.5, "at 0.7: two false alarms, two of four found"
    assert vd_s(truth, [0.0] * 400 + [1.0] * 4) == 0.0
    assert vd_s(truth, [1.0] * 400 + [0.0] * 4) == 1.0 == vd_s(truth, [0.5] * 404)
    assert vd_s([True], [1.0]) is None is vd_s([False], [1.0])


def test_pairs_by_hand() -> None:
    """(vulnerable version, fixed version) of seven pairs, one of which lost a member."""
    said = ["vn", "wn", "vv", "nn", "nv", "v?", "xn"]
    judged = [
        one(truth, answer, task=f"{n}{truth}", pair=f"p{n}")
        for n, both in enumerate(said)
        for truth, answer in zip((True, False), both, strict=True)
    ]
    judged.append(one(True, "v", task="lonely", pair="p9"))
    judged.append(one(True, "v", task="alone"))
    random.Random(1).shuffle(judged)
    found = pairs(judged)
    assert found is not None and found.pop("p_c_ci95")[0] > 0
    assert found == {"pairs": 7, "p_c": 2 / 7, "p_v": 1 / 7, "p_b": 1 / 7, "p_r": 1 / 7, "undecided": 2 / 7}
    assert pairs([one(True, "v")]) is None


def test_samples_of_a_pair_meet_by_their_number() -> None:
    judged = [one(True, a, "old", k, "p") for k, a in enumerate("vn")] + [
        one(False, a, "new", k, "p") for k, a in enumerate("nv")
    ]
    found = pairs(judged)
    assert found is not None and (found["pairs"], found["p_c"], found["p_r"]) == (2, 0.5, 0.5)


@pytest.mark.parametrize("constant", ["v", "n", "?", "x"])
def test_constant_answers_get_nothing(constant: str) -> None:
    judged = [one(truth, constant, f"{n}{truth}", pair=f"p{n}") for n in range(20) for truth in (True, False)]
    found = measure(judged)
    assert found["pairs"]["p_c"] == 0.0 and found["balanced_accuracy"] <= 0.5 and found["vd_s"] == 1.0


def test_lines_and_weaknesses_of_what_was_found() -> None:
    judged = [
        one(True, Answer("vulnerable", ("CWE-1",), 0.9, (2, 3))),
        one(True, Answer("vulnerable", ("CWE-1", "CWE-2"), 0.9)),
        one(True, Answer("not vulnerable", ("CWE-1",), 0.9, (2,))),
        one(False, Answer("vulnerable", ("CWE-1",), 0.9, (2,))),
    ]
    found = measure(judged)
    assert found["cwe"] == {"functions": 2, "right": 0.5}
    assert found["lines"] == pytest.approx(
        {"functions": 2, "cited": 0.5, "precision": 0.25, "recall": 0.5, "informedness": (1 - 1 / 9) / 2}
    )
    assert measure([one(False, "n")])["lines"] is None


@given(st.lists(st.sampled_from("vn?x"), min_size=2, max_size=7), st.booleans())
def test_the_majority_over_all_choices(answers: list[str], truth: bool) -> None:
    """Against every choice of k samples."""
    judged = [one(truth, answer, attempt=n, tokens=10 * (n + 1)) for n, answer in enumerate(answers)]
    for told in majority(judged):
        votes = []
        for chosen in itertools.combinations(judged, int(told["k"])):
            for_, against = sum(o.right for o in chosen), sum(o.said is not None and not o.right for o in chosen)
            votes.append(1.0 if for_ > against else 0.5 if for_ == against and for_ else 0.0)
        assert told["accuracy"] == pytest.approx(sum(votes) / math.comb(len(answers), int(told["k"])))
        assert told["tokens"] == pytest.approx(told["k"] * 5 * (len(answers) + 1))
    assert [told["k"] for told in majority(judged)][-1] == len(answers)


def test_lost_episodes_are_in_no_number() -> None:
    weigh: Combine = combine({"label": 1.0})
    both = pair_tasks("p", "c", "s", "int f() { gets(b); }", "int f() { fgets(b); }", "c", ["CWE-242"])
    tasks = {task.id: task for task in both}
    episodes = []
    for task in tasks.values():
        truth = task.test.label
        assert truth is not None
        patch = patch_of(Answer("vulnerable", ("CWE-242",), 0.9, (1,)))
        verdict = weigh(task, patch, judge(task, patch))
        episodes.append(Episode(f"e{task.id}", "g", task.id, 0, 0, "scored", patch=patch, verdict=verdict))
    found = classified(tasks, {("s", "greedy"): episodes})["s"]["greedy"]
    assert found["samples"] == 2 and found["pairs"]["p_v"] == 1.0 and found["accuracy"] == 0.5
    lost = [replace(episodes[0], outcome="lost", verdict=None), episodes[1]]
    found = classified(tasks, {("s", "greedy"): lost})["s"]["greedy"]
    assert found["samples"] == 1 and found["pairs"] is None
    table = words.numbers(measure(drawn(0)))
    assert all("None" not in number for _, number in table)
    told = {"after": {"s": {"greedy": found}}}
    assert words.of_cell(told, "s", "greedy") and not words.of_cell(told, "s", "sampled")
    assert [cell for cell, _ in words.cells(told)] == ["s, greedy, after"]


def test_answers_are_graded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], test_data: Path
) -> None:
    """`crrl tasks check`, then `crrl eval`, on real functions; the numbers are in all that it leaves."""
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", "check", "sven", f"path={test_data / 'sven/cwe-079.jsonl'}", "out=sven.jsonl"]) == 0
    tasks, _ = load_tasks(tmp_path / "sven.jsonl")
    rows = []
    for task in tasks:
        truth = task.test.label
        assert truth is not None
        answer = right(truth) if task.provenance["func_name"] < "m" else Answer("vulnerable", ("CWE-79",), 0.6)
        rows.append({"instance_id": task.id, "model_patch": patch_of(answer)})
    (tmp_path / "preds.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["eval", "sven.jsonl", "preds.jsonl", "run=graded"]) == 0
    assert "P-C, P-V, P-B, P-R, undecided of 23 pairs" in capsys.readouterr().out
    summary = json.loads((tmp_path / "runs/graded/summary.json").read_text())
    found = summary["classification"]["after"]["sven"]["predictions"]
    assert found["pairs"]["pairs"] == 23 and found["pairs"]["p_c"] + found["pairs"]["p_v"] == 1.0
    assert found["accuracy"] == summary["splits"]["sven"]["predictions"]["after"]["rate"]
    assert found["lines"]["informedness"] > 0 and found["cwe"]["right"] == 1.0
    for file in ("card.md", "report.html"):
        assert "VD-S" in (tmp_path / "runs/graded" / file).read_text()
