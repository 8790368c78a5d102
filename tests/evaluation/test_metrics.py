"""What an evaluation reports beyond its rate: by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.evaluation import sets
from crrl.evaluation.metrics import Outline, cost, groups, measure, repository_of
from crrl.evaluation.samples import clustered
from crrl.evaluation.seen import seen
from crrl.label import Label
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.generator.generate import generate

PATCH = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a = 1\n+a = 2\n"


def task(id: str, **of: object) -> Task:
    plan = TestPlan(Command(["t"]), "pytest", ["f1", "f2"], ["p1", "p2", "p3", "p4"])
    made = Task(id, "c", "s", "python", "f", Source(files={}), f"issue {id}", plan, solution=PATCH)
    return replace(made, **of)  # type: ignore[arg-type]


def outline(name: str, solved: bool | None, attempt: int = 0, **of: object) -> Outline:
    tests = {"f1": "passed", "f2": "passed" if solved else "failed", "p1": "passed", "p2": "passed", "p3": "missing"}
    verdict = None if solved is None else Verdict(float(solved), tests=tests, solved=solved)  # type: ignore[arg-type]
    outcome = "lost" if solved is None else "scored"
    episode = Episode(name, name, name, attempt, 0, outcome, patch=PATCH if solved else "", verdict=verdict)
    return replace(Outline.of(episode, task(name)), **of)  # type: ignore[arg-type]


def test_shares_by_hand() -> None:
    told = measure([outline("a", True), outline("b", False), outline("c", None)], {})
    assert (told["tasks"], told["judged"], told["lost"], told["lost_tasks"]) == (3, 2, 1, 1)
    assert told["rate"] == 0.5 and told["bounds"] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert told["must_flip"] == (1.0 + 0.5) / 2 and told["must_stay"] == 0.5, "p3 is missing, p4 not reported"
    assert told["non_empty"] == told["applied"] == told["similarity"] == 0.5


def test_pass_at_k_is_over_the_tasks_that_have_k_samples() -> None:
    many = [outline("a", n < 1, n) for n in range(4)] + [outline("b", n < 2, n) for n in range(2)]
    told = measure([*many, outline("b", None, 2), outline("b", None, 3)], {})
    assert told["pass_at"]["2"] == {"value": (0.5 + 1.0) / 2, "tasks": 2}
    assert told["pass_hat"]["2"] == {"value": 0.5, "tasks": 2}
    assert told["pass_at"]["4"] == {"value": 1.0, "tasks": 1}
    assert told["rate"] == (0.25 + 1.0) / 2 and told["bounds"] == [(0.25 + 0.5) / 2, (0.25 + 1.0) / 2]


def test_a_solved_task_bears_the_cost_of_those_that_failed() -> None:
    spent = {"tokens": 1_000_000, "prompt_tokens": 3_000_000, "seconds": 1800.0, "tool_calls": 7}
    rows = [outline("a", True, **spent), outline("b", False, **spent), outline("c", None, **spent)]
    told = measure(rows, {"input": 1.0, "output": 5.0, "hour": 2.0})
    assert told["per_episode"]["usd"] == 3.0 + 5.0 + 1.0 and told["per_solved_task"]["usd"] == 27.0
    assert told["per_solved_task"]["tokens"] == 3_000_000 and told["per_episode"]["tool_calls"] == 7
    assert measure([outline("b", False)], {})["per_solved_task"]["tokens"] is None
    assert "usd" not in measure([outline("b", False)], {})["per_episode"]
    assert cost({"tokens": 0, "prompt_tokens": 0, "seconds": 7200.0}, {"hour": 1.5}) == 3.0


def test_groups_that_tell_tasks_apart() -> None:
    repo = "https://github.com/own/{}.git"
    tasks = {
        "a": task("a", source=Source(repo=repo.format("x"), base_commit="1"), created_at="2023-05-01"),
        "b": task("b", source=Source(repo=repo.format("y"), base_commit="1"), created_at="2024-05-01"),
        "c": task("c", source=Source(repo=repo.format("x"), base_commit="2"), created_at="2024-06-01"),
    }
    found = groups([outline("a", True), outline("b", False), outline("c", None)], tasks)
    assert found.keys() == {"repository", "year"} and repository_of(tasks["b"]) == "own/y"
    assert found["repository"]["own/x"] | {"ci95": []} == {"tasks": 2, "judged": 1, "lost": 1, "rate": 1.0, "ci95": []}
    assert {year: part["tasks"] for year, part in found["year"].items()} == {"2023": 1, "2024": 2}


def test_what_was_trained_on_is_said() -> None:
    here = [task("a", created_at="2024-03-01"), task("b", solution=None, created_at="2024-01-11")]
    told = seen([task("x-other", created_at="2024-01-01", solution=PATCH), task("B", solution=None)], here, "t.jsonl")
    assert told["by"] == {"patch": 1, "id": 1} and told["twins"]["b"] == ["B", "id"]
    assert (
        told["gap_days"] == 10 and "10 days lie between" in told["said"] and "2 tasks were trained on" in told["said"]
    )
    clean = seen([task("y", solution=None, created_at="2024-02-01")], here, "t.jsonl")
    assert "none of the tasks was trained on" in clean["said"] and "overlap by 21 days" in clean["said"]
    assert "not known" in seen(None, here, "nobody says it")["said"]


def test_the_clustered_interval_is_that_of_statsmodels() -> None:
    """statsmodels 0.15.0: OLS on a constant, cov_type='cluster', use_t=True."""
    clusters = [number for number in range(24) for _ in range(1 + number % 2)]
    each = {str(i): ((i * 7) % 5 - 1) / 4 for i in range(len(clusters))}
    low, high = clustered(each, {str(i): str(c) for i, c in enumerate(clusters)}) or (0, 0)
    assert (low, high) == (pytest.approx(0.13226881, abs=1e-7), pytest.approx(0.33995341, abs=1e-7))
    assert clustered({"a": 0.1, "b": 0.2}, {"a": "1", "b": "2"}) is None, "two clusters show no error"


def test_the_digest_of_a_task_is_of_what_is_asked_and_how_it_is_judged() -> None:
    one = task("a")
    same = [replace(one, provenance={"hub": "x"}), replace(one, source=Source(files={}, dir="/elsewhere"))]
    other = [replace(one, issue="?"), replace(one, tries=2), replace(one, source=Source(files={"x": ""}))]
    other.append(replace(one, source=Source(files={}, patches=[PATCH])))
    other.append(replace(one, test=replace(one.test, pass_to_pass=[])))
    digest = sets.fingerprints([one])["a"]
    assert all(sets.fingerprints([t])["a"] == digest for t in same)
    assert len({digest, *(sets.fingerprints([t])["a"] for t in other)}) == 6
    labelled = [replace(one, test=replace(one.test, label=Label(vulnerable))) for vulnerable in (False, True)]
    assert len({digest, *(sets.fingerprints([t])["a"] for t in labelled)}) == 3, "a label is how it is judged"
    assert sets.is_set("quixbugs") and sets.is_set("own.jsonl") and not sets.is_set("tiny")
    with pytest.raises(CrrlError, match="no such file"):
        sets.load("quixbugs", path=Path("/nowhere"))


def test_older_runs_asked_the_same_tasks() -> None:
    """Digests that runs recorded before tasks could have labels: they compare with runs of today."""
    recorded = {
        "sft_instances": "cd7c5a314ae655e9",
        "rl_instances": "35d5d97867009274",
        "impossible": "1389951fb0e89a83",
    }
    for split, digest in recorded.items():
        assert set(sets.fingerprints([generate(split, 0, 1)]).values()) == {digest}
