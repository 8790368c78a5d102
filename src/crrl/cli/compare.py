"""`crrl compare`: results of two or more policies on the same tasks."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crrl.cli.call import Call, print_json
from crrl.errors import CrrlError, UsageError

if TYPE_CHECKING:
    from crrl.evaluation.cells import Results
    from crrl.evaluation.compare import Comparison, Report

USAGE = "crrl compare A [B C...] [key=value...] [--json]"
HELP = """
A and B are runs (a name or a folder: the last evaluation; RUN:before for the one before training), folders of
crrl eval, reports of SWE-bench's harness (JSON with resolved_ids), logs of Inspect (.eval or .json), or jobs of Harbor.
Tasks are compared pair by pair; lost episodes enter nothing, and it is said what they could change. With three or more,
each is compared with the first, and p-values are adjusted (Holm).

What differs in how they were measured (agent, budgets, prompts, sampling) is said first: then a difference may not be
the policies'. Other judges, or other tasks under the same ids, are refused. A alone, with several samples a task, is
compared with itself, odd samples against even ones (A/A): only chance can differ.

  format=markdown      a table for a paper or an issue
  html=FILE            a page
  cell="SPLIT, DECODING"   only this one; results of others that have one cell are compared with it
  margin=M             also: may B be taken to be not worse than A by M points? (stated before you look)
  anyway=yes           compare what would be refused; it is said

  crrl compare quickstart-seed0:before quickstart-seed0
  crrl compare runs/a runs/b runs/c format=markdown
"""
SHOWN = 12  # tasks of a list


def run(call: Call) -> int:
    from crrl.evaluation.compare import compare, halves, incomparable, markdown, non_inferior
    from crrl.evaluation.results import read

    form = call.take("format") or "text"
    if form not in ("text", "markdown"):
        raise UsageError(f"format={form} does not exist.", "Write format=markdown, or leave it out.")
    margin = _points(call.take("margin"))
    cell, page, anyway = (call.take(key) for key in ("cell", "html", "anyway"))
    if anyway not in (None, "yes"):
        raise UsageError(f"anyway={anyway} is not `yes`.", "Write anyway=yes, or leave it out.")
    call.no_settings()
    if not call.arguments:
        raise UsageError("crrl compare needs results.", "See: crrl compare --help")
    results = [read(word) for word in call.arguments]
    refused = incomparable(results)
    if refused and not anyway:
        raise CrrlError(
            "Their difference would not be one of the policies. " + " · ".join(refused),
            "Evaluate both with the same version on the same tasks; or, to see it anyway: anyway=yes",
        )
    try:
        if len(results) == 1:
            results = list(halves(results[0]))
        report = compare(results, cell or "")
    except ValueError as error:
        raise UsageError(str(error), "Compare evaluations of the same tasks.") from None
    if margin is not None:
        report = replace(
            report,
            comparisons=[replace(c, verdict=f"{c.verdict}; {non_inferior(c, margin)}") for c in report.comparisons],
        )
    if page is not None:
        _write_page(Path(page), report, results, refused)
    if call.json:
        print_json({**asdict(report), "refused": refused})
    elif form == "markdown":
        print(markdown(report, refused))
    else:
        show(report, refused)
        if page is not None:
            print(f"\nPage: {page}")
    return 0


def _points(value: str | None) -> float | None:
    try:
        found = None if value is None else float(value)
    except ValueError:
        found = -1.0
    if found is not None and not 0 < found <= 100:
        raise UsageError(f"margin={value} is not a number of points.", "Write e.g. margin=2.")
    return found


def _write_page(file: Path, report: Report, results: list[Results], refused: list[str]) -> None:
    from crrl.evaluation.compare import told
    from crrl.report.comparison import write_comparison

    shown = [{**asdict(c), "lines": lines(c)} for c in report.comparisons]
    scores = {
        cell: {task: [r.cells[cell].scores.get(task, []) for r in results] for task in _tasks(results, cell)}
        for cell in {c.cell for c in report.comparisons}
        if all(cell in r.cells for r in results)
    }
    differs = {key: [told(value) for value in values] for key, values in report.differs.items()}
    write_comparison(file, report.names, shown, differs, report.cochran_q, refused, scores)


def _tasks(results: list[Results], cell: str) -> list[str]:
    return sorted({task for r in results for task in (*r.cells[cell].scores, *r.cells[cell].lost)})


def show(report: Report, refused: list[str]) -> None:
    from rich.console import Console

    from crrl.evaluation.compare import told

    out = Console(highlight=False)
    for reason in refused:
        out.print(f"Not comparable, and compared anyway: {reason}", style="red", markup=False, soft_wrap=True)
    if report.differs:
        out.print("Not measured in the same way:", style="yellow")
        for key, values in report.differs.items():
            out.print(f"  {key}: " + " | ".join(map(told, values)), markup=False, soft_wrap=True)
    for c in report.comparisons:
        out.print(f"\n{c.cell or 'all tasks'}", style="cyan", markup=False)
        for line in lines(c):
            out.print(f"  {line}", markup=False, soft_wrap=True)
        out.print(f"{c.verdict}.", style="bold", markup=False, soft_wrap=True)
    for cell, p in report.cochran_q.items():
        out.print(f"\n{cell or 'all tasks'}: do any of them differ? Cochran's Q, p = {p:.2g}", markup=False)


def lines(c: Comparison) -> list[str]:
    from crrl.evaluation.compare import p_value

    low, high = c.ci95
    test = "exact McNemar" if c.mid_p is not None else "permutation"
    mid = f", mid-p {c.mid_p:.2g}" if c.mid_p is not None else ""
    holm = ", adjusted by Holm" if c.p_holm is not None else ""
    said = [
        f"{c.first} {c.rates[0]:.1%}   {c.second} {c.rates[1]:.1%}   over {c.pairs} tasks",
        f"{c.points:+.1f} points [{low:+.1f}, {high:+.1f}]   p {p_value(c)} ({test}{mid}{holm})",
    ]
    if c.detectable is not None:
        said.append(f"so many pairs show {c.detectable:.1f} points with 80% power")
    for name, tasks in (("gained", c.gained), ("fell", c.fell)):
        if tasks:
            more = f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else ""
            said.append(f"{name} ({len(tasks)}): {', '.join(tasks[:SHOWN])}{more}")
    if c.unpaired:
        said.append(f"left out: {c.unpaired} tasks that only one side judged")
    if c.if_lost:
        said.append(f"with lost ones at their worst and best: {c.if_lost[0]:+.1f} to {c.if_lost[1]:+.1f} points")
    if c.without and c.p_by_repository is not None:
        least, most = (f(c.without, key=lambda k: c.without[k]) for f in (min, max))
        clustered = f"; clustered [{c.clustered[0]:+.1f}, {c.clustered[1]:+.1f}]" if c.clustered else ""
        said.append(
            f"without one repository: {c.without[least]:+.1f} ({least}) to {c.without[most]:+.1f} ({most}); "
            f"whole repositories exchanged: p {c.p_by_repository:.2g}; "
            f"they weigh as {c.repositories:.1f} equal ones{clustered}"
        )
    return said
