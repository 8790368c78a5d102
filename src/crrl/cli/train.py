"""`crrl train`: composes and checks the settings, then hands over to `run.main.train`."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import asdict
from pathlib import Path

from crrl.cli.call import Call, print_json
from crrl.conf.launch_checks import LAUNCHED
from crrl.conf.schema import Config
from crrl.errors import UsageError, nearest

USAGE = "crrl train RECIPE [key=value...] [--json] [--dry-run]\ncrrl train resume=RUN [key=value...]"
HELP = """
RECIPE is a name (quickstart) or the path of a .yaml file. --dry-run prints the resolved settings and the plan.
Ctrl-C saves, says how to resume, and exits 130. resume=RUN resumes after Ctrl-C, a crash or kill -9, and neither
loses nor repeats a finished episode.

Settings that people change:
  seed=N                    seed of everything, including the test split
  run=NAME runs_dir=FOLDER  where results go
  trainer.max_steps=N       number of steps
  objective=NAME            grpo, dr_grpo, dapo, gspo, cispo, sapo or rloo
  model.path=FOLDER         a Hugging Face model instead of the shipped tiny policy
  corpus.name=FILE.jsonl    your own tasks
  engine.threads=N          cores for sampling
  launch=ddp launch.processes=N        several GPUs (launch=zero3: a model that does not fit one)
For all settings: crrl train RECIPE --dry-run, or shell completion (crrl completion bash).
"""

# A resumed run may change how fast and how far it goes, never what it measures.
RESUMABLE = (
    "model.base",
    "trainer.max_steps",
    "trainer.save_steps",
    "trainer.keep_checkpoints",
    "trainer.tokens_per_micro_batch",
    "trainer.gradient_checkpointing",
    "launch.name",
    "launch.processes",
    "engine.device",
    "engine.threads",
    "engine.max_batch",
    "engine.url",
    "engine.environment",
    "engine.install",
    "engine.memory_gb",
    "engine.memory_share",
    "engine.tensor_parallel",
    "engine.replicas",
    "engine.share",
    "engine.transport",
    "rollout.concurrency",
    "rollout.judges",
    "rollout.tries",
    "rollout.watchdog_s",
    "sandbox.state_dir",
    "sandbox.cache_gb",
    "tracker.name",
    "tracker.project",
    "tracker.entity",
    "tracker.offline",
    "tracker.episodes",
    "tracker.checkpoints",
)


def run(call: Call) -> int:
    if LAUNCHED in os.environ:
        from crrl.run.launch import as_rank
        from crrl.run.main import follow

        return as_rank(follow if int(os.environ["RANK"]) else lambda: _train(call))
    return _train(call)


def _train(call: Call) -> int:
    from crrl.conf.load import to_yaml

    words = [*call.arguments, *call.settings]
    resume = call.take("resume")
    config = resumed(call, resume) if resume is not None else fresh(call)
    if config.engine.name == "remote":
        raise UsageError(
            "engine=remote cannot be trained on: it gives neither tokens nor log-probs, and takes no weights.",
            "Write engine=local or engine=vllm. To evaluate it: crrl eval BENCHMARK NAME engine=remote engine.url=...",
        )
    if config.engine.name == "vllm":
        from crrl.run.engine import require_for_training

        require_for_training(config)
    launched = config.launch.name != "local"
    if launched and LAUNCHED not in os.environ:
        from crrl.run import launch

        launch.require(config)
        if not call.dry_run:
            named = [] if resume is not None else [f"run={config.run}"]
            return launch.launch(config, ["train", *words, *named, *(["--json"] if call.json else [])])
    if call.dry_run:
        if call.json:
            would = {"would": plan(config, resume), "memory": memory(config)}
            print_json({"config": asdict(config), "resume": resume, **would})
        else:
            print(to_yaml(config))
            print("\n".join(f"# {line}" for line in [*plan(config, resume), "", *memory(config)]))
            for name, content in (launch.configuration(config) if launched else {}).items():
                print(f"\n# {name}\n{content.strip()}")
        return 0
    from crrl.run.main import train

    return int(train(config, resume, json=call.json) or 0)


def fresh(call: Call) -> Config:
    from crrl.conf.load import load_recipe
    from crrl.conf.recipes import recipe_names

    if not call.arguments:
        raise UsageError(
            "crrl train needs a RECIPE.",
            f"There are: {', '.join(recipe_names())}. To resume a run: crrl train resume=RUN",
        )
    (recipe,) = call.only("RECIPE")
    config = load_recipe(recipe, call.settings)
    runs = Path(config.runs_dir)
    if not config.run:
        config.run = free_name(runs, f"{config.recipe}-seed{config.seed}")
    elif (runs / config.run).exists():
        raise UsageError(
            f"Run {runs / config.run} exists.",
            f"To resume it: crrl train resume={config.run}. Otherwise choose another run=NAME.",
        )
    return config


def resumed(call: Call, name: str) -> Config:
    """The run's own settings; the user may change only those in `RESUMABLE`."""
    from crrl.conf.load import in_full, load_saved

    folder = in_folder(call, name)
    refuse_evaluation(folder)
    saved = load_saved(folder / "config.yaml")
    if call.arguments and call.only("RECIPE", optional=1)[0] != saved.recipe:
        raise UsageError(
            f"Recipe {saved.recipe} made run {folder.name}, not {call.arguments[0]}.",
            f"Write: crrl train resume={name}",
        )
    config = load_saved(folder / "config.yaml", call.settings) if call.settings else copy.deepcopy(saved)
    from crrl.conf.checks import value_at

    for key in (s.partition("=")[0] for s in in_full(call.settings)):
        if key not in RESUMABLE and value_at(config, key) != value_at(saved, key):
            raise UsageError(
                f"You cannot change {key} in the middle of a run.",
                f"Leave it out, or start a new run. You may change: {', '.join(RESUMABLE)}.",
            )
    config.run, config.runs_dir = folder.name, str(folder.parent)
    return config


def refuse_evaluation(folder: Path) -> None:
    """Raises UsageError: the folder is one of crrl eval."""
    from crrl.rollout.journal import FILE, Journal
    from crrl.run.layout import META

    if not (folder / FILE).is_file():
        return  # which is told later
    with Journal.open(folder, read_only=True) as journal:
        if META in journal.meta:
            raise UsageError(f"{folder} is an evaluation.", f"Write: crrl eval resume={folder.name}")


def in_folder(call: Call, name: str) -> Path:
    """The folder that `resume=NAME` means. Raises UsageError: there is none."""
    runs_dir = call.take("runs_dir") or "runs"
    folder = Path(name) if "/" in name else Path(runs_dir) / name
    if not (folder / "config.yaml").is_file():
        known = [p.parent.name for p in folder.parent.glob("*/config.yaml")]
        hint = nearest(folder.name, known) if known else f"{folder.parent}/ has no runs."
        raise UsageError(f"There is no run to resume at {folder}.", hint)
    return folder


def free_name(runs: Path, wanted: str) -> str:
    """`wanted`, or `wanted-2`, `-3`...: an unnamed run never uses the folder of an old one."""
    if not (runs / wanted).exists():
        return wanted
    taken = [int(m[1]) for p in runs.glob(f"{wanted}-*") if (m := re.fullmatch(re.escape(wanted) + r"-(\d+)", p.name))]
    return f"{wanted}-{max([1, *taken]) + 1}"


def plan(config: Config, resume: str | None) -> list[str]:
    """The steps of the run, in order, with numbers."""
    splits, tasks = len(config.evaluation.splits), config.evaluation.tasks_per_split
    if config.corpus.name != "generated":
        splits, tasks = 1, min(config.corpus.held_out, tasks)
    cells = splits * len(config.evaluation.decodings)
    evaluated = cells * tasks
    objective = config.objective
    trained = config.trainer.max_steps * objective.groups_per_step * objective.group_size
    lines = [f"folder   {Path(config.runs_dir) / config.run}" + (" (resumed)" if resume else "")]
    if config.evaluation.before:
        lines.append(f"evaluate {evaluated} episodes before ({cells} cells of {tasks} tasks)")
    lines.append(
        f"train    {config.trainer.max_steps} steps of {objective.groups_per_step} groups x {objective.group_size} "
        f"attempts = {trained} episodes"
    )
    if (every := config.evaluation.every) and config.trainer.max_steps:
        times, each = -(-config.trainer.max_steps // every), config.evaluation.validation_tasks
        lines.append(f"validate {times} times (every {every} steps) on {each} tasks = {times * each} episodes")
    if ahead := config.rollout.staleness:
        lines.append(f"         episodes run at most {ahead} step{'s' * (ahead > 1)} ahead of the trainer")
    if objective.dynamic_sampling:
        lines.append(f"         and at most {objective.dynamic_sampling} more groups a step, for those without spread")
    if objective.updates_per_batch > 1:
        lines.append(f"         {objective.updates_per_batch} updates a step")
    if objective.shuffle_rewards:
        lines.append("         CONTROL RUN: rewards are shuffled; expect no gain")
    if config.corpus.shuffle_labels:
        lines.append("         CONTROL RUN: labels are dealt out at random; expect no gain")
    rule = config.evaluation.checkpoint_rule.replace("_", " ")
    lines.append(f"evaluate {evaluated} episodes after, on the same tasks (the policy: {rule})")
    lines.append("write    summary.json, report.html")
    return lines


def memory(config: Config) -> list[str]:
    """What it would take on this machine, as `crrl plan` says it."""
    from crrl.learning.plan import Room, make_plan, remedy

    room = Room.here()
    planned = make_plan(config, room)
    fits = "It fits." if planned.fits else f"It does not fit, and would be refused. {remedy(config, room)}"
    return [*planned.lines(), fits]
