"""How old what a step trains on is: invariant 6, asserted at every step.

A token's staleness at step k is k minus the policy version that sampled it. A group of step k starts after the push of
version k - s (`rollout.staleness`), so no token is older than s; nothing is ever dropped for its age.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.errors import CrrlError
from crrl.learning.api import Row


def staleness(rows: Sequence[Row], step: int, bound: int) -> dict[str, float]:
    """The mean and the largest over the trained tokens (none: no entries).

    Raises:
        CrrlError: a token's version is older than step - bound, or newer than the policy.
    """
    ages = [step - v for row in rows for v, trained in zip(row.versions, row.loss_mask, strict=True) if trained]
    if not ages:
        return {}
    if max(ages) > bound or min(ages) < 0:
        wrong = next(r for r in rows if any(t and not 0 <= step - v <= bound for v, t in zip(r.versions, r.loss_mask)))  # noqa: B905
        raise CrrlError(
            f"Step {step} would train on tokens of policy versions {step - max(ages)} to {step - min(ages)} (episode "
            f"{wrong.episode}); rollout.staleness={bound} allows {max(0, step - bound)} to {step}.",
            "The run has stopped, and nothing was trained on them. The engine's versions are wrong: if another process "
            "pushes to it, stop that; then resume.",
        )
    return {"staleness": sum(ages) / len(ages), "staleness_max": float(max(ages))}
