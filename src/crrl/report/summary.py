"""`summary.json`, and the closing table that presents it.

Other programs rely on the JSON's form: `splits.<split>.<decoding>.before|after|difference`. It is written atomically,
so a reader sees the old file or the new one.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from crrl.console.plain import clean, seconds
from crrl.report import classification
from crrl.report.asynchrony import asynchrony_line
from crrl.report.exploit_rate import example_lines, exploit_line, exploit_rates

SCHEMA = 1
TITLES = {
    "rl_instances": "held-out instances, families RL learns",
    "sft_instances": "held-out instances, families of the warm start",
    "unseen_families": "held-out families, never seen",
    "held_out": "held-out tasks",
    "impossible": "impossible tasks (who passes one has cheated)",
}
PACKAGES = ("coderepair-rl", "torch", "transformers", "trl", "renderers", "numpy")


@dataclass
class Summary:
    """The contents of summary.json.

    Args:
        splits: the result of `evaluation.benchmark.assemble`.
        random_floor: split -> {solved, total, rate, ci95} of a policy that edits at random.
        episodes: {scored, truncated, lost} of the whole run, evaluation included.
        exploits: the result of `exploit_rate.exploit_rates`.
        lost_tries: tries lost on our side, each of which was retried: {total, by_cause, by_version, by_task, said}.
        seconds: wall time by phase, and `total`.
        asynchrony: the result of `asynchrony.asynchrony`.
        earlier_episodes: those that were there when the run was last resumed; `seconds`, `episodes_per_second` and
            `peak_memory_bytes` are of the time since.
        control: rewards or labels were shuffled (`objective.shuffle_rewards`, `corpus.shuffle_labels`).
        memory_limits: who kept boxes and judged runs within theirs: `cgroup v2`, `cgroup v1` or `watchdog`.
        alarms: {name, step, says, cause} of each (`alarms.py`).
        classification: `before`, `after` -> the result of `evaluation.classification.classified`.
        evaluation: of `crrl eval`: {benchmark, origin, policy, checkpoint, rule, weights, seen, metrics, groups}.
    """

    run: str
    seed: int
    splits: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    random_floor: dict[str, dict[str, Any]] = field(default_factory=dict)
    episodes: dict[str, int] = field(default_factory=dict)
    lost_tries: dict[str, Any] = field(default_factory=dict)
    exploits: dict[str, Any] = field(default_factory=lambda: exploit_rates([]))
    seconds: dict[str, float] = field(default_factory=dict)
    asynchrony: dict[str, float] = field(default_factory=dict)
    episodes_per_second: float = 0.0
    earlier_episodes: int = 0
    peak_memory_bytes: int = 0
    steps: int = 0
    control: bool = False
    memory_limits: str = ""
    alarms: list[dict[str, Any]] = field(default_factory=list)
    classification: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    schema: int = SCHEMA

    def write(self, folder: Path) -> Path:
        """`folder/summary.json`, atomically."""
        path = folder / "summary.json"
        self.versions = self.versions or versions()
        self.machine = self.machine or machine()
        values = asdict(self)
        ordered = {"schema": values.pop("schema"), **values}
        write_atomically(path, json.dumps(ordered, indent=2) + "\n")
        return path


def write_atomically(path: Path, text: str) -> None:
    """Durable before it is visible. A failure leaves the old file, and no half-written one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """`AMD EPYC ..., 2 cores, Linux 6.1`: the context of every measured number."""
    model = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release().split('-')[0]}"


def percent(rate: float) -> str:
    return f"{100 * rate:.0f}%"


def interval(ci95: Sequence[float]) -> str:
    return f"{100 * ci95[0]:.0f}–{100 * ci95[1]:.0f}"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def change(difference: Mapping[str, Any]) -> str:
    """`+38 [+27, +48]`, in points."""
    low, high = difference["ci95"]
    return f"{difference['points']:+.0f} [{low:+.0f}, {high:+.0f}]"


def rows(summary: Summary) -> list[list[str]]:
    """The closing table, with one row per split and decoding. Columns: `COLUMNS`."""
    table = []
    for split, decodings in summary.splits.items():
        floor = summary.random_floor.get(split)
        for decoding, cell in decodings.items():
            before, after, difference = cell.get("before"), cell.get("after"), cell.get("difference")
            last = after or before or {}
            table.append(
                [
                    TITLES.get(split, split),
                    decoding,
                    _rate(before),
                    _rate(after),
                    change(difference) if difference else NOTHING,
                    p_value(difference["p"]) if difference else NOTHING,
                    percent(last["well_formed"]) if "well_formed" in last else NOTHING,
                    percent(floor["rate"]) if floor else NOTHING,
                    percent(last["first_try"]) if last.get("first_try") is not None else NOTHING,
                ]
            )
    return table


def told_columns(table: Sequence[Sequence[str]]) -> list[int]:
    """Indices of the `COLUMNS` that have a value in some row of `table`, and of the first."""
    return [i for i in range(len(COLUMNS)) if i == 0 or any(row[i] != NOTHING for row in table)]


NOTHING = "–"
COLUMNS = ("tasks", "decoding", "before", "after", "points [95%]", "p", "well-formed", "floor", "first try")
WIDTHS = (8, 12, 12, 15, 9, 11, 5, 9)  # of all columns but the first, which is a heading: fits 80 characters


def _rate(result: Mapping[str, Any] | None) -> str:
    return f"{percent(result['rate'])} ({interval(result['ci95'])})" if result else NOTHING


def _retried(summary: Summary) -> str:
    causes = summary.lost_tries.get("by_cause", {})
    said = ", ".join(f"{number} {cause}" for cause, number in causes.items())
    return f" ({summary.lost_tries['total']} tries retried: {said})" if causes else ""


def _since(summary: Summary) -> str:
    return f" since it was resumed after {summary.earlier_episodes} episodes" if summary.earlier_episodes else ""


def where_time_went(spent: Mapping[str, float], total: float) -> list[tuple[str, float, float]]:
    """(part, wall seconds, share of `total`), largest first."""
    walls = sorted(((name, wall_s) for name, wall_s in spent.items() if name != "total"), key=lambda item: -item[1])
    return [(name, wall_s, wall_s / total if total else 0.0) for name, wall_s in walls]


def next_steps(run: str, runs_dir: str = "runs", recipe: str = "") -> list[tuple[str, str]]:
    """(command, what it does)."""
    where = "" if runs_dir == "runs" else f" runs_dir={runs_dir}"
    return [
        (f"crrl train resume={run}{where} trainer.max_steps=200", "train it further"),
        (
            f"{Path(runs_dir) / run / 'report.html'}",
            "read the curve, the table and whole episodes in a browser",
        ),
        (
            f"crrl replay {Path(runs_dir) / run if where else run}",
            "rebuild every training row from the ledger",
        ),
        (
            f"crrl train {recipe or 'quickstart'} corpus.name=YOUR.jsonl",
            "train on your own tasks (one JSON task per line; see `crrl tasks check YOUR.jsonl`)",
        ),
    ]


def _block(shown: Sequence[int], compared: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for index in shown:
        column = COLUMNS[index] if compared or COLUMNS[index] != "after" else "solved"
        side: Literal["left", "right"] = "left" if column == "decoding" else "right"
        table.add_column(column, justify=side, no_wrap=True, min_width=WIDTHS[index - 1])
    return table


def print_closing(summary: Summary, title: str, steps: Sequence[tuple[str, str]] = ()) -> None:
    """Print the results of a run or an evaluation, and the commands to type next (`steps`)."""
    out = Console(highlight=False)
    out.print()
    out.print(
        title + (" · CONTROL RUN, rewards or labels shuffled" if summary.control else ""), style="bold", markup=False
    )
    table = rows(summary)
    shown = told_columns(table)[1:]
    compared = COLUMNS.index("before") in shown
    for tasks, found in groupby(table, key=lambda row: row[0]):
        out.print(f"\n{tasks[0].upper()}{tasks[1:]}", style="cyan", markup=False)
        block = _block(shown, compared)
        for row in found:
            block.add_row(*(row[i] for i in shown))
        out.print(block)
    for cell, measured in classification.cells(summary.classification):
        out.print(f"\n{cell}", style="cyan", markup=False)
        for what, number in measured:
            out.print(f"  {what:<60} {number}", markup=False, soft_wrap=True)
    intervals = (
        "Wilson for rates, Newcombe's paired one for points.\np: exact McNemar test. " if compared else "Wilson. "
    )
    out.print(f"\n95% intervals: {intervals}floor: a policy that edits at random.", style="dim")
    counts = summary.episodes
    total = summary.seconds.get("total", sum(summary.seconds.values()))
    out.print(
        f"\n{sum(counts.values())} episodes: {counts.get('scored', 0)} scored, {counts.get('truncated', 0)} truncated, "
        f"{counts.get('lost', 0)} lost{_retried(summary)} · {summary.episodes_per_second:.1f} episodes/s · "
        f"{seconds(total)}{_since(summary)} · peak memory {summary.peak_memory_bytes / 2**30:.1f} GB · "
        f"seed {summary.seed}"
    )
    for cause, said in summary.lost_tries.get("said", {}).items():
        out.print(clean(f"  {cause}: {said}"), markup=False, soft_wrap=True)
    if line := exploit_line(summary.exploits):
        out.print(line, markup=False)
        for example in example_lines(summary.exploits):
            out.print(f"  {example}", markup=False)
    for alarm in summary.alarms:
        out.print(f"Alarm after step {alarm['step']}: {alarm['name']} ({alarm['says']})", style="yellow", markup=False)
    if summary.memory_limits:
        out.print(f"Memory limits of boxes: {summary.memory_limits}", markup=False)
    spent = where_time_went(summary.seconds, total)
    out.print("Where the time went: " + " · ".join(f"{n} {seconds(s)} ({share:.0%})" for n, s, share in spent[:7]))
    if line := asynchrony_line(summary.asynchrony):
        out.print(line[0].upper() + line[1:], markup=False)
    if steps:
        out.print("\nNext:", style="bold")
    width = max((len(command) for command, _ in steps), default=0)
    for command, says in steps:
        out.print(f"  {command:<{width}}  ", says, style=None, soft_wrap=True, markup=False)
