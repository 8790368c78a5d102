"""Grading of predictions that others made: `crrl eval BENCHMARK preds.jsonl`. The judge is that of every episode.

A prediction is `instance_id` and `model_patch` (SWE-bench's format: JSON Lines, a JSON list, or an object by instance).
The folder is an evaluation's, without tokens; tasks without a prediction are left out, and told.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crrl.console.display import Display
from crrl.errors import CrrlError, LostError
from crrl.evaluation.benchmark import assemble
from crrl.evaluation.classification import classified
from crrl.evaluation.metrics import measured
from crrl.evaluation.sets import PAIRS, TASK_SETS, fingerprints
from crrl.report.exploit_rate import exploit_rates
from crrl.report.summary import Summary, print_closing, versions
from crrl.rollout.api import Episode
from crrl.rollout.journal import Journal
from crrl.run.folder import create
from crrl.run.layout import INTERRUPTED, META, TASKS
from crrl.sandbox import default_state_dir
from crrl.tasks.classification import pairs_of

if TYPE_CHECKING:
    from crrl.conf.schema import Config
    from crrl.task import Task

PREDICTIONS, PHASE, DECODING = "predictions.json", "eval", "predictions"


def read_predictions(file: Path) -> tuple[dict[str, str], list[str]]:
    """Task -> patch, and what was left out. Raises CrrlError: it cannot be read, or holds no prediction."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CrrlError(f"{file} cannot be read: {error}", "Write the path of predictions (preds.jsonl).") from error
    found: dict[str, str] = {}
    problems = []
    for number, record in enumerate(_records(file, text), 1):
        if isinstance(record, dict) and isinstance(id := record.get("instance_id"), str):
            patch = record.get("model_patch")
            if patch is not None and not isinstance(patch, str):
                problems.append(f"{file}:{number}: model_patch is no text")
            elif id in found:
                problems.append(f"{file}:{number}: a second prediction for {id}")
            else:
                found[id] = patch or ""
        else:
            problems.append(f"{file}:{number}: no prediction (instance_id, model_patch)")
    if not found:
        first = f" {problems[0]}" if problems else ""
        raise CrrlError(f"{file} holds no prediction.{first}", "One JSON object a line: instance_id, model_patch.")
    return found, problems


def _records(file: Path, text: str) -> list[Any]:
    if file.suffix == ".json":
        try:
            whole = jsonlib.loads(text)
        except ValueError as error:
            raise CrrlError(f"{file} is no JSON: {error}", "Write JSON Lines as preds.jsonl.") from error
        if isinstance(whole, dict):
            return [{"instance_id": id, **of} if isinstance(of, dict) else of for id, of in whole.items()]
        return list(whole) if isinstance(whole, list) else []
    records = []
    for line in text.splitlines():
        if line.strip():
            try:
                records.append(jsonlib.loads(line))
            except ValueError:
                records.append(None)
    return records


def grade(config: Config, meta: Mapping[str, Any] | None, files: Mapping[str, bytes], json: bool) -> int:
    """`meta`, `files`: of a new folder; None: go on in the one that is there. Returns the exit code."""
    from crrl.conf.load import to_yaml
    from crrl.tasks.files import load_tasks

    folder = Path(config.runs_dir) / config.run
    if meta is not None:
        about = {"seed": config.seed, "recipe": config.recipe, "versions": versions(), **meta}
        journal = create(folder, about, to_yaml(config), files)
    else:
        journal = Journal.open(folder)
    started = time.monotonic()
    with journal, Display(live=False if json else None) as display:
        tasks, _ = load_tasks(folder / TASKS)
        patches = jsonlib.loads((folder / PREDICTIONS).read_text())
        name = journal.meta[META]["benchmark"]
        journal.set_meta(TASK_SETS, {name: fingerprints(tasks)})
        journal.set_meta(PAIRS, pairs_of(tasks))
        try:
            asyncio.run(_grade(config, tasks, patches, name, journal, display))
        except KeyboardInterrupt:
            display.note(f"Interrupted. Go on with: crrl eval resume={config.run}")
            return INTERRUPTED
        summary = _conclude(config, folder, journal, tasks, name, time.monotonic() - started)
    if json:
        print(jsonlib.dumps({"schema": summary.schema, "splits": summary.splits, "evaluation": summary.evaluation}))
    else:
        print_closing(summary, f"Grading of {summary.evaluation['policy']}")
    return 0


async def _grade(
    config: Config, tasks: list[Task], patches: Mapping[str, str], name: str, journal: Journal, display: Display
) -> None:
    from crrl import sandbox
    from crrl.rewards import combine
    from crrl.rewards.task_judge import TaskJudge

    state_dir = Path(config.sandbox.state_dir or default_state_dir())
    boxes = sandbox.make(config.sandbox.name, state_dir=state_dir, images=config.sandbox.images)
    judge = TaskJudge(state_dir, boxes, concurrency=config.rollout.judges)
    weigh = combine(config.rewards.weights, config.rewards.options, judge.version)
    finished = journal.finished(PHASE)
    display.phase("grade", len(tasks))
    solved = 0

    async def one(task: Task) -> None:
        nonlocal solved
        id = f"eval/{PHASE}/{name}/{DECODING}/{task.id}"
        if id not in finished:
            patch, began = patches[task.id], time.monotonic()
            try:
                results, cached = await judge.run_cached(task, patch)
            except LostError as error:
                episode = Episode(id, id, task.id, 0, 0, "lost", patch=patch, lost_reason=str(error))
            else:
                verdict = weigh(task, patch, results, [], cached=cached)
                solved += verdict.solved
                took = {"judge": time.monotonic() - began}
                episode = Episode(id, id, task.id, 0, 0, "scored", patch=patch, verdict=verdict, timings=took)
            journal.add_episode(PHASE, episode)
        display.advance(1, solved=float(solved))

    try:
        await asyncio.gather(*(one(task) for task in tasks))
    finally:
        await judge.close()
        await boxes.close()


def _conclude(config: Config, folder: Path, journal: Journal, tasks: list[Task], name: str, took_s: float) -> Summary:
    from crrl.report.evaluation import write_evaluation

    cells = {(name, DECODING): list(journal.episodes(PHASE))}
    outcomes = [e.outcome for e in cells[name, DECODING]]
    by_id = {task.id: task for task in tasks}
    told = classified(by_id, cells)
    summary = Summary(
        run=config.run,
        seed=config.seed,
        splits=assemble({}, cells, journal.meta[PAIRS]),
        episodes={outcome: outcomes.count(outcome) for outcome in ("scored", "truncated", "lost")},
        exploits=exploit_rates((phase, names) for phase, _, names in journal.attempted_exploits()),
        seconds={"grade": took_s, "total": took_s},
        episodes_per_second=len(outcomes) / took_s,
        evaluation=journal.meta[META] | measured(by_id, cells, {}),
        classification={"after": told} if told else {},
    )
    summary.write(folder)
    write_evaluation(folder, summary, journal, None)
    return summary
