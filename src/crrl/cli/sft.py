"""`crrl sft`: the recipe that makes the shipped tiny policy."""

from __future__ import annotations

from dataclasses import asdict

from crrl.cli.call import Call, print_json

USAGE = "crrl sft RECIPE [key=value...] [--json] [--dry-run]"
HELP = """
RECIPE is warmstart, which makes the shipped tiny policy from scratch: demonstrations, tokenizer, SFT. It takes less
than an hour on two cores. If you interrupt it, rerunning the command resumes where it stopped.

  out=FOLDER    where the finished model goes
  seed=N        another set of demonstrations and weights
"""


def run(call: Call) -> int:
    from crrl.conf.load import load_warmstart, to_yaml

    (recipe,) = call.only("RECIPE")
    config = load_warmstart(recipe, call.settings)
    if call.dry_run:
        if call.json:
            print_json({"config": asdict(config)})
        else:
            print(to_yaml(config), end="")
        return 0
    from crrl.warmstart import make

    make(config)
    return 0
