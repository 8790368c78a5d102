"""Validation while training: the policy on a fixed set of tasks, every `evaluation.every` steps.

The set is neither trained on nor evaluated on at the end, and the same at every step, with the same noise. Its cost is
bounded: `evaluation.validation_tasks` episodes each time, shown by `--dry-run` and in the run's times. The checkpoint
that is evaluated at the end is chosen by `evaluation.checkpoint_rule`, which is in the journal before training starts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from crrl.evaluation.benchmark import Decoding, Phase, SplitResult, evaluation_attempts
from crrl.learning import best
from crrl.rollout.journal import TRAIN
from crrl.tasks.classification import pairs_of

if TYPE_CHECKING:
    from crrl.run.run import Run

VALIDATION: Phase = "validation"
RULE = "checkpoint_rule"
"""A journal's name for the rule."""


def validate(run: Run, step: int) -> dict[str, float]:
    """Metrics of the policy after `step` updates, where it is time for them; else none. Its weights are in the
    engine."""
    evaluation = run.config.evaluation
    if not evaluation.every or (step % evaluation.every and step != run.config.trainer.max_steps):
        return {}
    split = f"step-{step}"
    decoding = cast("Decoding", evaluation.decodings[0])
    attempts = evaluation_attempts(
        *(run.curriculum.validation(), split, decoding, run.config.seed, VALIDATION),
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        top_k=evaluation.top_k,
        noise=VALIDATION,
    )
    run.run_attempts(VALIDATION, VALIDATION, attempts)
    run.phase = TRAIN
    run.display.phase("train", run.config.trainer.max_steps)
    run.display.advance(step - 1)
    episodes = [run.journal.episode(a.id, VALIDATION) for a in attempts]
    result = SplitResult.of(episodes, pairs_of(run.curriculum.validation()))
    if not result.total:  # all lost: no score, rather than a zero
        return {"validation_lost": float(result.lost)}
    best.mark_best(run.folder / "checkpoints", step, result.rate)
    low, high = result.ci95
    return {
        "validation": result.rate,
        "validation_low": low,
        "validation_high": high,
        "validation_lost": float(result.lost),
    }


def take_chosen(run: Run) -> None:
    """Put the policy that the rule chooses into the engine, after training."""
    if run.config.evaluation.checkpoint_rule != "best_validation":
        return
    chosen = best.point(run.folder / "checkpoints")
    if chosen is None or step_of(chosen) == run.step:
        return
    from crrl.engines.load import load_model

    run.display.note(f"The best validation was after step {step_of(chosen)}: that policy is evaluated. {best.BIAS}")
    run.push(load_model(chosen, base=run.config.model.base), version=step_of(chosen))


def step_of(checkpoint: Path) -> int:
    return int(re.findall(r"\d+", checkpoint.name)[-1])
