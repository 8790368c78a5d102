"""Draws the learning curve as SVG: no plotting library, no script, readable in light and dark.

Faint dots are the values of the steps, the line is their centred moving mean, and marks with 95% intervals at both ends
are the evaluations before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 16, 40

STYLE = """
.axis{stroke:var(--rule,#d5d8dc);stroke-width:1}.label{font:11px system-ui,sans-serif;fill:var(--dim,#6b7280)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.dot{opacity:.28}.bar{stroke-width:2}
.s0{stroke:#2563eb}.s1{stroke:#d97706}.s2{stroke:#059669}.s3{stroke:#9333ea}
.f0{fill:#2563eb}.f1{fill:#d97706}.f2{fill:#059669}.f3{fill:#9333ea}
"""


@dataclass(frozen=True)
class Series:
    """`points` are (step, value) with values in 0..1 (or `bottom`..`top`)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """A rate with its interval at one step, in the colour of series `colour`."""

    step: float
    rate: float
    ci95: tuple[float, float]
    colour: int = 0
    label: str = ""


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred moving mean. The window shrinks at the ends, so the line invents no values."""
    half = window // 2
    return [sum(part) / len(part) for i in range(len(values)) for part in [values[max(0, i - half) : i + half + 1]]]


def curve_svg(
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    top: float = 1.0,
    bottom: float = 0.0,
    percent: bool = True,
    standalone: bool = False,
    title: str = "",
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> str:
    """An `<svg>` element. `standalone`: with its own colours and background (for a README)."""
    width, height = size
    last = max([1.0, *(x for s in series for x, _ in s.points), *(m.step for m in marks)])

    def x_of(step: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * step / last

    def y_of(value: float) -> float:
        return TOP + (height - TOP - BOTTOM) * (1 - min(max((value - bottom) / (top - bottom), 0.0), 1.0))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title or "learning curve")}">'
    ]
    if standalone:
        parts.append(f"<style>{STYLE}</style>")
        parts.append(f'<rect width="{width}" height="{height}" fill="#ffffff"/>')
    for i in range(5):
        value = bottom + (top - bottom) * i / 4
        text = f"{100 * value:.0f}%" if percent else f"{value:.2g}"
        y = y_of(value)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="label" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for step in _ticks(last, 8 if width > 500 else 4):
        anchor = "middle" if step < last else "end"
        parts.append(
            f'<text class="label" x="{x_of(step):.1f}" y="{height - BOTTOM + 16}" text-anchor="{anchor}">'
            f"{step:g}</text>"
        )
    for index, one in enumerate(series):
        colour = index % 4
        values = [y for _, y in one.points]
        line = smooth(values, max(1, len(values) // 12 * 2 + 1))
        for (x, y), _ in zip(one.points, line, strict=True):
            parts.append(f'<circle class="dot f{colour}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="2"/>')
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for (x, _), y in zip(one.points, line, strict=True))
        if len(one.points) > 1:
            parts.append(f'<polyline class="line s{colour}" points="{path}"/>')
    for mark in marks:
        x, low, high = x_of(mark.step), y_of(mark.ci95[0]), y_of(mark.ci95[1])
        colour = mark.colour % 4
        parts.append(f"<g><title>{escape(mark.label)}</title>")
        parts.append(f'<line class="bar s{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle class="f{colour}" cx="{x:.1f}" cy="{y_of(mark.rate):.1f}" r="4.5"/></g>')
    parts.append(_legend([s.name for s in series], width, height))
    parts.append("</svg>")
    return "".join(parts)


def _ticks(last: float, most: int) -> list[float]:
    for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000):
        if last / size <= most:
            return [float(i * size) for i in range(int(last // size) + 1)]
    return [0.0, last]


def _legend(names: Sequence[str], width: int, height: int) -> str:
    parts, x = [], float(LEFT)
    for index, name in enumerate(names):
        y = height - 8
        parts.append(f'<circle class="f{index % 4}" cx="{x + 4:.0f}" cy="{y - 4}" r="4"/>')
        parts.append(f'<text class="label" x="{x + 13:.0f}" y="{y}">{escape(name)}</text>')
        x += 32 + 6.2 * len(name)
    parts.append(f'<text class="label" x="{width - RIGHT}" y="{height - 8}" text-anchor="end">step</text>')
    return "".join(parts)
