"""`crrl plan-eval`: how many tasks, samples and training seeds would settle a difference."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from crrl.cli.call import Call, print_json, whole_number
from crrl.errors import UsageError

if TYPE_CHECKING:
    from crrl.evaluation.planning import Noises

USAGE = "crrl plan-eval [RESULT RESULT...] [key=value...] [--json]"
HELP = """
Before anything is run: what would show a difference of so many points, and what would a benchmark show?

  difference=5       the points that matter
  tasks=500          how many the benchmark has
  power=80           percent: the chance to show it, if it is there
  discordant=15      percent of the tasks that change, either way, with one sample each: by chance, or by their own
                     difference
  spread=20          standard deviation, in points, of the true difference from task to task; the rest is chance
  seed_spread=2      the same of the mean, from training seed to training seed

RESULT RESULT: evaluations (of a baseline and of trained policies, as for crrl criterion) to measure the noise on, in
place of discordant, spread and seed_spread.
"""
SAMPLES, SEEDS = (1, 2, 4, 8, 16), (1, 3, 5)


def run(call: Call) -> int:
    from crrl.evaluation.planning import Noises, detectable, power, tasks_needed

    keys = ("difference", "tasks", "power", "discordant", "spread", "seed_spread")
    given = {key: value for key in keys if (value := call.take(key)) is not None}
    call.no_settings()
    measured = bool(call.arguments)
    if measured and (ignored := [k for k in ("discordant", "spread", "seed_spread") if k in given]):
        raise UsageError(f"{ignored[0]} would be ignored: it is measured on the results.", f"Leave {ignored[0]} out.")
    difference = _share(given, "difference", 5.0)
    wanted = _share(given, "power", 80.0)
    tasks = whole_number(given, "tasks", 500, least=2)
    discordant = _share(given, "discordant", 15.0)
    if measured:
        noises, tasks_measured, discordant = _measured(call.arguments)
        tasks = tasks if "tasks" in given else tasks_measured
    else:
        spread = _share(given, "spread", 20.0)
        chance = max(0.0, discordant - spread**2) / 2  # of each of two samples
        noises = Noises(task=spread, sample=chance**0.5, seed=_share(given, "seed_spread", 2.0))
    needed = tasks_needed(difference, discordant, wanted) if difference <= discordant else None
    table = {
        f"{seeds}": {
            f"{k}": {
                "detectable": 100 * detectable(noises, tasks, k, seeds, wanted),
                "power": power(difference, noises, tasks, k, seeds),
            }
            for k in SAMPLES
        }
        for seeds in SEEDS
    }
    if call.json:
        one = {"tasks_needed": needed, "discordant": 100 * discordant}
        told = {"difference": 100 * difference, "tasks": tasks, "one_sample": one, "noise": asdict(noises)}
        print_json({**told, "table": table})
        return 0
    _show(difference, tasks, wanted, needed, discordant, noises, table)
    return 0


def _show(
    difference: float,
    tasks: int,
    wanted: float,
    needed: int | None,
    discordant: float,
    noises: Noises,
    table: dict[str, dict[str, dict[str, float]]],
) -> None:
    points = f"{100 * difference:g} points"
    if needed is None:
        print(f"{points} need at least as large a share of tasks that change; {100 * discordant:.0f}% do.")
    else:
        print(f"{points}, one sample a task, one seed, {100 * discordant:.0f}% of tasks changed (McNemar, 5% level):")
        print(f"  {needed} tasks show it with {wanted:.0%} power")
    deviations = ", ".join(f"{name} {100 * value:.1f}" for name, value in asdict(noises).items())
    print(f"\n{tasks} tasks; standard deviations in points: {deviations}")
    print(f"  points shown with {wanted:.0%} power (power for {points})\n")
    print("  seeds  " + "".join(f"{f'k={k}':>15}" for k in SAMPLES))
    for seeds, row in table.items():
        cells = (f"{cell['detectable']:.1f} ({cell['power']:.0%})" for cell in row.values())
        print(f"  {seeds:<7}" + "".join(f"{cell:>15}" for cell in cells))


def _measured(words: list[str]) -> tuple[Noises, int, float]:
    """Noise, tasks, and the share that changes, of real results."""
    from crrl.evaluation.compare import aligned
    from crrl.evaluation.criterion import lift_of
    from crrl.evaluation.results import read

    if len(words) < 2:
        raise UsageError("Noise is measured on a baseline and at least one trained policy.", "Name two results.")
    try:
        results = aligned([read(word) for word in words], "")
    except ValueError as error:
        raise UsageError(str(error), "Name evaluations of the same tasks.") from None
    cells = [name for name in results[0].cells if all(name in r.cells for r in results)]
    if not cells:
        raise UsageError("They have no cell in common.", "Name evaluations of the same tasks.")
    base, *trained = results
    cell = max(cells, key=lambda name: sum(map(len, base.cells[name].scores.values())))
    lift = lift_of(base.name, base.cells[cell], {r.name: r.cells[cell] for r in trained})
    # Two single samples of a task differ by chance, and by the difference of the task.
    discordant = min(1.0, 2 * lift.noises.sample**2 + lift.noises.task**2 + (lift.points / 100) ** 2)
    return lift.noises, lift.tasks, discordant


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _share(given: dict[str, str], key: str, default: float) -> float:
    """Percent, as a share."""
    value = given.get(key, str(default))
    if not _is_number(value) or not 0 <= float(value) <= 100 or (key in ("difference", "power") and not float(value)):
        raise UsageError(f"{key}={value} is not a number of percent above 0.", f"Write e.g. {key}={default:g}.")
    return float(value) / 100
