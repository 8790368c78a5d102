"""The page of `crrl calibrate html=FILE`: tables, a reliability diagram for each reward, and best@k against oracle and
random.

It takes plain values, as `comparison.py` does, and draws its own SVG: no script. Names are escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crrl.report.curve import STYLE
from crrl.report.html import environment
from crrl.report.summary import write_atomically

SIZE, MARGIN, LEGEND = 300, 42, 190
COLOURS = 4  # of `curve.STYLE`
Position = Callable[[float], float]


def write_calibration(
    file: Path, names: Sequence[str], report: Mapping[str, Any], tables: Sequence[Any], few: Sequence[str]
) -> None:
    """`report`: as `evaluation.calibration.calibrate` gives it. `tables`: (title, columns, rows) in text; a row that is
    shorter has no numbers, and says why. `few`: lines about parts that have none at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    told = {name: of for name, of in report["rewards"].items() if not of["says"]}
    page = environment().get_template("calibration.html.jinja")
    write_atomically(
        file,
        page.render(
            names=names,
            attempts=report["attempts"],
            notes=report["notes"],
            maps=report["maps"],
            cluster="repositories" if report["cluster"] == "repository" else "tasks",
            tables=tables,
            few=few,
            best=Markup(best_svg(told, report["k"])),
            diagrams=[(name, told[name]["attempts"], Markup(reliability_svg(name, of))) for name, of in told.items()],
            style=Markup(STYLE),
        ),
    )


def reliability_svg(name: str, of: Mapping[str, Any]) -> str:
    """The rate of solved attempts in each bin of the reward, with Wilson's intervals; dots by their share of attempts.
    The line is what a reward that is a probability would show."""
    x, y = _scales(0.0, 1.0)
    parts = [_frame(f"reliability diagram of {name}", x, y, [(v / 4, f"{v / 4:g}") for v in range(5)], "reward")]
    parts.append(f'<line class="axis" stroke-dasharray="4 4" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    most = max(b["attempts"] for b in of["bins"])
    for b in of["bins"]:
        at, (low, high) = x(b["probability"]), b["ci95"]
        size = 2.5 + 5.5 * (b["attempts"] / most) ** 0.5
        parts.append(f"<g><title>{b['attempts']} attempts, {b['rate']:.0%} solved</title>")
        parts.append(f'<line class="bar s0" x1="{at:.1f}" x2="{at:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>')
        parts.append(f'<circle class="f0" cx="{at:.1f}" cy="{y(b["rate"]):.1f}" r="{size:.1f}"/></g>')
    return "".join([*parts, "</svg>"])


def best_svg(told: Mapping[str, Mapping[str, Any]], ks: Sequence[int]) -> str:
    """best@k of each reward, with intervals, between random and oracle; "" where no group has several attempts. Those
    of one reward are drawn for its own groups, so oracle and random are those of the first."""
    having = {name: of["best_at"] for name, of in told.items() if of["best_at"]}
    if not having:
        return ""
    x, y = _scales(-0.2, len(ks) - 0.8, width=2 * SIZE)
    places = {str(k): x(float(i)) for i, k in enumerate(ks)}
    ticks = [(float(i), str(k)) for i, k in enumerate(ks)]
    parts = [_frame("best of k by each reward", x, y, ticks, "k", width=2 * SIZE, beside=LEGEND)]
    first = next(iter(having.values()))
    for name, dash in (("oracle", "2 3"), ("random", "7 4")):
        line = " ".join(f"{places[k]:.1f},{y(of[name]['value']):.1f}" for k, of in first.items())
        parts.append(f'<polyline fill="none" class="axis" stroke-dasharray="{dash}" stroke-width="2" points="{line}"/>')
        k, of = list(first.items())[-1]
        at = y(of[name]["value"]) + (-6 if name == "oracle" else 14)
        parts.append(f'<text class="label" x="{places[k]:.1f}" y="{at:.1f}" text-anchor="end">{name}</text>')
    for index, best_at in enumerate(having.values()):
        colour, shift = index % COLOURS, 4.0 * (index - (len(having) - 1) / 2)
        line = " ".join(f"{places[k] + shift:.1f},{y(of['best']['value']):.1f}" for k, of in best_at.items())
        parts.append(f'<polyline class="line s{colour}" points="{line}"/>')
        for k, of in best_at.items():
            at = places[k] + shift
            if of["best"]["ci95"]:
                low, high = of["best"]["ci95"]
                ends = f'x1="{at:.1f}" x2="{at:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"'
                parts.append(f'<line class="bar s{colour}" {ends}/>')
            parts.append(f'<circle class="f{colour}" cx="{at:.1f}" cy="{y(of["best"]["value"]):.1f}" r="3.5"/>')
    for index, name in enumerate(having):
        left, at = 2 * SIZE + 8, MARGIN + 18 * index
        parts.append(f'<circle class="f{index % COLOURS}" cx="{left}" cy="{at - 4}" r="4"/>')
        parts.append(f'<text class="label" x="{left + 9}" y="{at}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def _scales(low: float, high: float, width: int = SIZE) -> tuple[Position, Position]:
    def x(value: float) -> float:
        return round(MARGIN + (width - MARGIN - 14) * (value - low) / (high - low), 2)

    def y(share: float) -> float:
        return round(SIZE - MARGIN - (SIZE - MARGIN - 14) * min(max(share, 0.0), 1.0), 2)

    return x, y


def _frame(
    title: str,
    x: Position,
    y: Position,
    ticks: Sequence[tuple[float, str]],
    axis: str,
    width: int = SIZE,
    beside: int = 0,
) -> str:
    """The opening of an `<svg>`, its axes, and room on the right."""
    parts = [f'<svg viewBox="0 0 {width + beside} {SIZE}" role="img" aria-label="{escape(title)}">']
    for quarter in range(5):
        at = y(quarter / 4)
        parts.append(f'<line class="axis" opacity=".5" x1="{MARGIN}" x2="{width - 14}" y1="{at}" y2="{at}"/>')
        label = f'<text class="label" x="{MARGIN - 6}" y="{at + 4}" text-anchor="end">{25 * quarter}%</text>'
        parts.append(label)
    for value, text in ticks:
        bottom = SIZE - MARGIN + 16
        parts.append(f'<text class="label" x="{x(value)}" y="{bottom}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<text class="label" x="{width - 14}" y="{SIZE - 6}" text-anchor="end">{escape(axis)}</text>')
    return "".join(parts)
