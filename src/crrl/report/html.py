"""`report.html`: one self-contained file about a run. No script, no network, no external font.

Text by a model, an agent or a task is untrusted: Jinja escapes every value (autoescape on, undefined names forbidden),
only SVG from `curve.py` is inserted as markup, and the page's content security policy forbids scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from crrl.console.plain import clean, seconds
from crrl.report.asynchrony import asynchrony_line
from crrl.report.curve import STYLE, Mark, Series, curve_svg
from crrl.report.summary import (
    COLUMNS,
    TITLES,
    Summary,
    interval,
    next_steps,
    percent,
    rows,
    told_columns,
    where_time_went,
    write_atomically,
)
from crrl.rewards.exploits import NAMES
from crrl.rewards.signals import COUNTS

TEMPLATES = Path(__file__).parent / "templates"
SMALL = (300, 170)
SHORT = {
    "rl_instances": "RL's families",
    "sft_instances": "warm start's families",
    "unseen_families": "unseen families",
    "impossible": "impossible tasks",
}
MAX_TRANSCRIPTS = 24
MAX_TEXT = 20_000  # characters per turn: the page stays readable whatever a model printed


@dataclass(frozen=True)
class Step:
    """The metrics of a training step: `solved`, `reward`, `entropy`, `episodes_lost`, `groups_no_spread`..."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Turn:
    """`who`: system, user, assistant or tool."""

    who: str
    text: str


@dataclass(frozen=True)
class Transcript:
    """One episode to read. `where`: `before`, `step 12`, `after`."""

    episode: str
    task: str
    where: str
    outcome: str
    solved: bool
    reward: float
    turns: Sequence[Turn]
    patch: str = ""
    exploits: Sequence[str] = field(default_factory=list)
    lost_reason: str = ""


def write_report(
    folder: Path,
    summary: Summary,
    steps: Sequence[Step] = (),
    transcripts: Sequence[Transcript] = (),
    config_yaml: str = "",
    *,
    notice: str = "",
) -> Path:
    """Write `folder/report.html` atomically. `notice`: a line at the top, such as that rewards were shuffled."""
    path = folder / "report.html"
    write_atomically(path, render(summary, steps, transcripts, config_yaml, notice=notice, runs_dir=str(folder.parent)))
    return path


def render(
    summary: Summary,
    steps: Sequence[Step] = (),
    transcripts: Sequence[Transcript] = (),
    config_yaml: str = "",
    *,
    notice: str = "",
    runs_dir: str = "runs",
) -> str:
    """The page."""
    total = summary.seconds.get("total", sum(summary.seconds.values()))
    table = rows(summary)
    told = told_columns(table)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            s=summary,
            notice=notice,
            columns=[COLUMNS[i] for i in told],
            rows=[[row[i] for i in told] for row in table],
            curve=Markup(solve_curve(summary, steps)) if steps else "",
            work=[COUNTS, *work_rows(summary)],
            small=[(name, Markup(svg)) for name, svg in small_curves(steps)],
            style=Markup(STYLE),
            spent=where_time_went(summary.seconds, total),
            total=seconds(total),
            asynchrony=asynchrony_line(summary.asynchrony),
            exploit_names=NAMES,
            headline=headline(summary),
            transcripts=list(transcripts)[:MAX_TRANSCRIPTS],
            config=config_yaml,
            next=next_steps(summary.run, runs_dir, summary.recipe),
            machine=summary.machine,
        )
    )


def environment() -> jinja2.Environment:
    """Of every page: nothing that a page is given is markup."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(clean=_cut, seconds=seconds, percent=percent, interval=interval)
    return made


def _cut(text: str) -> str:
    shown = clean(text)
    left = len(shown) - MAX_TEXT
    return shown if left <= 0 else f"{shown[:MAX_TEXT]}\n[{left} more characters]"


def headline(summary: Summary) -> list[dict[str, str]]:
    """Each split's main number: solved with sampled decoding, before and after."""
    cards = []
    for split, decodings in summary.splits.items():
        decoding = "sampled" if "sampled" in decodings else next(iter(decodings))
        cell = decodings[decoding]
        last = cell.get("after") or cell.get("before")
        if last is None:
            continue
        cards.append(
            {
                "title": TITLES.get(split, split),
                "before": percent(cell["before"]["rate"]) if "after" in cell and "before" in cell else "",
                "rate": percent(last["rate"]),
                "interval": f"{interval(last['ci95'])}, n = {last['total']}, {decoding}",
            }
        )
    return cards


def work_rows(summary: Summary) -> list[list[str]]:
    """How agents worked: of each evaluation with tool calls, its name and the means of `COUNTS` per episode."""
    table = []
    for split, decodings in summary.splits.items():
        for decoding, cell in decodings.items():
            for phase in ("before", "after"):
                if means := (cell.get(phase) or {}).get("process"):
                    name = f"{TITLES.get(split, split)}, {decoding}, {phase}"
                    table.append([name, *(f"{means[count]:.2f}" for count in COUNTS)])
    return table


def solve_curve(summary: Summary, steps: Sequence[Step], standalone: bool = False) -> str:
    """The solve rate in training, with the evaluations at both ends. `standalone`: for a file of its own."""
    series = [Series("training episodes", _points(steps, "solved"))]
    marks: list[Mark] = []
    last = max((s.step for s in steps), default=0)
    for index, (split, decodings) in enumerate(summary.splits.items(), start=1):
        name = TITLES.get(split, split)
        cell = decodings.get("sampled") or next(iter(decodings.values()))
        series.append(Series(SHORT.get(split, split), []))
        for key, step in (("before", 0), ("after", last)):
            if key in cell:
                low, high = cell[key]["ci95"]
                label = f"{name}, {key}: {percent(cell[key]['rate'])} ({interval((low, high))})"
                marks.append(Mark(step, cell[key]["rate"], (low, high), index, label))
    return curve_svg(series, marks, standalone=standalone, title="solve rate by training step")


def small_curves(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Every other metric that changed between steps, each on its own scale."""
    names = dict.fromkeys(name for s in steps for name in s.metrics if name != "solved")
    drawn = []
    for name in names:
        points = _points(steps, name)
        values = [0.0, *(y for _, y in points)]
        if len(set(values[1:])) > 1:  # a flat line says no more than the table
            scale: dict[str, Any] = {"top": 1.1 * max(values), "bottom": 1.1 * min(values), "percent": False}
            drawn.append((name, curve_svg([Series(name, points)], **scale, title=name, size=SMALL)))
    return drawn


def _points(steps: Sequence[Step], name: str) -> list[tuple[float, float]]:
    return [(float(s.step), float(s.metrics[name])) for s in steps if name in s.metrics]
