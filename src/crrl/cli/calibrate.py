"""`crrl calibrate`: rewards against tests, over recorded runs or published predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crrl.cli.call import Call, print_json
from crrl.errors import CrrlError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from crrl.evaluation.attempts import Attempts
    from crrl.task import Task

USAGE = "crrl calibrate RUN... [key=value...] [--json]\ncrrl calibrate tasks=BENCHMARK PREDICTIONS:REPORT... [--json]"
HELP = """
How well does each reward tell attempts whose tests pass from those whose tests fail? RUN is a run or a folder of crrl
eval; RUN:train, RUN:before, RUN:after or RUN:eval is one phase of it. PREDICTIONS are of SWE-bench's format (JSON
Lines, or a JSON list), REPORT is what its harness said of them (resolved_ids, or results.json of a submission); several
pairs are several attempts at the same tasks.

For each reward, over everything and by language, repository, corpus, source, phase and whether the patch is empty:
AUC, over all attempts and among those at one task; expected calibration error; best@k against oracle@k and random.
Lost attempts enter nothing, and are counted. Where a reward is constant, or too few attempts are solved, it says so.

  html=FILE            a page, with reliability diagrams and best@k
  format=markdown      tables for a paper or an issue
  k=4,8                for best@k (2, 4, 8... as far as the groups go)
  cluster=repository   intervals that draw whole repositories (they draw tasks)
  tasks=BENCHMARK      a benchmark, corpus or task file, as for crrl eval; path=FILE its records on this machine.
                       For runs, too: similarity is then given by each of its definitions.

  crrl calibrate quickstart-seed0 html=calibration.html
  crrl calibrate tasks=swe-bench-lite a/all_preds.jsonl:a/results.json b/all_preds.jsonl:b/results.json
"""


def run(call: Call) -> int:
    from crrl.evaluation import calibration

    form = call.take("format") or "text"
    if form not in ("text", "markdown"):
        raise UsageError(f"format={form} does not exist.", "Write format=markdown, or leave it out.")
    ks, cluster, page = _ks(call.take("k")), call.take("cluster") or "task", call.take("html")
    if cluster not in calibration.CLUSTERS:
        raise UsageError(f"cluster={cluster} does not exist.", "Write cluster=repository, or leave it out.")
    tasks = _tasks(call)
    call.no_settings()
    if not call.arguments:
        raise UsageError("crrl calibrate needs RUN or PREDICTIONS:REPORT.", "See: crrl calibrate --help")
    attempts = _read(call.arguments, tasks)
    if not attempts.judged:
        raise CrrlError(f"No attempt was judged: {attempts.lost} were lost.", "See: crrl doctor")
    report = calibration.calibrate(attempts, ks, cluster)
    if page is not None:
        from crrl.report.calibration import write_calibration

        write_calibration(
            Path(page), call.arguments, report, list(calibration.tables(report)), calibration.too_few(report)
        )
    if call.json:
        print_json(report)
    elif form == "markdown":
        print(calibration.markdown(report))
    else:
        show(report)
        if page is not None:
            print(f"\nPage: {page}")
    return 0


def _ks(value: str | None) -> list[int]:
    words = value.split(",") if value is not None else []
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"k={value} is no list of whole numbers above 0.", "Write e.g. k=4,8.")
    return sorted({int(word) for word in words})


def _tasks(call: Call) -> dict[str, Task]:
    from crrl.evaluation import sets

    name, path = call.take("tasks"), call.take("path")
    if name is None:
        if path is not None:
            raise UsageError(f"path={path} is of which tasks?", "Write tasks=BENCHMARK, too.")
        return {}
    if not sets.is_set(name):
        raise UsageError(f"tasks={name} is no benchmark, corpus or task file.", "See: crrl eval --help")
    return {task.id: task for task in sets.load(name, path=Path(path) if path else None).tasks}


def _read(words: list[str], tasks: Mapping[str, Task]) -> Attempts:
    from crrl.evaluation.attempts import Attempts

    found = Attempts()
    for word in words:
        found.add(_one(word, tasks))
    return found


def _one(word: str, tasks: Mapping[str, Task]) -> Attempts:
    from crrl.evaluation.attempts import of_predictions, of_run
    from crrl.rollout.journal import FILE
    from crrl.run.grade import read_predictions

    words = [part for part in word.split(":") if part]
    if words and words[0].endswith((".jsonl", ".json")):
        if len(words) != 2:
            raise UsageError(
                f"{word}: whose verdicts?",
                f"Write {words[0]}:REPORT.json, or grade them first: crrl eval BENCHMARK {words[0]}",
            )
        if not tasks:
            raise UsageError(
                f"{word}: similarity to which fixes?", f"Write: crrl calibrate tasks=swe-bench-verified {word}"
            )
        patches, problems = read_predictions(Path(words[0]))
        attempts = of_predictions(words[0], patches, Path(words[1]), tasks)
        attempts.notes += problems
        return attempts
    name, _, phase = word.partition(":")
    for folder in (Path(name), Path("runs") / name):
        if (folder / FILE).is_file():
            return of_run(folder, phase, {**_own(folder), **tasks})
    raise UsageError(
        f"{name} is neither a run or evaluation (a folder with {FILE}) nor a file of predictions.",
        "`ls runs` shows the runs there are.",
    )


def _own(folder: Path) -> dict[str, Task]:
    """The tasks of an evaluation, which lie in its folder, or of the run's task file, if it is still there."""
    import yaml

    from crrl.run.layout import TASKS
    from crrl.tasks.files import load_tasks

    file = folder / TASKS
    if not file.is_file() and (folder / "config.yaml").is_file():  # whatever version of crrl wrote it
        file = Path(yaml.safe_load((folder / "config.yaml").read_text())["corpus"]["name"])
    return {task.id: task for task in load_tasks(file)[0]} if file.is_file() else {}


def show(report: Mapping[str, Any]) -> None:
    from rich.console import Console

    from crrl.evaluation.calibration import headline, legend, tables, too_few

    out = Console(highlight=False, soft_wrap=True)
    for line in headline(report):
        out.print(line, markup=False)
    for title, columns, rows in tables(report):
        _print_table(out, title, columns, rows)
    for line in [*too_few(report), legend(report)]:
        out.print("\n" + line, style="dim", markup=False)


def _print_table(out: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    """As wide as its numbers: a terminal that is narrower wraps lines, and no number is cut."""
    told = [columns, *(row for row in rows if len(row) == len(columns))]
    widths = [max(len(row[i]) for row in told) for i in range(len(columns))]
    out.print(f"\n{title}", style="cyan", markup=False)
    for row in told if len(told) > 1 else []:
        first, *rest = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print("  ".join([first, *rest]).rstrip(), style="dim" if row is columns else None, markup=False)
    for row in rows:
        if len(row) != len(columns):
            out.print(f"{row[0]}: {row[2]}", style="dim", markup=False)
