"""Both versions of a function are one unit: a policy that tells the two apart, or does not, is one observation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from crrl.evaluation import samples
from crrl.evaluation.benchmark import Difference, SplitResult, assemble, rate_of
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.compare import Comparison, compare, halves
from crrl.evaluation.criterion import lift_of
from crrl.evaluation.metrics import Outline, groups, measure
from crrl.evaluation.results import read
from crrl.evaluation.sets import PAIRS, TASK_SETS
from crrl.evaluation.statistics import Paired, newcombe_paired, wilson
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal
from crrl.tasks.classification import pair_tasks, pairs_of

ROWS = 40


def ids(pairs: int = ROWS) -> list[str]:
    return [f"p{n}-{side}" for n in range(pairs) for side in "ab"]


def of(pairs: int = ROWS) -> dict[str, str]:
    return {id: id.partition("-")[0] for id in ids(pairs)}


def cell(outcomes: str, pairs: dict[str, str] | None = None) -> Cell:
    """One character for each pair: 2 both right, 1 one of them, 0 none."""
    right = {"2": (1.0, 1.0), "1": (1.0, 0.0), "0": (0.0, 0.0)}
    scores = {f"p{n}-{side}": [right[o][i]] for n, o in enumerate(outcomes) for i, side in enumerate("ab")}
    return Cell(scores, pairs=of() if pairs is None else pairs)


def one(first: Cell, second: Cell) -> Comparison:
    return compare([Results("a", {"": first}), Results("b", {"": second})]).comparisons[0]


def test_a_rate_knows_as_many_observations_as_there_are_pairs() -> None:
    half = cell("2" * 20 + "0" * 20)
    assert rate_of(samples.joined(half.scores, half.pairs)) == (0.5, wilson(20, 40))
    assert rate_of(half.scores) == (0.5, wilson(40, 80)), "without the pairs, an interval of twice as many"
    never_both = cell("1" * 40)  # as who calls everything vulnerable: half of it is right, whatever the functions are
    assert rate_of(samples.joined(never_both.scores, never_both.pairs)) == (0.5, wilson(20, 40))


def test_a_difference_is_between_pairs() -> None:
    before, after = cell("0" * 20 + "2" * 20), cell("0" * 14 + "2" * 26)
    found = one(before, after)
    assert (found.pairs, found.points, found.mid_p) == (40, 15.0, None)
    assert found.ci95 == pytest.approx([100 * x for x in newcombe_paired(Paired(20, 6, 0, 14))])
    assert found.p == pytest.approx(2 / 2**6, abs=0.01) and found.gained == [
        f"p{n}-{s}" for n in range(14, 20) for s in "ab"
    ]
    alone = one(cell("0" * 20 + "2" * 20, {}), cell("0" * 14 + "2" * 26, {}))
    assert alone.p == pytest.approx(2 / 2**12), "twelve tasks, taken one by one, would say far too much"
    assert alone.ci95[0] > found.ci95[0]


def test_who_is_judged_on_one_side_alone_is_left_out_and_its_other_half_is_not() -> None:
    before, after = cell("02" * 20), cell("20" * 20)
    del before.scores["p0-a"], after.scores["p1-b"]
    found = one(before, after)
    assert (found.pairs, found.unpaired) == (40, 2)
    lift = lift_of("a", before, {"b": after})
    assert (lift.tasks, lift.unpaired, lift.ci95) == (40, 2, found.ci95)


def test_several_seeds_and_halves_keep_the_pairs() -> None:
    before, after = cell("0" * 20 + "2" * 20), {f"s{n}": cell("0" * (10 + n) + "2" * (30 - n)) for n in range(3)}
    alone = {seed: Cell(c.scores) for seed, c in after.items()}
    wide, narrow = lift_of("a", before, after), lift_of("a", Cell(before.scores), alone)
    assert (wide.tasks, narrow.tasks, wide.points) == (40, 80, narrow.points)
    assert wide.ci95[0] < narrow.ci95[0] < narrow.ci95[1] < wide.ci95[1]
    twice = Cell({t: [1.0, 0.0] for t in ids()}, pairs=of())
    odd, even = halves(Results("a", {"": twice}))
    assert one(odd.cells[""], even.cells[""]).pairs == 40


def episode(task: str, solved: bool) -> Episode:
    return Episode(task, task, task, 0, 1, "scored", verdict=Verdict(float(solved), solved=solved))


def test_a_runs_own_table_and_its_journal_say_the_same(tmp_path: Path) -> None:
    before, after = cell("0" * 20 + "2" * 20), cell("0" * 14 + "21" * 13)
    with Journal.create(tmp_path / "run", {"seed": 0, TASK_SETS: {"s": {}}, PAIRS: of()}) as journal:
        for phase, side in (("before", before), ("after", after)):
            for task, (score,) in side.scores.items():
                id = f"eval/{phase}/s/greedy/{task}"
                verdict = Verdict(score, harness_version="h", solved=bool(score))
                journal.add_episode(phase, Episode(id, id, task, 0, 1, "scored", verdict=verdict))
        told = [list(journal.episodes(phase)) for phase in ("before", "after")]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"seed": 0}))
    found = one(*(next(iter(read(f"{tmp_path}/run:{phase}").cells.values())) for phase in ("before", "after")))
    own = assemble({("s", "greedy"): told[0]}, {("s", "greedy"): told[1]}, of())["s"]["greedy"]
    assert (own["difference"]["pairs"], tuple(own["difference"]["ci95"])) == (40, found.ci95)
    assert own["difference"]["p"] == found.p and own["before"]["ci95"] == list(wilson(20, 40))
    assert Difference.of(*told).pairs == SplitResult.of(told[0]).total == 80


def test_the_tasks_of_a_pair_say_which_it_is_and_metrics_use_it() -> None:
    made = [
        task
        for n in range(ROWS)
        for task in pair_tasks(
            f"p{n}", "own", "test", "int f(int a) {\n  return 1;\n}\n", f"int f() {{ return {n}; }}\n", "c", ["CWE-787"]
        )
    ]
    assert pairs_of(made) == {f"p{n}-{side}": f"p{n}" for n in range(ROWS) for side in "ab"}
    tasks = {task.id: task for task in made}
    outlines = [Outline.of(episode(id, int(of()[id][1:]) % 2 == 0), tasks[id]) for id in tasks]
    told = measure(outlines, {})
    assert (told["rate"], told["ci95"]) == (0.5, list(wilson(20, 40)))
    assert all(
        part["ci95"] == list(wilson(part["judged"] / 4, part["judged"] // 2))
        for of_key in groups(outlines, tasks).values()
        for part in of_key.values()
    )


def test_policies_that_do_not_differ_are_called_different_no_more_than_one_time_in_twenty() -> None:
    """A policy that is right on both versions of a function or on none: 80 tasks, 40 observations."""
    rng = np.random.default_rng(0)
    together, apart = 0, 0
    for _ in range(200):
        outcomes = ["".join(rng.choice(["0", "2"], ROWS)) for _ in range(2)]
        together += one(*(cell(o) for o in outcomes)).p <= 0.05
        apart += one(*(cell(o, {}) for o in outcomes)).p <= 0.05
    assert together <= 20 < apart, (together, apart)
