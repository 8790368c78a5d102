"""Two or more policies on the same tasks: effect, interval, p-value, and a verdict in words.

Pairs are tasks that both sides judged. One sample a task: Newcombe's interval and the exact McNemar test. Several: the
bootstrap and the permutation test over tasks (`samples.py`). A verdict says what the interval says, never more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crrl.evaluation import samples
from crrl.evaluation.planning import tasks_needed
from crrl.evaluation.results import Cell, Results
from crrl.evaluation.statistics import (
    Paired,
    cochran_q,
    detectable_difference,
    holm,
    mcnemar_exact,
    mcnemar_mid_p,
    newcombe_paired,
)


@dataclass(frozen=True)
class Comparison:
    """`second` against `first` in one cell.

    Args:
        rates: of both, over the pairs.
        points, ci95: rate second − rate first, in percentage points.
        p, mid_p: two-sided; `mid_p` only where there is one sample a task. `p_holm`: adjusted for all comparisons.
        gained, fell: tasks whose mean rose or fell.
        unpaired: tasks that only one side judged. `if_lost`: points if every lost sample of the second had been
            solved and none of the first, and the other way round: what the lost ones could change.
        detectable: points that so many pairs show with 80% power; None: none.
        without: repository -> points without its tasks, and `p_by_repository`: whole repositories exchanged.
        verdict: in words.
    """

    cell: str
    first: str
    second: str
    pairs: int
    rates: tuple[float, float]
    points: float
    ci95: tuple[float, float]
    p: float
    mid_p: float | None
    gained: list[str]
    fell: list[str]
    unpaired: int
    if_lost: tuple[float, float] | None
    detectable: float | None
    without: dict[str, float] = field(default_factory=dict)
    p_by_repository: float | None = None
    p_holm: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Report:
    """`comparisons`: each of the others against the first, by cell. `cochran_q`: cell -> p, for three or more with one
    sample a task. `differs`: settings under which they were measured that are not the same: key -> values."""

    comparisons: list[Comparison]
    cochran_q: dict[str, float]
    differs: dict[str, list[Any]]


def compare(results: Sequence[Results]) -> Report:
    """Raises ValueError: they have no cell, or no task, in common."""
    first, *others = results
    cells = [cell for cell in first.cells if all(cell in r.cells for r in others)]
    if not cells:
        raise ValueError("They were not evaluated on the same splits under the same decodings.")
    found = [_compared(cell, first, other) for cell in cells for other in others]
    if not any(c.pairs for c in found):
        raise ValueError("They have no task in common.")
    adjusted = holm([c.p for c in found]) if len(found) > 1 else [None] * len(found)
    told = [_with_verdict(c, p) for c, p in zip(found, adjusted, strict=True)]
    q = {cell: p for cell in cells if len(results) > 2 and (p := _q(cell, results)) is not None}
    return Report(told, q, differences(results))


def differences(results: Sequence[Results]) -> dict[str, list[Any]]:
    """What was not measured in the same way."""
    keys = {key for r in results for key in r.measured}
    values = {key: [r.measured.get(key) for r in results] for key in sorted(keys)}
    return {key: those for key, those in values.items() if any(v != those[0] for v in those)}


def _compared(name: str, first: Results, second: Results) -> Comparison:
    a, b = first.cells[name], second.cells[name]
    each = samples.differences(a.scores, b.scores)
    old, new = ({t: side.scores[t] for t in each} for side in (a, b))
    single = all(len(s) == 1 for s in (*old.values(), *new.values()))
    n = len(each)
    rates = tuple(sum(sum(s) / len(s) for s in side.values()) / n if n else 0.0 for side in (old, new))
    table = Paired.of([s[0] > 0.5 for s in old.values()], [s[0] > 0.5 for s in new.values()]) if single else None
    if table is not None:
        ci95, p, mid_p = newcombe_paired(table), mcnemar_exact(table), mcnemar_mid_p(table)
        changed = (table.gained + table.fell) / n if n else 0.0
        seen = detectable_difference(n, changed)
        points = table.difference
    else:
        mean = samples.MeanDifference.of(old, new)
        ci95, p, mid_p, points = mean.ci95, mean.p, None, mean.difference
        seen = 2.8 * (ci95[1] - ci95[0]) / 3.92  # (1.96 + 0.84) standard errors
    repositories = {task: repository(task) for task in each}
    several = len(set(repositories.values())) > 1 and all(repositories.values())
    return Comparison(
        cell=name,
        first=first.name,
        second=second.name,
        pairs=n,
        rates=(rates[0], rates[1]),
        points=100 * points,
        ci95=(100 * ci95[0], 100 * ci95[1]),
        p=p,
        mid_p=mid_p,
        gained=sorted(t for t, d in each.items() if d > 0),
        fell=sorted(t for t, d in each.items() if d < 0),
        unpaired=len({*a.scores, *b.scores}) - n,
        if_lost=_if_lost(a, b),
        detectable=100 * seen if seen <= 1 else None,
        without={k: 100 * v for k, v in samples.leave_one_out(each, repositories).items()} if several else {},
        p_by_repository=samples.sign_flip(each, repositories) if several else None,
    )


def _if_lost(a: Cell, b: Cell) -> tuple[float, float] | None:
    """Points with the lost samples of one side all solved and of the other all unsolved, over all tasks of both."""
    if not a.lost and not b.lost:
        return None
    tasks = {*a.scores, *a.lost} & {*b.scores, *b.lost}

    def rate(cell: Cell, lost_are: float) -> float:
        filled = [[*cell.scores.get(t, []), *[lost_are] * cell.lost.get(t, 0)] for t in tasks]
        return sum(sum(s) / len(s) for s in filled) / len(tasks)

    return 100 * (rate(b, 0.0) - rate(a, 1.0)), 100 * (rate(b, 1.0) - rate(a, 0.0))


def _q(cell: str, results: Sequence[Results]) -> float | None:
    scores = [r.cells[cell].scores for r in results]
    common = [t for t in scores[0] if all(len(s.get(t, [])) == 1 for s in scores)]
    return cochran_q([[s[t][0] > 0.5 for t in common] for s in scores]) if common else None


def repository(task: str) -> str:
    """Of an id like SWE-bench's, `owner__name-123`; "" where the id tells none."""
    owner, double, rest = task.partition("__")
    return f"{owner}/{rest.rpartition('-')[0]}" if double and rest.rpartition("-")[2].isdigit() else ""


def _with_verdict(c: Comparison, adjusted: float | None) -> Comparison:
    return replace(c, p_holm=adjusted, verdict=verdict(c))


def verdict(c: Comparison) -> str:
    """What the interval allows to say."""
    low, high = c.ci95
    if not c.pairs:
        return "no task in common"
    if low > 0 or high < 0:
        word = "better" if low > 0 else "worse"
        by = f"{abs(c.points):.1f} points, at least {min(abs(low), abs(high)):.1f}"
        return f"{c.second} is {word} than {c.first} by {by}"
    said = f"{c.first} and {c.second} are not distinguishable: the difference lies between {low:+.1f} and {high:+.1f}"
    changed = (len(c.gained) + len(c.fell)) / c.pairs
    if c.points and abs(c.points) / 100 <= changed:
        needed = tasks_needed(abs(c.points) / 100, changed)
        if needed > c.pairs:
            said += f"; if {c.points:+.1f} is true, {needed} tasks would show it in four of five tries"
    return said


def markdown(report: Report) -> str:
    """A table for a paper or an issue."""
    lines = [
        "| tasks | first | second | points [95%] | p | pairs | gained, fell |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in report.comparisons:
        rates = " | ".join(f"{name} {100 * rate:.1f}%" for name, rate in zip((c.first, c.second), c.rates, strict=True))
        lines.append(
            f"| {c.cell or 'all'} | {rates} | {c.points:+.1f} [{c.ci95[0]:+.1f}, {c.ci95[1]:+.1f}] | {p_value(c)} "
            f"| {c.pairs} | {len(c.gained)}, {len(c.fell)} |"
        )
    return "\n".join([*lines, "", *(f"- {c.verdict}." for c in report.comparisons)])


def p_value(c: Comparison) -> str:
    p = c.p if c.p_holm is None else c.p_holm
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
