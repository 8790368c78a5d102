"""`crrl eval`: one policy on one benchmark, in a folder of its own.

The folder is like a training run's: settings, journal, summary.json, report.html; besides, its tasks (tasks.jsonl), its
predictions (predictions/) and a card to publish (card.md). A killed evaluation resumes, and neither loses nor repeats
an episode (invariant 8).
"""

from __future__ import annotations

import hashlib
import json as jsonlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crrl.engines.fingerprint import fingerprint
from crrl.errors import CrrlError, UsageError
from crrl.evaluation.classification import classified
from crrl.evaluation.metrics import measured
from crrl.evaluation.sets import TaskSet
from crrl.models import model_folder
from crrl.report.summary import print_closing
from crrl.run.layout import INTERRUPTED, META, TASKS
from crrl.run.main import evaluate_policy, splits_of

if TYPE_CHECKING:
    from crrl.conf.schema import Config
    from crrl.run.run import Run
    from crrl.task import Task


@dataclass(frozen=True)
class Plan:
    """What to evaluate.

    Args:
        policy: as the user wrote it. checkpoint: its model folder.
        benchmark: its name and tasks; None: those that the settings hold out.
        trained_on: the tasks that the policy was trained on; None: not known. trained_from: where that is known from.
        rule: which of a run's checkpoints, and by which rule.
        drawn: the benchmark whose tasks the settings draw from the seed; "": there is none.
        first: fingerprint of the policy that the policy's run began with; "": not known.
    """

    config: Config
    policy: str
    checkpoint: str
    benchmark: TaskSet | None = None
    trained_on: Sequence[Task] | None = None
    trained_from: str = "what the policy was trained on is not recorded"
    rule: str = ""
    drawn: str = ""
    first: str = ""
    notes: list[str] = field(default_factory=list)


def evaluate(plan: Plan, json: bool = False) -> int:
    """A new evaluation, to its end. Returns the exit code."""
    from crrl.evaluation.seen import seen
    from crrl.run.run import Run
    from crrl.tasks.files import encoded

    config = plan.config
    config.model.path = plan.checkpoint
    benchmark = plan.benchmark
    files: dict[str, bytes] = {}
    if benchmark is not None:
        files[TASKS] = b"".join(encoded(benchmark.tasks))
        _use_file(config, Path(config.runs_dir) / config.run, len(benchmark.tasks))
    meta = {
        "policy": plan.policy,
        "rule": plan.rule,
        **_who(plan),
        "benchmark": benchmark.name if benchmark else plan.drawn or "held-out tasks of the settings",
        "origin": benchmark.origin if benchmark else {},
    }
    if benchmark is not None:
        meta["seen"] = seen(plan.trained_on, benchmark.tasks, plan.trained_from)
    with Run.evaluation(config, {META: meta}, files, live=False if json else None) as run:
        for note in [*plan.notes, *(benchmark.notes if benchmark else [])]:
            run.display.note(note)
        return _to_its_end(run, json)


def _who(plan: Plan) -> dict[str, str]:
    """Which weights; of an endpoint's nobody knows, only where it is."""
    if plan.config.engine.name == "remote":
        return {"checkpoint": plan.config.engine.url, "weights": ""}
    folder = model_folder(plan.checkpoint)
    own = fingerprint(folder) if any(folder.glob("*.safetensors")) else ""
    return {"checkpoint": plan.checkpoint, "weights": weights_hash(folder), "fingerprint": own, "first": plan.first}


def grade_predictions(plan: Plan, file: Path, json: bool = False) -> int:
    """Of others, in a new folder."""
    from crrl.run import grade
    from crrl.tasks.files import encoded

    assert plan.benchmark is not None, "predictions are of a benchmark"
    patches, problems = grade.read_predictions(file)
    tasks = [task for task in plan.benchmark.tasks if task.id in patches]
    if not tasks:
        raise UsageError(f"{file} has no prediction for a task of {plan.benchmark.name}.", "Compare their ids.")
    known = {task.id for task in tasks}
    _use_file(plan.config, Path(plan.config.runs_dir) / plan.config.run, len(tasks))
    meta = {
        "policy": plan.policy,
        "checkpoint": str(file),
        "rule": "",
        "weights": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
        "benchmark": plan.benchmark.name,
        "origin": plan.benchmark.origin,
        "no_prediction": sorted(task.id for task in plan.benchmark.tasks if task.id not in patches),
        "no_task": sorted(set(patches) - known),
    }
    files = {
        TASKS: b"".join(encoded(tasks)),
        grade.PREDICTIONS: jsonlib.dumps({id: patches[id] for id in sorted(known)}).encode(),
    }
    for note in [*plan.benchmark.notes, *problems]:
        print(note)
    for what, key in (("tasks have no prediction", "no_prediction"), ("predictions are of no task", "no_task")):
        if meta[key]:
            print(f"{len(meta[key])} {what}, and are left out.")
    return grade.grade(plan.config, {META: meta}, files, json)


def resume(config: Config, json: bool = False) -> int:
    """Go on with an evaluation, or a grading, that was stopped."""
    from crrl.run import grade
    from crrl.run.run import Run

    folder = Path(config.runs_dir) / config.run
    if (folder / grade.PREDICTIONS).is_file():
        return grade.grade(config, None, {}, json)
    if (folder / TASKS).is_file():
        _use_file(config, folder, config.corpus.held_out)
    with Run.evaluation(config, None, {}, live=False if json else None) as run:
        meta = run.journal.meta[META]
        if weights_hash(model_folder(config.model.path)) != meta["weights"]:
            raise CrrlError(
                f"{config.model.path} no longer holds the weights that {folder} evaluates.",
                "Bring them back, or start a new evaluation.",
            )
        return _to_its_end(run, json)


def _use_file(config: Config, folder: Path, tasks: int) -> None:
    config.corpus.name = str(folder / TASKS)
    config.corpus.held_out = config.evaluation.tasks_per_split = tasks


def _to_its_end(run: Run, json: bool) -> int:
    from crrl.report.evaluation import write_evaluation
    from crrl.run.closing import summary_of

    try:
        cells = evaluate_policy(run, "eval", name=_name(run))
    except KeyboardInterrupt:
        run.display.note(f"Interrupted. Go on with: crrl eval resume={run.folder.name}")
        return INTERRUPTED
    summary = summary_of(run, splits_of(run, {}, cells))
    tasks = {task.id: task for held in run.curriculum.held_out().values() for task in held}
    summary.evaluation = run.journal.meta[META] | measured(tasks, cells, run.config.evaluation.prices)
    if found := classified(tasks, cells):
        summary.classification = {"after": found}
    summary.write(run.folder)
    write_evaluation(run.folder, summary, run.journal, run.tokenizer)
    if json:
        shown = {"splits": summary.splits, "random_floor": summary.random_floor, "exploits": summary.exploits}
        told = {"evaluation": summary.evaluation, "summary": str(run.folder / "summary.json")}
        if summary.classification:
            shown["classification"] = summary.classification
        print(jsonlib.dumps({"schema": summary.schema, **shown, **told}))
    else:
        print_closing(summary, f"Evaluation of {summary.evaluation['policy']}", _next(run))
    if summary.episodes["lost"] == sum(summary.episodes.values()):
        raise CrrlError(
            "Nothing was judged: every episode was lost.",
            "summary.json (lost_tries) says why. Mend that, then evaluate again under another run=NAME.",
        )
    return 0


def _name(run: Run) -> str | None:
    """Of the split, if the tasks were named in the command."""
    return str(run.journal.meta[META]["benchmark"]) if (run.folder / TASKS).is_file() else None


def _next(run: Run) -> list[tuple[str, str]]:
    return [
        (f"{run.folder / 'report.html'}", "read the tables and whole episodes in a browser"),
        (f"crrl compare OTHER {run.folder}", "compare it with another evaluation of the same tasks"),
        (f"{run.folder / 'card.md'}", "the table per task, to publish"),
    ]


def weights_hash(folder: Path) -> str:
    """Of the files that hold a policy's weights, by name."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    found = hashlib.blake2b(digest_size=16)
    for chunk in _chunks(files):
        found.update(chunk)
    return found.hexdigest()


def _chunks(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        yield path.name.encode()
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                yield chunk


def refuse_training_run(folder: Path) -> None:
    """Raises UsageError: `resume=` names a training run."""
    from crrl.rollout.journal import Journal

    with Journal.open(folder, read_only=True) as journal:
        if META not in journal.meta:
            raise UsageError(f"{folder} is a training run.", f"Write: crrl train resume={folder.name}")
