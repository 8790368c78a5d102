"""`crrl curate`: episodes and chats, chosen, as a data set for `crrl sft`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crrl.cli.call import Call, print_json, whole_number
from crrl.errors import CrrlError, UsageError

if TYPE_CHECKING:
    from crrl.curation.api import Found
    from crrl.curation.select import Rules, Selection
    from crrl.run.evaluate import Plan
    from crrl.task import Task

USAGE = """crrl curate DATA... out=FOLDER [key=value...] [--json] [--dry-run]
crrl curate tasks=TASKS policy=MODEL out=FOLDER [key=value...]"""
HELP = """
DATA is any number of runs (their training episodes), evaluations on tasks that were named, and files of conversations
(.jsonl or .parquet: chat completions' messages and tools; the layouts of SWE-smith, SWE-Gym, CoderForge, SWE-rebench
and nebius/SWE-agent-trajectories; what this command wrote). With tasks= and policy=, episodes are made first, as
crrl eval makes them, in FOLDER.episodes; if you interrupt it, the same command goes on.

Kept are trajectories that pass the tests, attempted no exploit and belong to no task of an evaluation; one of those
that are nearly the same; of each task the few that differ most. What is left out is counted, by reason; rows that
cannot be read are named. FOLDER gets train.parquet, chats.jsonl and a card (README.md).

  against=SET,SET      benchmarks, corpora or task files: none of their tasks may be in it (by id, commit, patch)
  keep=solved          judged: unsolved and truncated ones, too; all: also those that nobody judged
  per_task=2           at most so many of a task; 0: all
  similar=0.8          Jaccard index of five-word runs from which on two are nearly the same
  tasks=TASKS          a task file, corpus or benchmark; generated: training tasks drawn from the seed (limit=200)
  policy=MODEL         as for crrl eval; samples=8 episodes a task; path=, limit= and every setting of crrl eval

  crrl curate quickstart-seed0 out=data/own against=quixbugs.jsonl
  crrl curate tasks=generated limit=100 policy=tiny samples=8 out=data/tiny
  crrl sft data/own/train.parquet out=models/own
"""
KEYS = ("out", "against", "keep", "per_task", "similar", "tasks", "policy", "samples", "path", "limit")


def run(call: Call) -> int:
    values = {key: value for key in KEYS if (value := call.take(key)) is not None}
    if "out" not in values:
        raise UsageError("Where does the data set go?", "Write out=FOLDER.")
    out, rules = Path(values["out"]), _rules(values)
    if out.exists():
        raise UsageError(f"out={out} exists.", "Write another out=FOLDER.")
    against = [word for word in values.get("against", "").split(",") if word]
    evaluations = [task for word in against for task in _set(word)]
    words = list(call.arguments)
    if "tasks" in values or "policy" in values:
        words.append(str(_make(call, values, out)))
        if call.dry_run:
            return 0
    else:
        call.no_settings()
        if extra := [key for key in ("samples", "path", "limit") if key in values]:
            raise UsageError(f"{extra[0]}= is of episodes that are made.", "Write tasks=TASKS policy=MODEL, too.")
    if not words:
        raise UsageError("crrl curate needs DATA, or tasks= and policy=.", "See: crrl curate --help")
    return _curate(call, words, rules, evaluations, against, out)


def _curate(call: Call, words: list[str], rules: Rules, evaluations: list[Task], against: list[str], out: Path) -> int:
    from crrl.curation.api import Found
    from crrl.curation.select import select
    from crrl.curation.write import counts, write

    found = Found()
    tasks: dict[str, Task] = {}
    for word in words:
        tasks |= _read(word, found)
    selection = select(found.trajectories, rules, evaluations, tasks)
    selection.left_out += found.left_out
    if not selection.kept:
        why = ", ".join(f"{count} {reason}" for reason, count in selection.left_out.most_common()) or "it is empty"
        raise CrrlError(f"Nothing is left: {why}.", found.faults[0] if found.faults else "See: crrl curate --help")
    if not call.dry_run:
        write(out, selection, rules, [Path(word).name for word in words], [Path(word).name for word in against])
    if call.json:
        print_json({"out": str(out), "faults": found.faults, **counts(selection)})
    else:
        _show(selection, found, against, out, call.dry_run)
    return 0


def _show(selection: Selection, found: Found, against: list[str], out: Path, dry_run: bool) -> None:
    from crrl.curation.write import DATA, counts

    told = counts(selection)
    size = f"{told['turns']} turns, {told['tokens']:,} tokens"
    print(f"{told['trajectories']} trajectories at {told['tasks']} tasks, {size}")
    for reason, count in told["left_out"].items():
        print(f"  left out: {count} {reason}")
    for fault in found.faults:
        print(f"  {fault}")
    if not against:
        print("Not checked against any evaluation. Name those that you will run: against=BENCHMARK,FILE.jsonl")
    if dry_run:
        print(f"{out} would be written.")
        return
    print(f"{out}\nNext:\n  crrl sft {out / DATA} out=FOLDER\n  {out / 'README.md'}  the card, to publish")


def _rules(values: dict[str, str]) -> Rules:
    from crrl.curation.select import KEEPS, Rules

    keep = values.get("keep", "solved")
    if keep not in KEEPS:
        raise UsageError(f"keep={keep} does not exist.", f"Write one of: {', '.join(KEEPS)}.")
    try:
        similar = float(values.get("similar", "0.8"))
    except ValueError:
        similar = 0.0
    if not 0 < similar <= 1:
        raise UsageError(f"similar={values['similar']} is no number above 0 and up to 1.", "Write e.g. similar=0.8.")
    return Rules(keep, whole_number(values, "per_task", 2), similar)  # type: ignore[arg-type]  # one of KEEPS


def _set(word: str, path: str | None = None, limit: int = 0) -> list[Task]:
    from crrl.evaluation import sets

    if not sets.is_set(word):
        raise UsageError(f"{word} is no benchmark, corpus or task file.", "See: crrl eval --help")
    return sets.load(word, path=Path(path) if path else None, limit=limit).tasks


def _read(word: str, found: Found) -> dict[str, Task]:
    """Adds what DATA holds. Returns its tasks, where they are known."""
    from crrl.curation.episodes import of_folder
    from crrl.curation.layouts import of_file
    from crrl.rollout.journal import FILE, TRAIN, Journal
    from crrl.run.layout import META, TASKS
    from crrl.tasks.files import load_tasks

    for path in (Path(word), Path("runs") / word):
        if path.is_file() and path.suffix in (".jsonl", ".parquet"):
            of_file(path, found)
            return {}
        if not (path / FILE).is_file():
            continue
        import yaml

        file = path / TASKS
        with Journal.open(path, read_only=True) as journal:
            evaluates = META in journal.meta
        if evaluates and not file.is_file():
            raise UsageError(
                f"{word} evaluates tasks that its settings hold out: they are for measuring, not for training.",
                "Name a training run, or make episodes: crrl curate tasks=TASKS policy=MODEL out=FOLDER",
            )
        if not evaluates:
            file = Path(yaml.safe_load((path / "config.yaml").read_text())["corpus"]["name"])
        tasks = {task.id: task for task in load_tasks(file)[0]} if file.is_file() else {}
        of_folder(path, "eval" if evaluates else TRAIN, tasks, found)
        return tasks
    raise UsageError(
        f"{word} is neither a run or evaluation (a folder with {FILE}) nor a .jsonl or .parquet file.",
        "`ls runs` shows the runs there are.",
    )


# Making episodes ------------------------------------------------------------------------------------------------------


def _make(call: Call, values: dict[str, str], out: Path) -> Path:
    """Samples episodes with a policy, or goes on with them. Returns their folder."""
    from crrl.cli.eval import Wanted, planned
    from crrl.run.evaluate import evaluate

    for key, example in (("tasks", "tasks.jsonl"), ("policy", "tiny")):
        if key not in values:
            raise UsageError(
                f"crrl curate makes episodes of tasks= with policy=: {key}= is missing.", f"Write e.g. {key}={example}."
            )
    folder = out.with_name(f"{out.name}.episodes")
    samples = whole_number(values, "samples", 8, least=1)
    settings = [*call.settings, "evaluation.decodings=[sampled]", f"evaluation.samples={samples}"]
    with tempfile.TemporaryDirectory(prefix="crrl-curate-") as scratch:
        wanted = Wanted(
            model=values["policy"],
            benchmark=_tasks_word(values, call.settings, Path(scratch)),
            path=Path(values["path"]) if "path" in values else None,
            limit=0 if values["tasks"] == "generated" else whole_number(values, "limit", 0),
        )
        if wanted.predictions:
            raise UsageError(f"policy={values['policy']} is a file: nothing can be sampled from it.", "Write a model.")
        names = [f"runs_dir={out.parent}", f"run={folder.name}{'.again' if folder.exists() else ''}"]
        plan = planned(wanted, [*settings, *names], Path(scratch))
        if plan.drawn:
            raise UsageError(f"The tasks of {plan.drawn} are held out for evaluations.", "Write tasks=generated.")
        if call.dry_run:
            print(f"{len(plan.benchmark.tasks if plan.benchmark else [])} tasks, {samples} episodes each, in {folder}")
            return folder
        with contextlib.redirect_stdout(sys.stderr) if call.json else contextlib.nullcontext():
            code = _go_on(folder, plan, settings) if folder.exists() else evaluate(plan)
    if code:
        raise CrrlError("Not all episodes were made.", "Write the same command again: it goes on.")
    return folder


def _go_on(folder: Path, plan: Plan, settings: list[str]) -> int:
    """Raises UsageError: the episodes there were begun otherwise."""
    from crrl.conf.checks import value_at
    from crrl.conf.load import in_full, load_saved
    from crrl.run.evaluate import resume
    from crrl.run.layout import TASKS
    from crrl.tasks.files import load_tasks

    saved, asked = load_saved(folder / "config.yaml"), load_saved(folder / "config.yaml", settings)
    differs = [
        key for key in (s.partition("=")[0] for s in in_full(settings)) if value_at(saved, key) != value_at(asked, key)
    ]
    asked_tasks = {task.id for task in plan.benchmark.tasks} if plan.benchmark else set()
    if saved.model.path != plan.checkpoint:
        differs.append("policy")
    if {task.id for task in load_tasks(folder / TASKS)[0]} != asked_tasks:
        differs.append("tasks")
    if differs:
        raise UsageError(
            f"{folder} was begun with another {differs[0]}.", "Write the command as it was, or another out=FOLDER."
        )
    saved.run, saved.runs_dir = folder.name, str(folder.parent)
    return int(resume(saved) or 0)


def _tasks_word(values: dict[str, str], settings: list[str], scratch: Path) -> str:
    """What `crrl eval` calls the benchmark. Generated tasks are written to a file: they are those of training."""
    if values["tasks"] != "generated":
        return values["tasks"]
    from crrl.tasks.files import write_tasks
    from crrl.tasks.generator.generate import generate

    seed = next((int(s[5:]) for s in reversed(settings) if s.startswith("seed=") and s[5:].isdigit()), 0)
    file = scratch / "generated.jsonl"
    write_tasks(file, [generate("train", seed, i) for i in range(whole_number(values, "limit", 200, least=1))])
    return str(file)
