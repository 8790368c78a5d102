"""Invariant 2 in benchmarks: lost episodes enter nothing, pairwise; and DESIGN's JSON."""

import json
from dataclasses import replace

import pytest

from crrl.evaluation.benchmark import Difference, SplitResult, assemble, evaluation_attempts
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.task import Command, Source, Task, TestPlan


def episode(task: str, solved: bool | None, outcome: str = "scored", well_formed: bool = True) -> Episode:
    verdict = None if solved is None else Verdict(float(solved), solved=solved)
    return Episode(task, "g", task, 0, 1, outcome, verdict=verdict, well_formed=well_formed)  # type: ignore[arg-type]


def lost(task: str) -> Episode:
    return episode(task, None, "lost")


def task(name: str) -> Task:
    plan = TestPlan(Command(["tests"]), "pytest", ["t"], [])
    return Task(name, "c", "s", "python", "f", Source(files={}), "i", plan)


def test_lost_episodes_enter_no_rate() -> None:
    result = SplitResult.of([episode("a", True), episode("b", True, "truncated"), episode("c", False), lost("d")])
    assert (result.solved, result.total, result.lost, result.truncated) == (2, 3, 1, 1)
    assert result.rate == result.reward == pytest.approx(2 / 3)


def test_who_needed_a_second_try_is_not_solved_by_the_first() -> None:
    second = replace(episode("b", True), earlier=[Verdict(0.0)])
    result = SplitResult.of([episode("a", True), second, replace(episode("c", False), earlier=[Verdict(0.0)])])
    assert (result.rate, result.first_try) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert SplitResult.of([episode("a", True), episode("b", False)]).first_try is None


def test_a_task_lost_on_either_side_leaves_the_pair() -> None:
    before = [episode("a", False), episode("b", False), lost("c"), episode("d", True)]
    after = [episode("d", True), lost("b"), episode("c", True), episode("a", True)]
    found = Difference.of(before, after)
    assert (found.pairs, found.gained, found.fell, found.excluded) == (2, 1, 0, 2)
    assert found.points == pytest.approx(50.0)
    assert found.p == 1.0


def test_an_attempt_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="occurs twice"):
        Difference.of([episode("a", True), episode("a", True)], [])


def test_everything_lost_gives_the_widest_interval_and_no_claim() -> None:
    cell = assemble({("s", "greedy"): [lost("a")]}, {("s", "greedy"): [lost("a")]})["s"]["greedy"]
    assert cell["before"]["total"] == 0 and cell["before"]["ci95"] == [0.0, 1.0]
    assert cell["difference"]["p"] == 1.0 and cell["difference"]["ci95"] == [-100.0, 100.0]


def test_json_has_the_fields_of_the_design() -> None:
    before = {("s", "sampled"): [episode(str(i), i < 2) for i in range(9)]}
    after = {("s", d): [episode(str(i), i < 7) for i in range(9)] for d in ("sampled", "greedy")}
    splits = json.loads(json.dumps(assemble(before, after), allow_nan=False))
    sampled = splits["s"]["sampled"]
    assert {"solved", "total", "rate", "ci95"} <= sampled["before"].keys()
    assert (sampled["after"]["solved"], sampled["after"]["total"]) == (7, 9)
    assert {"points", "ci95", "p"} <= sampled["difference"].keys()
    assert sampled["difference"]["ci95"][0] < sampled["difference"]["points"] < sampled["difference"]["ci95"][1]
    assert "before" not in splits["s"]["greedy"] and "difference" not in splits["s"]["greedy"]


def test_attempts_are_stable_and_before_and_after_share_their_noise() -> None:
    tasks = [task("a"), task("b")]
    before = evaluation_attempts(tasks, "s", "sampled", 3, "before")
    after = evaluation_attempts(tasks, "s", "sampled", 3, "after")
    assert before == evaluation_attempts(tasks, "s", "sampled", 3, "before")
    assert [a.seed for a in before] == [a.seed for a in after]
    assert len({a.id for a in before + after}) == 4
    assert len({a.seed for a in before + evaluation_attempts(tasks, "s", "sampled", 4, "before")}) == 4
    assert [a.temperature for a in evaluation_attempts(tasks, "s", "greedy", 3, "after")] == [0.0, 0.0]
