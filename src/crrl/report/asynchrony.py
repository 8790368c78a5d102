"""What running ahead gave: how old the tokens were, and how much of the time trainer and engine worked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crrl.console.plain import seconds

Metrics = Mapping[str, float]


def asynchrony(steps: Sequence[Metrics], bound: int) -> dict[str, float]:
    """From the metrics of a run's updates. `bound`: `rollout.staleness`.

    Returns:
        `bound`; `staleness` and `staleness_max` of trained tokens; `trainer_busy` and `engine_busy`, shares of the time
        that steps took; `engine_wait`, `engine_queued` and `engine_held`, seconds per episode. What no step has is
        missing.
    """
    found = {"bound": float(bound)}
    weights = {"staleness": "trained_tokens", "trainer_busy": "step_s", "engine_busy": "step_s"}
    for name in ("staleness", "trainer_busy", "engine_busy", "engine_wait", "engine_queued", "engine_held"):
        having = [step for step in steps if name in step]
        weighed = [step.get(weights.get(name, ""), 1.0) for step in having]
        if sum(weighed):
            found[name] = sum(step[name] * w for step, w in zip(having, weighed, strict=True)) / sum(weighed)
    oldest = [step["staleness_max"] for step in steps if "staleness_max" in step]
    return {**found, "staleness_max": max(oldest)} if oldest else found


def asynchrony_line(found: Mapping[str, Any]) -> str:
    """One line for people; "" if no step was trained."""
    if "trainer_busy" not in found:
        return ""
    parts = [f"trainer busy {found['trainer_busy']:.0%} of the training, engine {found.get('engine_busy', 0.0):.0%}"]
    if "staleness" in found:
        parts.append(f"tokens {found['staleness']:.2f} steps old (at most {found['staleness_max']:.0f})")
    if "engine_wait" in found:
        queued, held = found["engine_queued"], found["engine_held"]
        parts.append(
            f"an episode was at the engine {seconds(found['engine_wait'])}, of these {seconds(queued)} before first "
            f"tokens, {seconds(held)} held"
        )
    return " · ".join(parts)
