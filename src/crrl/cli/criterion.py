"""`crrl criterion`: is a claim met, not met, or not decidable?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from crrl.cli.call import Call, print_json
from crrl.errors import CrrlError, UsageError

if TYPE_CHECKING:
    from crrl.evaluation.cells import Results
    from crrl.evaluation.criterion import Criterion, Lift

USAGE = """
crrl criterion BASELINE TRAINED [TRAINED...] [key=value...] [--json]
crrl criterion ROW.COLUMN=RESULT[,RESULT]... [--json]"""
HELP = """
Does TRAINED beat BASELINE by so many points? Several TRAINED are the training seeds of one recipe, and are pooled.
BASELINE is the same base model, untrained, with the same agent, budgets, prompts and sampling: else it is refused.

  met strongly    the lower bound of the paired 95% interval reaches the points
  met             the difference does, and the lower bound lies above 0
  not met         the upper bound lies below the points
  not decidable   none of these; it is said what would decide it

  points=5             the points (5; on gitbug-java 0: any lift, a lower bound above 0)
  stronger=A,B         stronger baselines, which may have been measured otherwise; the claim has to hold against each
  cell="SPLIT, DECODING"   where results have several

A table of what was learnt where, each row against the row `base`; columns are benchmarks, and their cells where
results have several. Training seeds stand in one word:

  crrl criterion base.verified=A base.gitbug=B python.verified=C,D,E python.gitbug=F,G,H both.verified=I both.gitbug=J
"""
ANY_LIFT = ("gitbug-java",)
"""Benchmarks on which any lift is the claim."""


def run(call: Call) -> int:
    if not call.arguments and call.settings:
        return _table(call)
    from crrl.evaluation.criterion import plain
    from crrl.evaluation.results import read

    cell, points, stronger = (call.take(key) for key in ("cell", "points", "stronger"))
    call.no_settings()
    if len(call.arguments) < 2:
        raise UsageError("crrl criterion needs BASELINE and TRAINED.", "See: crrl criterion --help")
    baseline, *trained = [read(word) for word in call.arguments]
    others = [read(word) for word in (stronger or "").split(",") if word]
    wanted = _wanted(points, trained)
    _same_conditions(baseline, trained)
    found = _judged([baseline, *others], trained, cell or "", wanted)
    if call.json:
        print_json({"criteria": [plain(c) for c in found], "verdict": weakest(found)})
    else:
        _show(found)
    return 0


def _wanted(points: str | None, trained: list[Results]) -> float:
    if points is None:
        return 0.0 if any(r.policy.get("benchmark") in ANY_LIFT for r in trained) else 5.0
    try:
        value = float(points)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UsageError(f"points={points} is not a number of points.", "Write e.g. points=5, or points=0.")
    return value


def _same_conditions(baseline: Results, trained: list[Results]) -> None:
    """Raises CrrlError: not the same conditions, or a policy twice."""
    from crrl.evaluation.compare import differences, incomparable

    refused = incomparable([baseline, *trained])
    differs = differences([r.measured for r in (baseline, *trained)])
    refused += [f"{key}: {' | '.join(map(str, values))}" for key, values in differs.items()]
    if refused:
        raise CrrlError(
            "They were not measured under the same conditions, so the claim cannot be judged. " + " · ".join(refused),
            "Evaluate the baseline as the trained policy was; crrl compare shows them as they are.",
        )
    known = [str(weights) for r in trained if (weights := r.policy.get("weights"))]
    if len(set(known)) < len(known):
        raise CrrlError("Two of the trained policies have the same weights.", "Name each training seed once.")
    if baseline.policy.get("weights") in known:
        raise CrrlError("A trained policy has the weights of the baseline.", "Name an evaluation of what was trained.")


def _judged(baselines: list[Results], trained: list[Results], cell: str, wanted: float) -> list[Criterion]:
    from crrl.evaluation.compare import aligned
    from crrl.evaluation.criterion import criterion

    try:
        results = aligned([*baselines, *trained], cell)
        cells = [name for name in results[0].cells if all(name in r.cells for r in results)]
        if not cells:
            raise ValueError("They were not evaluated on the same splits under the same decodings.")
        notes = [note for r in trained for note in (*_began(baselines[0], r), *_rule(r))]
        first, rest = results[: len(baselines)], results[len(baselines) :]
        found = [criterion(base, rest, name, wanted) for name in cells for base in first]
    except ValueError as error:
        raise UsageError(str(error), "Compare evaluations of the same tasks.") from None
    return [replace(c, notes=notes) for c in found]


def _began(baseline: Results, trained: Results) -> list[str]:
    """Whether it was trained from the baseline."""
    own, first = baseline.policy.get("fingerprint"), trained.policy.get("first")
    if not own or not first or own == first:
        return []
    return [
        f"{trained.name}: its run began with other weights than {baseline.name} has; the difference is that of all "
        "that was done in between"
    ]


def _rule(trained: Results) -> list[str]:
    """How its checkpoint was chosen, and what it had seen."""
    rule = trained.policy.get("rule") or trained.policy.get("checkpoint_rule")
    said = (
        f"{trained.name}: checkpoint by the rule `{rule}`, written down before training"
        if trained.policy.get("checkpoint_rule") or rule in ("last", "best_validation")
        else f"{trained.name}: no rule for the checkpoint was written down before training; it may be the best of many"
    )
    seen = trained.policy.get("seen")
    return [said, *([f"{trained.name}: {seen['said']}"] if seen else [])]


def weakest(found: list[Criterion]) -> str:
    """A claim holds where it holds against every baseline."""
    order = ("not met", "not decidable", "met", "met strongly")
    return min((c.verdict for c in found), key=order.index)


def _show(found: list[Criterion]) -> None:
    for c in found:
        lift = c.lift
        goal = f"at least {c.wanted:g} points" if c.wanted else "any lift"
        print(f"{c.verdict.upper()}: {goal} over {lift.baseline}{f' on {c.cell}' if c.cell else ''}")
        print(f"  {_change(lift)} points over {lift.tasks} tasks")
        if len(lift.seeds) > 1:
            print("  training seeds: " + ", ".join(f"{name} {points:+.1f}" for name, points in lift.seeds.items()))
        else:
            print("  one training seed: the interval says nothing of others")
        if lift.unpaired:
            print(f"  left out: {lift.unpaired} tasks that not all of them judged")
        if lift.bounds:
            print(f"  with lost ones at their worst and best: {lift.bounds[0]:+.1f} to {lift.bounds[1]:+.1f} points")
        if c.would_decide:
            print(f"  would decide it: {c.would_decide}")
    for note in found[0].notes:
        print(f"- {note}")
    if len(found) > 1:
        print(f"In all: {weakest(found)}.")


# The table of what was learnt where --------------------------------------------------------------------------------


def _table(call: Call) -> int:
    from crrl.evaluation.criterion import plain

    cell = call.take("cell") or ""
    rows = _named(call.settings)
    found: dict[str, dict[str, Criterion]] = {}
    for row, columns in rows.items():
        for column, trained in columns.items():
            if row == "base":
                continue
            if column not in rows["base"]:
                raise UsageError(f"base.{column} is missing.", f"Write base.{column}=RESULT.")
            _same_conditions(rows["base"][column][0], trained)
            judged = _judged(rows["base"][column], trained, cell, 0.0)
            for c in judged:
                found.setdefault(row, {})[f"{column}: {c.cell}" if len(judged) > 1 else column] = c
    if call.json:
        print_json({"table": {row: {c: plain(v) for c, v in of.items()} for row, of in found.items()}})
        return 0
    names = [name for column in rows["base"] for name in _columns(found, column)]
    print(f"| trained on | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for row, of in found.items():
        print(f"| {row} | " + " | ".join(_entry(of.get(name)) for name in names) + " |")
    entries = [c for of in found.values() for c in of.values()]
    print(f"\nBold: the 95% interval excludes 0. The {len(entries)} intervals are not adjusted for each other.")
    for row, of in found.items():
        if (seeds := max(len(c.lift.seeds) for c in of.values())) > 1:
            print(f"{row}: {seeds} training seeds, pooled.")
    for note in dict.fromkeys(note for c in entries for note in c.notes):
        print(f"- {note}")
    return 0


def _named(settings: list[str]) -> dict[str, dict[str, list[Results]]]:
    """Row -> column -> its results, of each training seed one. Raises UsageError."""
    from crrl.evaluation.results import read

    rows: dict[str, dict[str, list[Results]]] = {}
    for setting in settings:
        key, _, words = setting.partition("=")
        row, dot, column = key.partition(".")
        if not (dot and row and column and words):
            raise UsageError(f"'{setting}' is not ROW.COLUMN=RESULT.", "See: crrl criterion --help")
        if column in rows.get(row, {}):
            raise UsageError(f"{key} is there twice.", f"Write training seeds as one: {key}=RESULT,RESULT")
        rows.setdefault(row, {})[column] = [read(word) for word in words.split(",") if word]
        if row == "base" and len(rows[row][column]) > 1:
            raise UsageError(f"{key} has several results: the baseline is one, untrained.", f"Write {key}=RESULT.")
    if "base" not in rows or len(rows) < 2:
        raise UsageError(
            "The table needs the row `base` and another one.", "Write base.COLUMN=RESULT ROW.COLUMN=RESULT."
        )
    return rows


def _columns(found: dict[str, dict[str, Criterion]], column: str) -> list[str]:
    """Of a benchmark: one, or one for each cell that its results have."""
    named = dict.fromkeys(name for of in found.values() for name in of)
    return [name for name in named if name == column or name.startswith(f"{column}: ")] or [column]


def _entry(c: Criterion | None) -> str:
    if c is None:
        return "–"
    low, high = c.lift.ci95
    return f"**{_change(c.lift)}**" if low > 0 or high < 0 else _change(c.lift)


def _change(lift: Lift) -> str:
    low, high = lift.ci95
    return f"{lift.rates[0]:.1%} → {lift.rates[1]:.1%}, {lift.points:+.1f} [{low:+.1f}, {high:+.1f}]"
