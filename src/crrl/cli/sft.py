"""`crrl sft`: the recipe that makes the shipped tiny policy."""

from __future__ import annotations

from dataclasses import asdict

from crrl.cli.call import Call, print_json

USAGE = "crrl sft RECIPE [key=value...] [--json] [--dry-run]"
HELP = """
RECIPE: warmstart, which makes the shipped tiny policy from nothing: demonstrations, tokenizer, SFT; under
an hour on two cores. Interrupted, the same command goes on where it was.

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
