"""`crrl eval`: a checkpoint or a run on held-out tasks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from crrl.cli.call import Call, print_json
from crrl.conf.schema import Config
from crrl.errors import UsageError

USAGE = "crrl eval CHECKPOINT_OR_RUN [key=value...] [--json] [--dry-run]"
HELP = """
CHECKPOINT_OR_RUN is `tiny` (the shipped policy), a Hugging Face model folder, a run's name, or one of its
checkpoints (runs/NAME/checkpoints/step-20). For a run, it evaluates the last checkpoint with the run's own settings.

  corpus.name=FILE.jsonl           a task file instead of generated tasks; for a run's own file, the tasks it held out
  corpus.held_out=N evaluation.tasks_per_split=N   for a task file: this many of its tasks (100), or all it has
  evaluation.tasks_per_split=400   more tasks, narrower intervals
  evaluation.splits=[unseen_families] evaluation.decodings=[greedy]
  seed=N                           another draw of held-out tasks
"""


TRAINING = ("trainer", "objective", "tracker", "launch", "adapter")
"""Groups of settings that an evaluation has no use for."""


def run(call: Call) -> int:
    (target,) = call.only("CHECKPOINT_OR_RUN")
    for setting in call.settings:
        if setting.partition("=")[0].partition(".")[0] in TRAINING:
            key = setting.partition("=")[0]
            raise UsageError(f"{key} would be ignored: crrl eval does not train.", f"Leave {key} out.")
    config, checkpoint = resolve(target, call.settings)
    if call.dry_run:
        if call.json:
            print_json({"config": asdict(config), "checkpoint": str(checkpoint)})
        else:
            from crrl.conf.load import to_yaml

            print(to_yaml(config) + f"# evaluate {checkpoint}")
        return 0
    from crrl.run.main import evaluate

    return int(evaluate(config, checkpoint, json=call.json) or 0)


def resolve(target: str, settings: list[str]) -> tuple[Config, str]:
    """The settings to evaluate with, and the model folder (or `tiny`)."""
    from crrl.conf.load import load_recipe, load_saved

    if target == "tiny":
        return load_recipe("quickstart", settings), "tiny"
    path = Path(target)
    for folder in (path, Path("runs") / target):
        if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():
            return load_saved(folder / "config.yaml", settings), str(last_checkpoint(folder))
    if not (path / "config.json").is_file():
        raise UsageError(
            f"{target} is neither a run nor a model folder (no config.yaml, no config.json).",
            "Write tiny, a run's name, runs/NAME/checkpoints/step-N, or a Hugging Face model folder.",
        )
    owner = next(
        (p for p in path.resolve().parents if (p / "config.yaml").is_file() and (p / "checkpoints").is_dir()),
        None,
    )
    if owner is not None:
        return load_saved(owner / "config.yaml", settings), str(path)
    return load_recipe("quickstart", [*settings, f"model.path={path}"]), str(path)


def last_checkpoint(run_folder: Path) -> Path:
    found = [p for p in (run_folder / "checkpoints").glob("step-*") if p.name[5:].isdigit()]
    if not found:
        raise UsageError(
            f"{run_folder} has no checkpoint yet.",
            f"Resume it first: crrl train resume={run_folder.name}",
        )
    return max(found, key=lambda p: int(p.name[5:]))
