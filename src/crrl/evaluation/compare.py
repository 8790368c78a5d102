"""Two or more policies on the same tasks: effect, interval, p-value, and a verdict in words.

Pairs are tasks that both sides judged; both versions of a function are one task with two samples. One sample a task:
Newcombe's interval and the exact McNemar test. Several: the bootstrap and the permutation test over tasks
(`samples.py`). A verdict says what the interval says, never more.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from crrl.evaluation import samples
from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.planning import tasks_needed
from crrl.evaluation.statistics import (
    Paired,
    cochran_q,
    detectable_difference,
    holm,
    mcnemar_exact,
    mcnemar_mid_p,
    newcombe_paired,
)

LEVEL = 0.05
"""Of the tests, after Holm's correction."""


@dataclass(frozen=True)
class Comparison:
    """`second` against `first` in one cell.

    Args:
        rates: of both, over the pairs.
        points, ci95: rate second − rate first, in percentage points.
        p, mid_p: two-sided; `mid_p` only where there is one sample a task. `p_holm`: adjusted for all comparisons.
        gained, fell: tasks whose mean rose or fell. `changed`: the share of pairs in which it did.
        unpaired: tasks that only one side judged. `if_lost`: points if every lost sample of the second had been
            solved and none of the first, and the other way round: what the lost ones could change.
        detectable: points that so many pairs show with 80% power; None: none.
        without: repository -> points without its tasks, and `p_by_repository`: whole repositories exchanged.
        repositories: how many equal ones weigh as much; `clustered`: interval whose error is clustered by them, where
            they are enough.
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
    changed: float
    unpaired: int
    if_lost: tuple[float, float] | None
    detectable: float | None
    without: dict[str, float] = field(default_factory=dict)
    p_by_repository: float | None = None
    repositories: float | None = None
    clustered: tuple[float, float] | None = None
    p_holm: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Report:
    """`comparisons`: each of the others against the first, by cell. `cochran_q`: cell -> p, for three or more with one
    sample a task. `differs`: settings under which they were measured that are not the same: key -> values."""

    comparisons: list[Comparison]
    cochran_q: dict[str, float]
    differs: dict[str, list[Any]]
    names: list[str] = field(default_factory=list)


def compare(results: Sequence[Results], cell: str = "") -> Report:
    """`cell`: this one only; results that have one cell are taken to be it. Raises ValueError: they have no cell, or no
    task, in common."""
    differs = differences([r.measured for r in results])
    if not cell and all(len(r.cells) == 1 for r in results) and len({name for r in results for name in r.cells}) > 1:
        differs["cell"] = [next(iter(r.cells)) for r in results]
    results = aligned(results, cell)
    first, *others = results
    cells = [name for name in first.cells if all(name in r.cells for r in others)]
    if not cells:
        known = "; ".join(f"{r.name} has {', '.join(map(repr, r.cells))}" for r in results)
        raise ValueError(f"They were not evaluated on the same splits under the same decodings: {known}.")
    found = [_compared(cell, first, other) for cell in cells for other in others]
    if not any(c.pairs for c in found):
        raise ValueError("They have no task in common.")
    adjusted = holm([c.p for c in found]) if len(found) > 1 else [None] * len(found)
    told = [_with_verdict(c, p) for c, p in zip(found, adjusted, strict=True)]
    q = {cell: p for cell in cells if len(results) > 2 and (p := _q(cell, results)) is not None}
    return Report(told, q, differs, [r.name for r in results])


def aligned(results: Sequence[Results], cell: str = "") -> list[Results]:
    """With `cell` alone; without it, results that all have one cell have the same one, whatever its name. Raises
    ValueError: one has no such cell."""
    if cell:
        return [_only(r, cell) for r in results]
    if any(len(r.cells) != 1 for r in results):
        return list(results)
    names = [next(iter(r.cells)) for r in results]
    name = next((name for name in names if name), "")
    return [replace(r, cells={name: next(iter(r.cells.values()))}) for r in results]


def _only(results: Results, cell: str) -> Results:
    if cell in results.cells:
        return replace(results, cells={cell: results.cells[cell]})
    if list(results.cells) == [""]:
        return replace(results, cells={cell: results.cells[""]})
    raise ValueError(f"{results.name} has no cell {cell!r}; it has {', '.join(map(repr, results.cells))}.")


def differences(conditions: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """key -> the value on each side, where they are not all the same. What a side does not know is None."""
    keys = {key for side in conditions for key in side}
    values = {key: [side.get(key) for side in conditions] for key in sorted(keys)}
    return {key: those for key, those in values.items() if any(v != those[0] for v in those)}


def told(value: Any) -> str:
    """A value that differs, on one line: a whole file by its length and the beginning of its SHA-256."""
    text = "not set" if value in (None, "") else str(value)
    if "\n" not in text:
        return text
    return f"{len(text.splitlines())} lines ({hashlib.sha256(text.encode()).hexdigest()[:12]})"


def incomparable(results: Sequence[Results]) -> list[str]:
    """Why a difference of these would mean nothing, in words: another judge, another benchmark, or other tasks under
    the same ids. Sides that do not know something are not held to it."""
    said = []
    for key in sorted({key for r in results for key in r.ruler}):
        known = [(r.name, r.ruler[key]) for r in results if key in r.ruler]
        if any(value != known[0][1] for _, value in known):
            said.append(f"{key}: " + ", ".join(f"{value!s} ({name})" for name, value in known))
    for a, b in combinations([r for r in results if r.judges], 2):
        others = sorted(t for t, version in a.judges.items() if b.judges.get(t, version) != version)
        if others:
            versions = f"{a.judges[others[0]]} ({a.name}), {b.judges[others[0]]} ({b.name})"
            said.append(f"judge's version: {versions}, of {len(others)} tasks: {others[0]}...")
    for a, b in combinations([r for r in results if r.tasks], 2):
        changed = sorted(t for t, digest in a.tasks.items() if b.tasks.get(t, digest) != digest)
        if changed:
            said.append(f"{len(changed)} tasks of the same id are not the same ({a.name}, {b.name}): {changed[0]}...")
    return said


def _compared(name: str, first: Results, second: Results) -> Comparison:
    a, b = first.cells[name], second.cells[name]
    each = samples.differences(a.scores, b.scores)
    old, new = (samples.joined(side.scores, a.pairs, each) for side in (a, b))
    single = all(len(s) == 1 and s[0] in (0.0, 1.0) for s in (*old.values(), *new.values()))
    n = len(old)
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
        changed=sum(d != 0 for d in samples.differences(old, new).values()) / n if n else 0.0,
        unpaired=len({*a.scores, *b.scores}) - len(each),
        if_lost=_if_lost(a, b),
        detectable=100 * seen if seen <= 1 else None,
        without={k: 100 * v for k, v in samples.leave_one_out(each, repositories).items()} if several else {},
        p_by_repository=samples.sign_flip(each, repositories) if several else None,
        repositories=samples.effective_clusters(list(Counter(repositories.values()).values())) if several else None,
        clustered=_in_points(samples.clustered(each, repositories)) if several else None,
    )


def _in_points(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


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
    scores = [samples.joined(r.cells[cell].scores, r.cells[cell].pairs) for r in results]
    common = [t for t in scores[0] if all(len(s.get(t, [])) == 1 for s in scores)]
    return cochran_q([[s[t][0] > 0.5 for t in common] for s in scores]) if common else None


def repository(task: str) -> str:
    """Of an id like SWE-bench's, `owner__name-123`; "" where the id tells none."""
    owner, double, rest = task.partition("__")
    return f"{owner}/{rest.rpartition('-')[0]}" if double and rest.rpartition("-")[2].isdigit() else ""


def _with_verdict(c: Comparison, p_holm: float | None) -> Comparison:
    c = replace(c, p_holm=p_holm)
    return replace(c, verdict=verdict(c))


def verdict(c: Comparison) -> str:
    """What interval and test allow to say: of few tasks that differ, a bootstrap's interval is too short."""
    low, high = c.ci95
    if not c.pairs:
        return "no task in common"
    if (low > 0 or high < 0) and adjusted(c) >= LEVEL:
        said = f"the difference lies between {low:+.1f} and {high:+.1f}, but p = {p_value(c)}"
        return f"{c.first} and {c.second} are not distinguishable: {said}: too few tasks differ"
    if low > 0 or high < 0:
        word = "better" if low > 0 else "worse"
        by = f"{abs(c.points):.1f} points, at least {min(abs(low), abs(high)):.1f}"
        return f"{c.second} is {word} than {c.first} by {by}"
    said = f"{c.first} and {c.second} are not distinguishable: the difference lies between {low:+.1f} and {high:+.1f}"
    if c.points and abs(c.points) / 100 <= c.changed:
        needed = tasks_needed(abs(c.points) / 100, c.changed)
        if needed > c.pairs:
            said += f"; if {c.points:+.1f} is true, {needed} tasks would show it in four of five tries"
    return said


def non_inferior(c: Comparison, margin: float) -> str:
    """Whether the second may be taken to be no worse than the first by `margin` points, which was stated before: its
    95% interval lies above −margin (a one-sided test at 2.5%)."""
    low = c.ci95[0]
    if low > -margin:
        return f"{c.second} is not worse than {c.first} by {margin:g} points or more (lower bound {low:+.1f})"
    shown = f"lower bound {low:+.1f}"
    return f"that {c.second} is not worse than {c.first} by {margin:g} points is not shown ({shown})"


def halves(results: Results) -> tuple[Results, Results]:
    """A/A: the samples of one policy, odd ones against even ones, which differ by chance only. Raises ValueError: no
    task has two."""
    sides = []
    for half in (0, 1):
        cells = {
            name: Cell({t: s[half::2] for t, s in c.scores.items() if len(s) > 1}, pairs=c.pairs)
            for name, c in results.cells.items()
        }
        sides.append(replace(results, name=f"{results.name}, {('odd', 'even')[half]} samples", cells=cells))
    kept = [{n: c for n, c in side.cells.items() if c.scores} for side in sides]
    if not kept[0]:
        raise ValueError(f"{results.name} has one sample a task: nothing to compare it with.")
    return replace(sides[0], cells=kept[0]), replace(sides[1], cells=kept[1])


def markdown(report: Report, refused: Sequence[str] = ()) -> str:
    """A table for a paper or an issue; what differs in how they were measured comes first."""
    differs = [f"- {key}: {' / '.join(map(told, values))}" for key, values in report.differs.items()]
    lines = [
        *(f"- Not comparable, and compared anyway: {reason}" for reason in refused),
        *(["Not measured in the same way:", "", *differs] if differs else []),
        *([""] if differs or refused else []),
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


def adjusted(c: Comparison) -> float:
    """p after Holm's correction, where there is one."""
    return c.p if c.p_holm is None else c.p_holm


def p_value(c: Comparison) -> str:
    p = adjusted(c)
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
