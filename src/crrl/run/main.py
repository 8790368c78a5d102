"""`crrl train`: the whole run, top to bottom.

Evaluate the policy on held-out tasks, train it on real episodes with GRPO, evaluate it again on the same tasks, and
report the difference. Per training step: draw `groups_per_step` tasks, let the agent try each `group_size` times, judge
every patch, give each attempt its reward minus its group's mean, make one update, push the new weights into the engine
and prove that they arrived.

Of GRPO (arXiv:2402.03300) and its usual refinements, the default recipe leaves out:

- the KL penalty: `objective.beta` is 0, so no reference model is loaded;
- clipping, in effect: each batch is used for one update, by the policy that sampled it, so the importance ratio is 1 up
  to rounding and `objective.clip` is never reached;
- division by the group's deviation and by each episode's length, which favour very easy and very hard tasks, and long
  failures (Dr. GRPO, arXiv:2503.20783): advantages are only centred, and token sums are divided by a constant;
- resampling of groups whose attempts all got the same reward (DAPO, arXiv:2503.14476): they give no gradient, but their
  episodes count in the loss's mean;
- filtering of episodes whose budget ran out (DAPO): they are judged on what they left, and trained on like the others.

    crrl train quickstart                                  the default, on two CPU cores (times: docs/performance.md)
    crrl train quickstart seed=1 run=second                another seed
    crrl train quickstart objective=grpo                   textbook GRPO; the others: docs/training.md
    crrl train quickstart objective.shuffle_rewards=true   the control: random rewards, nothing to learn
    crrl train resume=quickstart-seed0                     continue after Ctrl-C, a crash or kill -9
    crrl eval tiny                                         the policy that it starts from
    crrl eval runs/quickstart-seed0                        the policy that it trained

All state is in the run's journal and checkpoints, so a run that is killed at any instant resumes without loss.
"""

from __future__ import annotations

import json as jsonlib
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from crrl.agents.prompts import digest
from crrl.errors import CrrlError
from crrl.evaluation.benchmark import Decoding, Phase, assemble, evaluation_attempts
from crrl.evaluation.sets import PAIRS, PROMPTS, TASK_SETS, fingerprints
from crrl.report.summary import Summary, next_steps, print_closing
from crrl.run.closing import summary_of
from crrl.run.layout import INTERRUPTED
from crrl.run.validate import take_chosen, validate
from crrl.tasks.classification import pairs_of

if TYPE_CHECKING:
    from crrl.conf.schema import Config
    from crrl.rollout.api import Episode
    from crrl.run.run import Run

Cells = dict[tuple[str, str], list["Episode"]]


def train(config: Config, resume: str | None = None, json: bool = False) -> int:
    """Run a recipe, or resume a run, to its end. Returns the exit code."""
    from crrl.learning.ranks import Ranks
    from crrl.run.run import Run

    live = False if json else None
    with Run.open(config, resume=resume is not None, live=live, ranks=Ranks.joined()) as run:
        try:
            before = evaluate_policy(run, "before") if config.evaluation.before else {}
            run.tracking.evaluation(0, splits_of(run, {}, before))
            fit(run)
            take_chosen(run)
            after = evaluate_policy(run, "after")
            run.tracking.evaluation(run.step, splits_of(run, {}, after))
            summary = conclude(run, before, after)
            run.tracking.ended_well()
        except KeyboardInterrupt:
            run.interrupted()
            return INTERRUPTED
    if json:
        print(jsonlib.dumps({"schema": summary.schema, "summary": str(run.folder / "summary.json")}))
    else:
        print_closing(summary, f"Run {summary.run}", next_steps(summary.run, config.runs_dir, summary.recipe))
    return 0


def evaluate_policy(run: Run, phase: Phase, name: str | None = None) -> Cells:
    """Evaluate the current policy on every held-out split, in every decoding; only episodes not in the journal run.
    `name`: of the one split of a task file."""
    evaluation = run.config.evaluation
    tasks = {name or split: held for split, held in run.curriculum.held_out().items()}
    run.journal.set_meta(TASK_SETS, {split: fingerprints(held) for split, held in tasks.items()})
    run.journal.set_meta(PAIRS, pairs_of(chain.from_iterable(tasks.values())))
    _same_prompts(run, phase)
    planned = {
        (split, decoding): evaluation_attempts(
            *(tasks[split], split, decoding, run.config.seed, phase),
            samples=evaluation.samples,
            temperature=evaluation.temperature,
            top_p=evaluation.top_p,
            top_k=evaluation.top_k,
        )
        for split in tasks
        for decoding in cast("list[Decoding]", evaluation.decodings)  # checked when they were read
    }
    run.run_attempts(f"evaluate {phase}", phase, [a for attempts in planned.values() for a in attempts])
    return {cell: [run.episode(a) for a in attempts] for cell, attempts in planned.items()}


def splits_of(run: Run, before: Cells, after: Cells) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of evaluated cells, as the summary has them. Pairs of tasks are one unit."""
    return assemble(before, after, run.journal.meta.get(PAIRS, {}))


def _same_prompts(run: Run, phase: Phase) -> None:
    """Raises CrrlError: an evaluation that was stopped would go on with others."""
    known, now = run.journal.meta.get(PROMPTS, {}), digest(run.config.agent)
    if known.get(phase, now) != now:
        raise CrrlError(
            f"agent.prompts={run.config.agent.prompts}: the text is not the one that this evaluation began with.",
            "Bring it back, or start a new evaluation.",
        )
    run.journal.set_meta(PROMPTS, known | {phase: now})


def fit(run: Run) -> None:
    """Train all steps. After each, push the new weights, prove the push and journal the step."""
    from crrl.learning.make_trainer import make_trainer
    from crrl.learning.source import RolloutSource
    from crrl.rollout.journal import TRAIN

    config = run.config
    if run.step >= config.trainer.max_steps:
        run.ranks.share()
        return
    run.phase = TRAIN
    run.display.phase("train", config.trainer.max_steps)
    run.display.advance(run.step)
    source = RolloutSource(config, run.curriculum, run.client, run.journal, run.count)

    def on_step(step: int, metrics: dict[str, float]) -> None:
        if metrics["skipped"]:  # there were no rows, and no weight has changed
            run.keep(version=step + 1)
        else:
            with run.spent("push"):
                metrics["push_error"] = run.push(trainer.policy, version=step + 1)
        metrics |= run.busy.of_step()
        metrics |= validate(run, step + 1)
        run.journal.step_trained(step, metrics, source.trained)
        run.journal.sync()
        run.step = step + 1
        run.alarm()
        run.tracking.step(step, metrics, run.tokenizer)
        run.tracking.checkpoint()
        run.display.advance(1, **{k: metrics[k] for k in ("reward", "well_formed", "entropy") if k in metrics})

    trainer = make_trainer(
        *(run.begin_together(), run.tokenizer, config, run.folder, run.timed(source), on_step),
        resume_from=run.checkpoint,
        resting=run.resting,
        note=run.display.note,
        updating=run.updating,
        ranks=run.ranks,
        ready=run.ready,
    )
    with run.spent("training"):
        trainer.train()
    run.others_bytes = int(run.ranks.sum([0.0])[0])
    run.tracking.checkpoint()


def follow() -> int:
    """`crrl train` on all ranks but the first: waits while that one evaluates, then trains with it. Returns 0.

    Raises:
        Stopped: rank 0 has failed, or was interrupted.
    """
    import torch

    from crrl.console.time_breakdown import peak_memory_bytes
    from crrl.engines.load import load_tokenizer
    from crrl.learning import sharding
    from crrl.learning.make_trainer import make_trainer, never
    from crrl.learning.ranks import Ranks
    from crrl.run.run import threads_of

    ranks = Ranks.joined()
    if (begin := ranks.share()) is None:  # there is nothing to train
        return 0
    config = begin.config
    torch.set_num_threads(threads_of(config, ranks))
    model = sharding.load(config, begin.source, ranks)
    tokenizer = load_tokenizer(begin.source, config.model.base)
    of_rank_0: Any = never
    trainer = make_trainer(
        *(model, tokenizer, config, begin.folder, of_rank_0, of_rank_0), resume_from=begin.checkpoint, ranks=ranks
    )
    trainer.train()
    ranks.sum([float(peak_memory_bytes())])
    return 0


def conclude(run: Run, before: Cells, after: Cells) -> Summary:
    """Write summary.json, report.html and learning-curve.svg."""
    from crrl.evaluation.classification import classified
    from crrl.report.from_journal import write_report_of

    summary = summary_of(run, splits_of(run, before, after))
    tasks = {task.id: task for held in run.curriculum.held_out().values() for task in held}
    told = {name: classified(tasks, cells) for name, cells in (("before", before), ("after", after))}
    summary.classification = {name: of for name, of in told.items() if of}
    summary.write(run.folder)
    write_report_of(run.folder, summary, run.journal, run.tokenizer)
    return summary
