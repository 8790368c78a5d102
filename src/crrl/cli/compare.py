"""`crrl compare`: results of two or more policies on the same tasks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError

if TYPE_CHECKING:
    from crrl.evaluation.compare import Comparison, Report

USAGE = "crrl compare A B [C...] [format=markdown] [--json]"
HELP = """
A and B are runs (a name or a folder: the last evaluation; RUN:before for the one before training), or reports of
SWE-bench's harness (JSON with resolved_ids). Tasks are compared pair by pair; lost episodes enter nothing, and it is
said what they could change. With three or more, each is compared with the first, and p-values are adjusted (Holm).

What differs in how they were measured (agent, budgets, tasks, judge) is said first: then a difference may not be the
policies'.

  crrl compare quickstart-seed0:before quickstart-seed0
  crrl compare runs/a runs/b format=markdown
"""
SHOWN = 12  # tasks of a list


def run(call: Call) -> int:
    from crrl.evaluation.compare import compare, markdown
    from crrl.evaluation.results import read

    form = call.take("format") or "text"
    if form not in ("text", "markdown"):
        raise UsageError(f"format={form} does not exist.", "Write format=markdown, or leave it out.")
    call.no_settings()
    if len(call.arguments) < 2:
        raise UsageError("crrl compare needs at least two results.", "See: crrl compare --help")
    try:
        report = compare([read(word) for word in call.arguments])
    except ValueError as error:
        raise UsageError(str(error), "Compare evaluations of the same tasks.") from None
    if call.json:
        print_json(asdict(report))
    elif form == "markdown":
        print(markdown(report))
    else:
        show(report)
    return 0


def show(report: Report) -> None:
    from rich.console import Console

    out = Console(highlight=False)
    if report.differs:
        out.print("Not measured in the same way:", style="yellow")
        for key, values in report.differs.items():
            out.print(f"  {key}: " + " | ".join(map(str, values)), markup=False, soft_wrap=True)
    for c in report.comparisons:
        out.print(f"\n{c.cell or 'all tasks'}", style="cyan", markup=False)
        for line in lines(c):
            out.print(line, markup=False, soft_wrap=True)
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
        f"  {c.first} {c.rates[0]:.1%}   {c.second} {c.rates[1]:.1%}   over {c.pairs} tasks",
        f"  {c.points:+.1f} points [{low:+.1f}, {high:+.1f}]   p {p_value(c)} ({test}{mid}{holm})",
    ]
    if c.detectable is not None:
        said.append(f"  so many pairs show {c.detectable:.1f} points with 80% power")
    for name, tasks in (("gained", c.gained), ("fell", c.fell)):
        if tasks:
            more = f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else ""
            said.append(f"  {name} ({len(tasks)}): {', '.join(tasks[:SHOWN])}{more}")
    if c.unpaired:
        said.append(f"  left out: {c.unpaired} tasks that only one side judged")
    if c.if_lost:
        said.append(f"  with lost ones at their worst and best: {c.if_lost[0]:+.1f} to {c.if_lost[1]:+.1f} points")
    if c.without and c.p_by_repository is not None:
        least, most = (f(c.without, key=lambda k: c.without[k]) for f in (min, max))
        said.append(
            f"  without one repository: {c.without[least]:+.1f} ({least}) to {c.without[most]:+.1f} ({most}); "
            f"whole repositories exchanged: p {c.p_by_repository:.2g}"
        )
    return said
