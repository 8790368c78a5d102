"""The four verdicts, what would decide, seeds pooled, and conditions that are not the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from crrl.cli.main import main
from crrl.evaluation.cells import Cell
from crrl.evaluation.criterion import Lift, judge, lift_of, would_decide
from crrl.evaluation.planning import Noises, standard_error
from crrl.evaluation.statistics import Paired, newcombe_paired
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal


def cell(outcomes: str) -> Cell:
    return Cell({f"t{i}": [float(o)] for i, o in enumerate(outcomes)})


def lift(points: float, low: float, high: float) -> Lift:
    return Lift("b", points, (low, high), 100, (0.1, 0.2), {"s": points}, Noises(0.2, 0.3))


@pytest.mark.parametrize(
    ("points", "low", "high", "wanted", "verdict"),
    [
        (8, 5.0, 11, 5, "met strongly"),
        (8, 4.9, 11, 5, "met"),
        (5, 0.1, 10, 5, "met"),
        (5, 0.0, 10, 5, "not decidable"),
        (4.9, 0.1, 10, 5, "not decidable"),  # above 0, but not shown to be 5, nor to be less
        (2, -1, 4.9, 5, "not met"),
        (2, 1, 4.9, 5, "not met"),
        (2, -1, 5.0, 5, "not decidable"),
        (2, 0.1, 5, 0, "met"),
        (2, 0.0, 5, 0, "not decidable"),
        (-2, -5, 0.0, 0, "not met"),
        (-2, -5, 0.1, 0, "not decidable"),
    ],
)
def test_the_verdicts(points: float, low: float, high: float, wanted: float, verdict: str) -> None:
    assert judge(lift(points, low, high), wanted) == verdict


def test_one_seed_and_one_sample_have_newcombes_interval() -> None:
    base, trained = cell("0011" * 10), cell("0111" * 10)
    found = lift_of("b", base, {"s": trained})
    low, high = newcombe_paired(Paired(20, 10, 0, 10))
    assert found.points == 25.0 and found.ci95 == (100 * low, 100 * high) and found.rates == (0.5, 0.75)


def test_seeds_are_pooled_over_the_tasks_that_all_judged() -> None:
    base = cell("0000")
    one, two = cell("1100"), Cell({"t0": [1.0, 0.0], "t1": [0.0, 0.0], "t2": [0.0, 0.0]}, {"t3": 2})
    found = lift_of("b", base, {"one": one, "two": two})
    assert found.tasks == 3 and found.unpaired == 1
    assert found.seeds == {"one": pytest.approx(200 / 3), "two": pytest.approx(100 / 6)}
    assert found.points == pytest.approx((200 / 3 + 100 / 6) / 2)
    assert found.bounds == (pytest.approx(100 * (0.5 + 0.125) / 2), pytest.approx(100 * (0.5 + 0.375) / 2))


def test_what_would_decide_is_enough_and_half_of_it_is_not() -> None:
    seen = lift(5.0, -1, 11)
    said = would_decide(seen, 5.0, cell("01"), cell("01"))
    k, seeds = int(said.split()[0]), int(said.split()[5])
    assert (k, seeds, seen.tasks) == (8, 1, 100) and "above 0" in said
    assert 1.96 * standard_error(seen.noises, 100, k, seeds) < 0.05 <= 1.96 * standard_error(seen.noises, 100, 4, 1)
    tasks = int(would_decide(replace(seen, points=1.0), 0.0, cell("01"), cell("01")).split()[0])
    assert 1.96 * standard_error(seen.noises, tasks) == pytest.approx(0.01, rel=0.01)
    below = would_decide(replace(seen, points=2.0), 5.0, cell("01"), cell("01"))
    assert "the upper bound would lie below 5" in below
    assert "on the line" in would_decide(lift(0.0, -1, 1), 0.0, cell("01"), cell("01"))
    still = lift_of("b", cell("01"), {"s": cell("01")})
    assert "how much results vary is not known" in would_decide(still, 5.0, cell("01"), cell("01"))
    torn = replace(seen, points=1.0, noises=Noises(0.2, 0.3, 0.5))
    assert "the seeds differ too much" in would_decide(torn, 0.0, cell("01"), cell("01"))


def test_what_would_decide_knows_that_pairs_have_the_samples_of_both_versions() -> None:
    """Four samples of either version are eight of the pair."""
    both = Cell({f"t{i}": [0.0] for i in range(200)}, pairs={f"t{i}": f"p{i // 2}" for i in range(200)})
    said = would_decide(lift(5.0, -1, 11), 5.0, both, both)
    assert said.startswith("4 samples a task and 1 training seeds on these 100 tasks")


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (3, 0.04), (5, 0.04)])
def test_the_pooled_interval_covers(seeds: int, spread: float) -> None:
    """Of the mean over tasks and training seeds; 60 tasks of differing difficulty, seeds that differ by 4 points."""
    rng = np.random.default_rng(7)
    inside, rounds = 0, 200
    for _ in range(rounds):
        difficulty = rng.beta(1, 2, 60)
        base = Cell({f"t{i}": [float(rng.random() < p)] for i, p in enumerate(difficulty)})
        trained = {}
        for seed in range(seeds):
            gain = 0.1 + rng.normal(0, spread)
            better = np.clip(difficulty * 0.7 + 0.15 + gain, 0, 1)
            trained[str(seed)] = Cell({f"t{i}": [float(rng.random() < p)] for i, p in enumerate(better)})
        # of all tasks: E[0.7 p + 0.25 - p] with E[p] = 1/3 (the clip touches almost nothing)
        low, high = lift_of("b", base, trained).ci95
        inside += low <= 100 * (0.25 - 0.3 / 3) <= high
    assert inside / rounds >= 0.92


def folder(path: Path, outcomes: str, *, turns: int = 10, weights: str = "w", rule: str = "") -> str:
    told = {"policy": path.name, "checkpoint": "c", "rule": rule, "weights": weights, "benchmark": "b"}
    with Journal.create(path, {"seed": 0, "evaluation": told}) as journal:
        for i, outcome in enumerate(outcomes):
            id, solved = f"eval/eval/b/greedy/t{i}", outcome == "1"
            verdict = Verdict(float(solved), harness_version="h", solved=solved)
            journal.add_episode("eval", Episode(id, id, f"t{i}", 0, 1, "scored", verdict=verdict))
    (path / "config.yaml").write_text(yaml.safe_dump({"agent": {"turns": turns}, "seed": 0}))
    return str(path)


OUTCOMES = {  # of 100 tasks, of which the baseline solves 20: how many more, and how many of them no longer
    "met strongly": ("1" * 20 + "1" * 20 + "0" * 60, "points=5"),
    "met": ("1" * 20 + "1" * 8 + "0" * 72, "points=5"),
    "not met": ("1" * 20 + "1" * 2 + "0" * 78, "points=15"),
    "not decidable": ("0" * 4 + "1" * 16 + "1" * 7 + "0" * 73, "points=5"),
}


@pytest.mark.parametrize("verdict", OUTCOMES)
def test_the_command_prints_each_verdict(tmp_path: Path, verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes, points = OUTCOMES[verdict]
    a = folder(tmp_path / "base", "1" * 20 + "0" * 80, weights="u")
    b = folder(tmp_path / "trained", outcomes, rule="last")
    assert main(["criterion", a, b, points]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{verdict.upper()}: at least ")
    assert ("would decide it" in out) == (verdict == "not decidable")
    assert "checkpoint by the rule `last`" in out and "one training seed" in out
    assert main(["criterion", a, b, points, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == verdict


def test_it_has_to_hold_against_every_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = folder(tmp_path / "base", "0" * 100, weights="u")
    strong = folder(tmp_path / "strong", "1" * 50 + "0" * 50, turns=30, weights="v")
    b = folder(tmp_path / "trained", "1" * 40 + "0" * 60)
    assert main(["criterion", a, b, f"stronger={strong}"]) == 0
    out = capsys.readouterr().out
    assert "MET STRONGLY: at least 5 points over" in out and "In all: not met." in out
    assert "no rule for the checkpoint was written down" in out


def test_other_conditions_and_the_same_seed_twice_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = folder(tmp_path / "a", "0011"), folder(tmp_path / "b", "0111", turns=30)
    assert main(["criterion", a, b]) == 1
    assert "agent.turns: 10 | 30" in capsys.readouterr().err
    c, d = folder(tmp_path / "c", "0111"), folder(tmp_path / "d", "0111")
    assert main(["criterion", a, c, d]) == 1
    assert "same weights" in capsys.readouterr().err
    assert main(["criterion", a, c]) == 1
    assert "the weights of the baseline" in capsys.readouterr().err
    assert main(["criterion", a]) == 2 and main(["criterion", a, c, "points=x"]) == 2


def test_a_baseline_that_training_did_not_begin_with_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = recorded(tmp_path, base="0011" * 5, one="0111" * 5)
    for first, said in (("f", False), ("g", True), ("", False)):
        for path, words in ((of["base"], {"fingerprint": "f"}), (of["one"], {"fingerprint": "x", "first": first})):
            with Journal.open(Path(path)) as journal:
                journal.set_meta("evaluation", journal.meta["evaluation"] | words)
        assert main(["criterion", of["base"], of["one"]]) == 0
        assert ("its run began with other weights" in capsys.readouterr().out) is said


def recorded(tmp_path: Path, **outcomes: str) -> dict[str, str]:
    """ROW_COLUMN_SEED -> the folder of its evaluation."""
    return {name: folder(tmp_path / name, of, weights=name) for name, of in outcomes.items()}


def test_the_table_of_what_was_learnt_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = recorded(
        tmp_path,
        base_p="0011" * 10,
        base_j="0001" * 10,
        python_p_1="0111" * 10,
        python_p_2="0111" * 8 + "1111" * 2,
        python_j="0001" * 10,
        java_j="0011" * 10,
        both_p="0110" * 10,
        both_j="0011" * 9 + "0000",
    )
    words = [
        *(f"base.p={of['base_p']}", f"base.j={of['base_j']}", f"python.p={of['python_p_1']},{of['python_p_2']}"),
        *(f"python.j={of['python_j']}", f"java.j={of['java_j']}", f"both.p={of['both_p']}", f"both.j={of['both_j']}"),
    ]
    assert main(["criterion", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["| trained on | p | j |", "|---|---|---|"]
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[2:5]}
    assert rows["python"][0].startswith("**50.0% → 77.5%, +27.5 [") and rows["python"][1].startswith("25.0% → 25.0%")
    assert rows["java"][0] == "–" and rows["java"][1].startswith("**25.0% → 50.0%, +25.0 [")
    assert rows["both"][0].startswith("50.0% → 50.0%, +0.0 ["), "as many fell as were gained"
    assert rows["both"][1].startswith("**25.0% → 45.0%, +20.0 [")
    assert "The 5 intervals are not adjusted" in lines[6] and lines[7] == "python: 2 training seeds, pooled."
    assert main(["criterion", *words, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["table"]
    assert len(table["python"]["p"]["seeds"]) == 2 and table["python"]["p"]["verdict"] == "met"
    assert table["both"]["p"]["verdict"] == "not decidable"


def test_a_table_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = recorded(tmp_path, base="0011" * 5, one="0111" * 5)
    other = folder(tmp_path / "other", "0111" * 5, turns=30)
    a, b = of["base"], of["one"]
    for words, said in (
        ([f"x.p={b}"], "the row `base`"),
        ([f"base.p={a}"], "the row `base`"),
        ([f"base.p={a}", f"x.q={b}"], "base.q is missing"),
        ([f"base.p={a},{b}", f"x.p={b}"], "the baseline is one"),
        ([f"base.p={a}", f"x.p={b}", f"x.p={b}"], "is there twice"),
        ([f"base.p={a}", "x=1"], "is not ROW.COLUMN"),
    ):
        assert main(["criterion", *words]) == 2, words
        assert said in capsys.readouterr().err
    assert main(["criterion", f"base.p={a}", f"x.p={other}"]) == 1
    assert "agent.turns: 10 | 30" in capsys.readouterr().err
    assert main(["criterion", f"base.p={a}", f"x.p={b},{b}"]) == 1
    assert "same weights" in capsys.readouterr().err


def test_a_benchmark_with_several_cells_has_a_column_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, gained in (("base", 0), ("trained", 3)):
        folder(tmp_path / name, "0011" * 5, weights=name)
        with Journal.open(tmp_path / name) as journal:
            for i in range(20):
                id, solved = f"eval/eval/other/greedy/t{i}", i < 10 + gained
                verdict = Verdict(float(solved), harness_version="h", solved=solved)
                journal.add_episode("eval", Episode(id, id, f"t{i}", 0, 1, "scored", verdict=verdict))
    words = [f"base.made={tmp_path / 'base'}", f"python.made={tmp_path / 'trained'}"]
    assert main(["criterion", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| trained on | made: b, greedy | made: other, greedy |"
    assert "50.0% → 50.0%" in lines[2] and "50.0% → 65.0%, +15.0 [" in lines[2]
    assert main(["criterion", *words, "cell=other, greedy"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "| trained on | made |"


@pytest.mark.parametrize("words", [[], ["difference=3", "tasks=200"], ["power=90", "discordant=20"]])
def test_the_plan(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-eval", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    row = told["table"]["1"]
    assert row["1"]["detectable"] > row["4"]["detectable"] > told["table"]["5"]["4"]["detectable"]
    assert main(["plan-eval", *words]) == 0
    assert "tasks show it with" in capsys.readouterr().out


def test_the_plan_of_one_sample_is_mcnemars(capsys: pytest.CaptureFixture[str]) -> None:
    """At n = 500 with 15% discordant pairs, 4.9 points are detected with 80% power (issue: Connor 1987)."""
    assert main(["plan-eval", "seed_spread=0", "discordant=15", "difference=4.85", "tasks=500", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["table"]["1"]["1"]["detectable"] == pytest.approx(4.85, abs=0.05)
    assert told["one_sample"]["tasks_needed"] == pytest.approx(500, abs=5)


def test_the_plan_on_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = folder(tmp_path / "a", "0011" * 20), folder(tmp_path / "b", "0111" * 20)
    assert main(["plan-eval", a, b, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == 80
    for words in ([a], [a, b, "spread=3"], ["difference=0"], ["tasks=1"], ["power=x"]):
        assert main(["plan-eval", *words]) == 2
