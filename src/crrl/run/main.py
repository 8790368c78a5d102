"""`crrl train` and `crrl eval`: the main path, top to bottom.

Evaluate the policy on held-out tasks, train it through real episodes, evaluate it again on the same tasks, and say
what came of it. Everything that must survive is in the run's journal and checkpoints; a run that was killed at any
instant goes on from them.
"""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, cast

from crrl.evaluation.benchmark import Decoding, Phase, assemble, evaluation_attempts
from crrl.report.summary import Summary, next_steps, print_closing

if TYPE_CHECKING:
    from crrl.conf.schema import Config
    from crrl.rollout.api import Episode
    from crrl.run.run import Run

INTERRUPTED = 130
Cells = dict[tuple[str, str], list["Episode"]]


def train(config: Config, resume: str | None = None, json: bool = False) -> int:
    """Run a recipe (or go on with a run) to its end. Returns the exit code."""
    from crrl.run.run import Run

    with Run.open(config, resume=resume is not None, live=False if json else None) as run:
        try:
            before = evaluate_policy(run, "before") if config.evaluation.before else {}
            fit(run)
            after = evaluate_policy(run, "after")
            summary = conclude(run, before, after)
        except KeyboardInterrupt:
            run.interrupted()
            return INTERRUPTED
    if json:
        print(jsonlib.dumps({"schema": summary.schema, "summary": str(run.folder / "summary.json")}))
    else:
        print_closing(summary, f"Run {summary.run}", next_steps(summary.run, config.runs_dir))
    return 0


def evaluate(config: Config, checkpoint: str, json: bool = False) -> int:
    """`crrl eval`: one policy on the held-out tasks; nothing is trained."""
    from crrl.run.run import Run

    config.model.path = checkpoint
    with Run.temporary(config, live=False if json else None) as run:
        try:
            cells = evaluate_policy(run, "eval")
        except KeyboardInterrupt:
            return INTERRUPTED
        summary = run.summary(assemble({}, cells))
    if json:
        print(jsonlib.dumps({"schema": summary.schema, "splits": summary.splits, "random_floor": summary.random_floor}))
    else:
        print_closing(summary, f"Evaluation of {checkpoint}")
    return 0


def evaluate_policy(run: Run, phase: Phase) -> Cells:
    """All held-out splits in all decodings with the current policy; what the journal has is not run again."""
    evaluation = run.config.evaluation
    tasks = run.curriculum.held_out()
    planned = {
        (split, decoding): evaluation_attempts(tasks[split], split, decoding, run.config.seed, phase)
        for split in tasks
        for decoding in cast("list[Decoding]", evaluation.decodings)  # checked when they were read
    }
    run.run_attempts(f"evaluate {phase}", phase, [a for attempts in planned.values() for a in attempts])
    return {cell: [run.episode(a) for a in attempts] for cell, attempts in planned.items()}


def fit(run: Run) -> None:
    """All training steps; after each the new weights go live, proved, and the step is journalled."""
    from crrl.learning.source import RolloutSource
    from crrl.learning.trainer import make_trainer
    from crrl.rollout.journal import TRAIN

    config = run.config
    if run.step >= config.trainer.max_steps:
        return
    run.phase = TRAIN
    run.display.phase("train", config.trainer.max_steps)
    run.display.advance(run.step)
    source = RolloutSource(config, run.curriculum, run.client, run.journal, run.count)

    def on_step(step: int, metrics: dict[str, float]) -> None:
        with run.spent("push"):
            metrics["push_error"] = run.push(trainer.policy, version=step + 1)
        run.journal.step_trained(step, metrics, source.trained)
        run.journal.sync()
        run.step = step + 1
        run.display.advance(1, **{k: metrics[k] for k in ("reward", "well_formed", "entropy") if k in metrics})

    trainer = make_trainer(
        *(run.model, run.tokenizer, config, run.folder, run.timed(source), on_step),
        resume_from=run.checkpoint,
        resting=run.resting,
    )
    with run.spent("training"):
        trainer.train()


def conclude(run: Run, before: Cells, after: Cells) -> Summary:
    """summary.json, report.html and learning-curve.svg."""
    from crrl.report.from_journal import write_report_of

    summary = run.summary(assemble(before, after))
    summary.write(run.folder)
    write_report_of(run.folder, summary, run.journal, run.tokenizer)
    return summary
