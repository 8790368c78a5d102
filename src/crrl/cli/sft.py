"""`crrl sft`: supervised fine-tuning on episodes or chats, and the recipe that makes the shipped tiny policy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crrl.cli.call import Call, print_json
from crrl.conf.recipes import warmstarts
from crrl.errors import UsageError

if TYPE_CHECKING:
    from crrl.conf.schema import RowsConfig

USAGE = (
    f"crrl sft DATA... out=FOLDER [key=value...] [--json] [--dry-run]\ncrrl sft {'|'.join(warmstarts())} [key=value...]"
)
HELP = """
DATA is any number of runs (a name, or a folder: their solved training episodes, token by token as they were sampled),
of .jsonl files (a chat per line: {"messages": [...], "tools": [...]}) and of data sets of crrl curate (.parquet). Only
the model's own turns are trained. Rows are packed whole; what cannot be read, or is too long, is counted and named. If
you interrupt it, rerunning the command resumes where it stopped.

  model.path=FOLDER   the model to start from (tiny)
  out=FOLDER          where the finished model goes: model.path=FOLDER in your next command
  episodes=scored     a run's unsolved episodes, too
  adapter=lora        train low-rank matrices (adapter.r, adapter.alpha, adapter.targets); the result is merged
  beta=0.05           stay close to the model that you started from: weight of the KL divergence
  epochs=2 learning_rate=1e-5 tokens_per_pack=4096 packs_per_step=4
For all settings: crrl sft DATA out=FOLDER --dry-run

`crrl sft warmstart` makes the shipped tiny policy from scratch: demonstrations, tokenizer, SFT. It takes less than an
hour on two cores. The others go on from it, and make the policies of the recipes repair-file, implement and classify.
  out=FOLDER    where the finished model goes
  seed=N        another set of demonstrations and weights
"""


def run(call: Call) -> int:
    if call.arguments and (call.arguments[0] in warmstarts() or call.arguments[0].endswith((".yaml", ".yml"))):
        return warmstart(call)
    if not call.arguments:
        raise UsageError("crrl sft needs DATA.", "Write a run, a .jsonl file, or warmstart. See: crrl sft --help")
    from crrl.conf.load import load_rows, to_yaml

    config = load_rows(call.settings)
    config.data = [str(path) for path in map(found, call.arguments)]
    if Path(config.out).exists():
        raise UsageError(f"out={config.out} exists.", "Write another out=FOLDER.")
    if call.dry_run:
        if call.json:
            print_json({"config": asdict(config)})
        else:
            print(to_yaml(config), end="")
        return 0
    return fine_tune(config, json=call.json)


def found(word: str) -> Path:
    """A run's folder, or a file. Raises UsageError."""
    for path in (Path(word), Path("runs") / word):
        if path.is_file() and path.suffix in (".jsonl", ".parquet"):
            return path
        if (path / "config.yaml").is_file():
            return path
    raise UsageError(
        f"{word} is neither a run (a folder with config.yaml) nor a .jsonl or .parquet file.",
        "`ls runs` shows the runs there are.",
    )


def fine_tune(config: RowsConfig, json: bool) -> int:
    from crrl.run.sft import run as train

    record = train(config, live=False if json else None)
    if json:
        print_json(record)
    else:
        print(f"{config.out}: loss {record['first_loss']:.3f} -> {record['last_loss']:.3f} in {record['steps']} steps")
        print(f"Next:\n  crrl eval {config.out}\n  crrl train quickstart model.path={config.out}")
    return 0


def warmstart(call: Call) -> int:
    from crrl.conf.load import load_warmstart, to_yaml
    from crrl.warmstart import check, make

    (recipe,) = call.only("RECIPE")
    config = load_warmstart(recipe, call.settings)
    check(config, [word.partition("=")[0] for word in call.settings])
    if call.dry_run:
        if call.json:
            print_json({"config": asdict(config)})
        else:
            print(to_yaml(config), end="")
        return 0
    make(config)
    return 0
