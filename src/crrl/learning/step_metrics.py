"""The numbers of a step that come from its episodes (docs/metrics.md): what was rewarded, and what agents did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crrl.rollout.api import AT_THE_ENGINE, Episode


def of_episodes(episodes: Sequence[Episode]) -> dict[str, float]:
    """Means over the episodes that were not lost; a reward's, over those that it applies to.

    Returns:
        `solved`, `well_formed`, `exploits`: shares. `reward/<name>`: one for each reward. `agent/<name>`: one for each
        of the agent's counts (`turns`, `tool_calls`, `tool_errors`...), per episode. `episodes_*`: counts by outcome.
        `engine_*`: seconds per episode (`rollout.api.AT_THE_ENGINE`).
    """
    counted = [e for e in episodes if e.outcome != "lost"]
    verdicts = [e.verdict for e in counted if e.verdict is not None]
    each = max(1, len(counted))
    metrics = {
        "solved": sum(v.solved for v in verdicts) / each,
        "well_formed": sum(e.well_formed for e in counted) / each,
        "exploits": sum(bool(v.exploits) for v in verdicts) / each,
        **{f"episodes_{o}": float(sum(e.outcome == o for e in episodes)) for o in ("scored", "truncated", "lost")},
    }
    rewarded: dict[str, list[float]] = {}
    for verdict in verdicts:
        for name, value in verdict.components.items():
            rewarded.setdefault(name, []).append(value)
    metrics |= {f"reward/{name}": sum(values) / len(values) for name, values in sorted(rewarded.items())}
    done = sum((Counter(e.counts) for e in counted), Counter[str]())
    for name in AT_THE_ENGINE:
        if took := [e.timings[name] for e in counted if name in e.timings]:
            metrics[name] = sum(took) / len(took)
    return metrics | {f"agent/{name}": count / each for name, count in sorted(done.items())}
