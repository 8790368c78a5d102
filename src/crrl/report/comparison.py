"""The page of `crrl compare html=FILE`: verdicts, intervals, and the outcome of every task on each side.

It takes plain values, so that it knows nothing of how they were computed. Names and ids are escaped, as in `html.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crrl.report.curve import STYLE
from crrl.report.html import environment
from crrl.report.summary import write_atomically

Scores = Mapping[str, Sequence[Sequence[float]]]  # task -> the samples of each side


def write_comparison(
    file: Path,
    names: Sequence[str],
    comparisons: Sequence[Mapping[str, Any]],
    differs: Mapping[str, Sequence[str]],
    cochran_q: Mapping[str, float],
    refused: Sequence[str],
    scores: Mapping[str, Scores],
) -> None:
    """`comparisons`: the fields of `evaluation.compare.Comparison`, with `lines`, its numbers in words. `scores`: by
    cell."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = {
        cell: sorted(
            ([task, [_shown(s) for s in sides], _discordant(sides)] for task, sides in tasks.items()),
            key=lambda row: (not row[2], row[0]),
        )
        for cell, tasks in sorted(scores.items())
    }
    page = environment().get_template("comparison.html.jinja")
    write_atomically(
        file,
        page.render(
            names=names,
            comparisons=[{**c, "bar": _bar(c)} for c in comparisons],
            differs=differs,
            cochran_q=cochran_q,
            refused=refused,
            cells=cells,
            style=Markup(STYLE),
        ),
    )


def _shown(samples: Sequence[float]) -> str:
    if not samples:
        return "–"
    solved = sum(samples)
    return ("solved" if solved else "not solved") if len(samples) == 1 else f"{solved:g} of {len(samples)}"


def _discordant(sides: Sequence[Sequence[float]]) -> bool:
    means = {sum(s) / len(s) for s in sides if s}
    return len(means) > 1


def _bar(c: Mapping[str, Any]) -> dict[str, float]:
    """Where the interval stands on a scale that is the same on both sides of 0, in percent of its width."""
    low, high = c["ci95"]
    reach = max(abs(low), abs(high), 1.0) * 1.1

    def at(points: float) -> float:
        return round(50 + 50 * points / reach, 2)

    return {"left": at(low), "width": round(at(high) - at(low), 2), "point": at(c["points"]), "reach": reach}
