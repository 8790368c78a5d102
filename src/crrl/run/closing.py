"""What a run says at its end: the contents of summary.json, from its journal and what it measured of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from crrl.conf.schema import Config
from crrl.console.time_breakdown import peak_memory_bytes
from crrl.gateway.renderer import load_renderer
from crrl.report.alarms import alarms
from crrl.report.asynchrony import asynchrony
from crrl.report.exploit_examples import exploit_examples
from crrl.report.exploit_rate import exploit_rates
from crrl.report.summary import Summary
from crrl.rollout.journal import Journal
from crrl.run.run import Run
from crrl.sandbox import cgroup


def summary_of(run: Run, splits: dict[str, Any]) -> Summary:
    """The contents of summary.json. `splits`: the result of `assemble`."""
    rows = run.journal.outline()
    outcomes = {o: sum(r.outcome == o for r in rows) for o in ("scored", "truncated", "lost")}
    parts = {name: wall_s for name, wall_s in run.spent.parts().items() if not name.startswith("episode ")}
    parts["training"] = parts.get("training", 0.0) - parts.get("rollouts", 0.0) - parts.get("push", 0.0)
    wall = run.spent.elapsed_s()
    usage = run.client.usage()
    return Summary(
        run=run.config.run,
        seed=run.config.seed,
        recipe=run.config.recipe,
        splits=splits,
        random_floor=random_floors(run.config, splits),
        episodes=outcomes,
        lost_tries=lost_tries(run.journal),
        exploits=_exploits(run),
        seconds={**{k: round(v, 2) for k, v in parts.items() if v > 0}, "total": round(wall, 2)},
        episodes_per_second=(len(rows) - run.earlier_episodes) / wall,
        earlier_episodes=run.earlier_episodes,
        peak_memory_bytes=peak_memory_bytes() + usage.peak_memory_bytes + run.others_bytes,
        asynchrony=asynchrony(run.updates(), run.config.rollout.staleness) if run.step else {},
        steps=run.step,
        control=run.config.objective.shuffle_rewards or run.config.corpus.shuffle_labels,
        memory_limits=cgroup.kept_by(),
        alarms=[asdict(alarm) for alarm in alarms(run.updates())],
    )


def _exploits(run: Run) -> dict[str, Any]:
    renderer = load_renderer(run.tokenizer, run.config.renderer.key, run.config.renderer.calls)
    counted = ((phase, names) for phase, _, names in run.journal.attempted_exploits())
    return exploit_rates(counted, exploit_examples(run.journal, renderer))


SAID = 500
"""Characters that are kept of what a lost try said."""


def lost_tries(journal: Journal) -> dict[str, Any]:
    """The number of tries lost on our side, by cause, policy version and task; what the first of each cause said."""
    tries = journal.lost_tries()
    counts = {f"by_{key}": dict(Counter(str(t[key]) for t in tries)) for key in ("cause", "version", "task")}
    said = {t["cause"]: str(t["detail"])[:SAID] for t in reversed(tries) if t["detail"]}
    return {"total": len(tries), **counts, "said": said}


def random_floors(config: Config, splits: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The results of a policy that edits at random, on each generated split."""
    from crrl.evaluation.statistics import wilson
    from crrl.tasks.generator.floor import random_floor

    if config.corpus.name != "generated" or config.corpus.ask != "repair":
        return {}
    floors = {}
    for split in splits:
        count, functions = config.evaluation.tasks_per_split, config.corpus.functions
        floor = random_floor(split, config.seed, count, functions=functions)
        rate = floor.solved / floor.total
        ci95 = list(wilson(floor.solved, floor.total))
        floors[split] = {"solved": floor.solved, "total": floor.total, "rate": rate, "ci95": ci95}
    return floors
