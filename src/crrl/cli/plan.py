"""`crrl plan`: how much memory a run would take, by component, and whether it fits. Loads no weights."""

from __future__ import annotations

from dataclasses import asdict

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError

USAGE = "crrl plan RECIPE [key=value...] [cards=N] [card_gb=N] [--json]"
HELP = """
GiB for weights, gradients, optimizer, activations, logits, engine, keys and values, and a push, at the largest sizes
that the budgets allow. Of a model it reads config.json alone; its weights need not be there. Exit 1: it does not fit,
and the answer is what to write so that it does.

  cards=N card_gb=N   N cards of so many GiB (default: this machine); launch=ddp and zero3 use them all

  crrl plan quickstart
  crrl plan quickstart model.path=FOLDER trainer.dtype=mixed engine.dtype=bfloat16 card_gb=80
  crrl plan quickstart model.path=FOLDER launch=zero3 cards=8 card_gb=80 trainer.gradient_checkpointing=true
"""


def run(call: Call) -> int:
    from crrl.conf.load import load_recipe
    from crrl.conf.recipes import recipe_names
    from crrl.learning import plan

    cards, gigabytes = _positive(call, "cards"), _positive(call, "card_gb")
    if not call.arguments:
        raise UsageError("crrl plan needs a RECIPE.", f"There are: {', '.join(recipe_names())}.")
    (recipe,) = call.only("RECIPE")
    settings = list(call.settings)
    if cards is not None and cards != int(cards):
        raise UsageError(f"cards={cards:g} is not a whole number.", "Write cards=8.")
    if (cards or 1) > 1:
        if not any(word in settings for word in ("launch=ddp", "launch=zero3", "launch.name=ddp", "launch.name=zero3")):
            raise UsageError(f"cards={cards:g}: launch=local uses one.", f"Write launch=zero3 cards={cards:g}.")
        if not any(word.startswith("launch.processes=") for word in settings):
            settings.append(f"launch.processes={cards:g}")
    config = load_recipe(recipe, settings)
    if cards is not None and (ranks := plan.ranks_of(config)) > cards:
        raise UsageError(f"launch.processes={ranks}, and cards={cards:g}.", f"Write cards={ranks}.")
    room = plan.Room.here() if gigabytes is None else plan.Room.of_card(gigabytes)
    made = plan.make_plan(config, room)
    hint = "" if made.fits else plan.remedy(config, room)
    if call.json:
        print_json(
            {
                "components": dict(made.memory.rows()),
                "needed": made.needed,
                "room": asdict(room),
                "ranks": made.ranks,
                "budget": asdict(made.budget),
                "fits": made.fits,
                "remedy": hint,
            }
        )
    else:
        print("\n".join(made.lines()))
        print("It fits." if made.fits else f"It does not fit. {hint}")
    return 0 if made.fits else 1


def _positive(call: Call, key: str) -> float | None:
    word = call.take(key)
    if word is None:
        return None
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{key}={word} is not a positive number.", f"Write {key}=8.")
    return value
